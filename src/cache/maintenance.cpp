#include "cache/maintenance.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>

#include "cache/eviction.hpp"
#include "cache/table_job.hpp"

namespace psycache::detail {

namespace {

Result<std::uint64_t> affected(const Result<pg::Rows>& rows) {
    return rows ? Result<std::uint64_t>(rows->affected()) : rows.error();
}

/// What one batch of a cleanup did.
struct Batch {
    std::uint64_t deleted = 0;
    bool tags = false;  ///< whether there is a table of tags to clean
};

asio::awaitable<Result<Batch>> delete_batch(const CacheCore& core, std::shared_ptr<TableJob> job,
                                            Duration patience) {
    const Cleanup& cleanup = core.operations.cleanup;
    const pg::Parameters none;
    if (!cleanup.keys_only) {
        const Result<pg::Rows> deleted = co_await run_on_table(
            core, job, TableStatement{cleanup.by_place, none, "cleanup", true, patience});
        if (deleted) {
            co_return Batch{static_cast<std::uint64_t>(deleted->integer(0, 0)),
                            deleted->integer(0, 1) != 0};
        }
        if (!Cleanup::has_no_places(deleted.error())) {
            co_return deleted.error();
        }
    }
    const Result<std::uint64_t> deleted = affected(co_await run_on_table(
        core, job, TableStatement{cleanup.by_key, none, "cleanup", true, patience}));
    if (!deleted) {
        co_return deleted.error();
    }
    cleanup.keys_only = true;
    co_return Batch{*deleted, false};
}

asio::awaitable<Result<std::uint64_t>> delete_all(CacheCore::Self core,
                                                  std::shared_ptr<TableJob> job,
                                                  Duration patience) {
    const pg::Parameters none;
    co_return affected(co_await run_on_table(
        *core, std::move(job),
        TableStatement{core->operations.flush.all, none, "flush", false, patience}));
}

asio::awaitable<Result<std::uint64_t>> delete_expired(CacheCore::Self core,
                                                      std::shared_ptr<TableJob> job,
                                                      Duration patience) {
    std::uint64_t total = 0;
    bool tags = false;
    for (;;) {
        const Result<Batch> batch = co_await delete_batch(*core, job, patience);
        if (!batch) {
            co_return batch.error();
        }
        total += batch->deleted;
        tags = batch->tags;
        if (batch->deleted < Cleanup::batch_size) {
            break;
        }
    }
    for (bool more = tags; more;) {
        const pg::Parameters none;
        const Result<pg::Rows> due = co_await run_on_table(
            *core, job,
            TableStatement{core->operations.cleanup.tags, none, "cleanup", true, patience});
        if (!due) {
            co_return due.error();
        }
        more = due->integer(0, 0) >= static_cast<std::int64_t>(Cleanup::batch_size);
    }
    const Result<std::uint64_t> evicted = co_await evict_excess(*core, job, patience);
    if (!evicted) {
        co_return evicted.error();
    }
    if (job->stop_requested()) {
        co_return cancelled_failure();
    }
    co_return total + *evicted;
}

}  // namespace

asio::awaitable<std::uint64_t> flush(CacheCore::Self core, CallOptions options) {
    JobBody<std::uint64_t> body =
        [core, patience = core->patience(options)](std::shared_ptr<TableJob> job) {
            return delete_all(core, std::move(job), patience);
        };
    return perform_job(std::move(core), FlushAll(), TableJob::OnCancel::leave, std::move(body),
                       std::move(options));
}

asio::awaitable<std::uint64_t> cleanup_expired(CacheCore::Self core, CallOptions options) {
    JobBody<std::uint64_t> body =
        [core, patience = core->patience(options)](std::shared_ptr<TableJob> job) {
            return delete_expired(core, std::move(job), patience);
        };
    return perform_job(std::move(core), CleanupExpired(), TableJob::OnCancel::wait_for_the_end,
                       std::move(body), std::move(options));
}

void cleanup_failed(const CacheCore& core, const Failure& failure) noexcept {
    ++core.counts->cleanup_failures;
    core.observers->log(LogLevel::error, "Periodic cache cleanup failed: " + failure.cause);
}

asio::awaitable<void> run_cleanup(CacheCore::Self core, Duration interval) {
    // What stops the loop is for its caller to say; a spawned coroutine lets only "terminal"
    // through.
    co_await asio::this_coro::reset_cancellation_state(asio::enable_total_cancellation());
    asio::steady_timer pause(co_await asio::this_coro::executor);
    for (;;) {
        std::exception_ptr thrown;
        try {
            co_await cleanup_expired(core, CallOptions());
        } catch (...) {
            thrown = std::current_exception();
        }
        auto state = co_await asio::this_coro::cancellation_state;
        if (state.cancelled() == asio::cancellation_type::none) {
            if (thrown) {
                cleanup_failed(*core, to_failure(thrown, Errc::protocol_error));
            }
            pause.expires_after(interval);
            co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
            state = co_await asio::this_coro::cancellation_state;
        }
        if (state.cancelled() != asio::cancellation_type::none) {
            throw to_error("run_cleanup", cancelled_failure());
        }
    }
}

}  // namespace psycache::detail
