#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/container/small_vector.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "cache/cache_core.hpp"

namespace psycache::detail {

/// One call of the cache from its beginning to its end, however its answer is waited for: spans,
/// breaker, checks, errors and counts. The spine of every call, lone or of many keys, in a
/// coroutine or in a thread.
///
/// A request (operations/) says what is particular:
///   Span, Value, name, writes  of the public call
///   open_spans(observers, n)   its spans
///   mistake()                  what is wrong with its arguments, if anything
///   make_calls(ops, until, c)  what is to be asked of the server; takes the arguments
///   read(calls)                optional: why what was answered cannot be read, if it cannot
///   value(calls, counts, s)    the result of answered calls, which counters and spans are told
///   outage(counts)             the result where OnOutage::miss hides a failure; without it none is
///                              hidden
///   explain(failure)           a failure in the terms of the call
/// One of many keys goes slice by slice (operations/many.hpp):
///   size(), mistake(place)     instead of mistake()
///   make_calls(ops, until, c)  those of the next slice; none when there is no more
///   take(calls, counts, s)     the answers of a slice; may return why one cannot be read
///   value(s)                   the result of all
///   drop(n), drop_answers(n)   free arguments and answers that are not needed, a part at a time
template <class Request>
class Performance {
  public:
    using Value = typename Request::Value;
    static constexpr bool of_many = OfMany<Request>;
    /// A lone call needs no allocation.
    using ItsCalls = boost::container::small_vector<std::shared_ptr<Call>, 1>;

    /// @throws std::invalid_argument for the options.
    Performance(const CacheCore& core, Request request, const CallOptions& options)
        : in_progress_(core),
          core_(core),
          until_(core.deadline(options)),
          request_(std::move(request)),
          spans_(request_.open_spans(*core.observers, SpanName{options.span_name, Request::name})),
          pass_(core.admit(Request::writes)) {}

    /// Checks arguments until @p pause has come, which matters for many. @returns whether some are
    /// left to be checked.
    bool check_more(TimePoint pause) {
        std::optional<Failure> mistake;
        if constexpr (of_many) {
            while (checked_ < request_.size() && !(mistake = request_.mistake(checked_))) {
                ++checked_;
                if (Clock::now() >= pause) {
                    return checked_ < request_.size();
                }
            }
        } else {
            mistake = request_.mistake();
        }
        if (mistake) {
            failure_ = std::move(*mistake);
        } else if (in_progress_.refused()) {
            failure_ = drained_failure();
        } else if (pass_.refusal()) {
            failure_ = *pass_.refusal();
        }
        return false;
    }

    /// @returns what is to be settled next, once that of the last time is; none when all is asked,
    /// or it is known how it ends.
    CallSpan next_calls() {
        if constexpr (of_many) {
            take();
            calls_.clear();
        }
        if (!failure_.code && calls_.empty()) {
            request_.make_calls(core_.operations, until_, calls_);
            return CallSpan(calls_.data(), calls_.size());
        }
        return CallSpan();
    }

    /// It failed before all of its calls were settled.
    void fail(Failure failure) { failure_ = std::move(failure); }

    /// Lets go of a part of what finish() does not need. @returns whether there is more.
    bool drop_some() {
        constexpr std::size_t at_once = 4 * slice_size;
        return request_.drop(at_once) ||
               (failure_.code && !hidden() && request_.drop_answers(at_once));
    }

    /// @returns the call's result. @throws Error.
    Value finish() {
        take();
        if (!failure_.code) {
            pass_.succeeded();
            if constexpr (of_many) {
                return request_.value(spans_);
            } else {
                return request_.value(CallSpan(calls_.data(), calls_.size()), *core_.counts,
                                      spans_);
            }
        }
        failure_ = request_.explain(std::move(failure_));
        core_.count_failure(failure_);
        spans_.record_error(failure_.code);
        pass_.failed(failure_);
        if constexpr (requires { request_.outage(*core_.counts); }) {
            if (hidden()) {
                return request_.outage(*core_.counts);
            }
        }
        throw to_error(Request::name, failure_);
    }

  private:
    bool hidden() const noexcept { return core_.hides(failure_); }

    /// Takes what calls that are settled say.
    void take() {
        if constexpr (Request::writes) {
            forget_written();
        }
        for (std::size_t i = 0; i < calls_.size() && !failure_.code; ++i) {
            failure_ = calls_[i]->failure();
        }
        const CallSpan calls(calls_.data(), calls_.size());
        if (failure_.code || calls.empty()) {
            return;
        }
        if constexpr (of_many) {
            if constexpr (std::is_void_v<decltype(request_.take(calls, *core_.counts, spans_))>) {
                request_.take(calls, *core_.counts, spans_);
            } else {
                failure_ = request_.take(calls, *core_.counts, spans_);
            }
        } else if constexpr (requires { request_.read(calls); }) {
            failure_ = request_.read(calls);
        }
    }

    /// Before the caller hears of it, memory knows no more what was written, or may have been.
    void forget_written() noexcept {
        if (core_.near) {
            for (const auto& call : calls_) {
                core_.near->forget(call->key);
            }
        }
    }

    const CacheCore::InProgress in_progress_;
    const CacheCore& core_;
    const TimePoint until_;
    Request request_;
    Spans<typename Request::Span> spans_;
    Breaker::Pass pass_;
    std::size_t checked_ = 0;
    ItsCalls calls_;
    Failure failure_;
};

/// @returns until when a call of many keys may keep other handlers of its event loop waiting.
template <class Request>
TimePoint end_of_turn() {
    return OfMany<Request> ? Clock::now() + std::chrono::milliseconds(1) : TimePoint::max();
}

/// Runs a call in a coroutine.
template <class Request>
asio::awaitable<typename Request::Value> perform(CacheCore::Self core, Request request,
                                                 CallOptions options) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    Performance<Request> performance(*core, std::move(request), options);
    while (performance.check_more(end_of_turn<Request>())) {
        const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
        if (state.cancelled() != asio::cancellation_type::none) {
            break;
        }
        auto turn = asio::post(executor, asio::deferred);
        co_await std::move(turn);
    }
    for (CallSpan calls = performance.next_calls(); !calls.empty();
         calls = performance.next_calls()) {
        if constexpr (OfMany<Request>) {
            // Asked for by name: to wait once more would throw it, past all that is to be told.
            const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
            if (state.cancelled() != asio::cancellation_type::none) {
                performance.fail(cancelled_failure());
                break;
            }
        }
        const auto watch = core->batcher->watch_from(executor, calls);
        if (calls.size() == 1) {
            auto answer = Batcher::perform(core->batcher, calls.front(), executor);
            co_await std::move(answer);
        } else {
            auto batch = std::make_shared<Batch>(core->batcher, calls);
            auto answers = Batcher::perform_all(core->batcher, std::move(batch), executor);
            co_await std::move(answers);
        }
    }
    if constexpr (OfMany<Request>) {
        if (performance.drop_some()) {
            // Also after a cancellation, which the waits would throw.
            const bool throws = co_await asio::this_coro::throw_if_cancelled();
            co_await asio::this_coro::throw_if_cancelled(false);
            do {
                auto turn = asio::post(executor, asio::deferred);
                co_await std::move(turn);
            } while (performance.drop_some());
            co_await asio::this_coro::throw_if_cancelled(throws);
        }
    }
    co_return performance.finish();
}

}  // namespace psycache::detail
