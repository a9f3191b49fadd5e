#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/this_coro.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

#include "cache/cache_core.hpp"
#include "core/job.hpp"
#include "core/option_checks.hpp"

namespace psycache::detail {

/// A call that works on the whole table, on a connection lent for each of its statements. Its
/// result is how many entries it removed.
using TableJob = Job<std::uint64_t>;

/// A statement of such a call.
struct TableStatement {
    const pg::Statement& statement;
    const pg::Parameters& parameters;
    std::string_view operation;  ///< as StatementInfo has it; a literal
    bool repeatable = true;      ///< whether it may be sent again when its answer was lost
    Duration patience;           ///< for its turn, and for each time that it is sent
    TimePoint deadline = TimePoint::max();  ///< of the call, where it has one for all statements
};

/// Runs a statement, as often as that helps. @p job says whether it may still begin.
asio::awaitable<Result<pg::Rows>> run_on_table(const CacheCore& core, std::shared_ptr<TableJob> job,
                                               TableStatement what);

/// The spine of a call on the whole table: as Performance, but its body is a job of its own.
///
/// A request (operations/) says what is particular:
///   Span, name               of the public call
///   open_spans(observers, n) its spans
///   mistake()                what is wrong with its arguments, if anything
///   tell(counts, spans, n)   what counters and spans hear of its end
/// @param body runs the statements.
template <class Request>
asio::awaitable<std::uint64_t> perform_job(CacheCore::Self core, Request request,
                                           TableJob::OnCancel on_cancel,
                                           JobBody<std::uint64_t> body, CallOptions options) {
    const CacheCore::InProgress in_progress(*core);
    check_call_options(options);
    auto spans = request.open_spans(*core->observers, SpanName{options.span_name, Request::name});
    asio::any_io_executor executor = core->pool->get_executor();
    if (!executor) {
        executor = co_await asio::this_coro::executor;
    }
    Result<std::uint64_t> result = drained_failure();
    if (auto wrong = request.mistake()) {
        result = std::move(*wrong);
    } else if (!in_progress.refused()) {
        auto running = run_job<std::uint64_t>(std::move(executor), on_cancel,
                                              core->patience(options), std::move(body));
        result = co_await std::move(running);
    }
    // What has expired is not served from memory: a cleanup changes nothing there.
    if (core->near && !std::is_same_v<Request, CleanupExpired>) {
        core->near->forget_all();
    }
    if (!result) {
        core->count_failure(result.error());
        spans.record_error(result.error().code);
        throw to_error(Request::name, result.error());
    }
    request.tell(*core->counts, spans, *result);
    co_return *result;
}

}  // namespace psycache::detail
