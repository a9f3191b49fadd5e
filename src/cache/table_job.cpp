#include "cache/table_job.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "batching/retry_decision.hpp"
#include "pool/borrow.hpp"
#include "pool/lease_state.hpp"

namespace psycache::detail {

namespace {

/// Between two tries of a statement that met a conflict.
constexpr std::chrono::milliseconds conflict_pause{20};

}  // namespace

asio::awaitable<Result<pg::Rows>> run_on_table(const CacheCore& core, std::shared_ptr<TableJob> job,
                                               TableStatement what) {
    const auto until = [&] { return std::min(Clock::now() + what.patience, what.deadline); };
    const TimePoint give_up = until();
    if (Clock::now() >= give_up) {
        co_return Failure(Errc::timed_out);
    }
    asio::steady_timer pause(co_await asio::this_coro::executor);
    Batcher::MaintenanceTurn turn(core.batcher);
    while (!turn.begin()) {
        if (Clock::now() >= give_up || job->stop_requested()) {
            co_return job->stop_requested()
                ? job->stop_failure()
                : Failure(Errc::timed_out,
                          "writes that wait for locks left it no connection (maintenance_timeout)");
        }
        pause.expires_after(Batcher::MaintenanceTurn::pause);
        co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
    }
    bool again = false;
    for (Tries tries;; again = true) {
        Result<ConnectionLease> lease = co_await borrow(*core.pool, *core.observers);
        if (!lease) {
            co_return lease.error();
        }
        if (!job->begin_step()) {
            co_return job->stop_failure();
        }
        core.counts->retries += again ? 1 : 0;
        const StatementWatch watch(*core.observers, what.operation, 1, again);
        pg::Connection& connection = lease->state().connection();
        pg::Answer answer{pg::Rows()};
        if (core.pool_blocks) {
            answer = connection.execute_blocking(what.statement, what.parameters, until());
        } else {
            answer = co_await connection.execute(what.statement, what.parameters, until());
        }
        watch.ended(answer ? boost::system::error_code() : answer.error().failure.code);
        job->end_step();
        if (answer) {
            co_return std::move(*answer);
        }
        const pg::StatementFailure failed = answer.error();
        switch (decide_retry(failed, RetryRules{true, what.repeatable, 1}, tries)) {
            case RetryDecision::retry:
                break;
            case RetryDecision::retry_later:
            case RetryDecision::stand_aside:
                if (Clock::now() >= give_up) {
                    co_return core.operations.table.explain(failed.failure);
                }
                pause.expires_after(conflict_pause);
                co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
                break;
            case RetryDecision::one_by_one:
            case RetryDecision::fail:
                co_return core.operations.table.explain(failed.failure);
            case RetryDecision::fail_as_unknown:
                // Where it may be repeated it need not be known whether it was done.
                co_return what.repeatable ? failed.failure : Failure(Errc::outcome_unknown);
        }
    }
}

}  // namespace psycache::detail
