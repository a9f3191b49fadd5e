#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <psycache/options.hpp>

#include "blocking/cleanup_thread.hpp"
#include "blocking/listener_thread.hpp"
#include "blocking/loop.hpp"
#include "blocking/pool_source.hpp"
#include "blocking/renewal_threads.hpp"
#include "cache/perform.hpp"
#include "pg/fork.hpp"

namespace psycache::detail {

/// What a PostgresCache consists of: the core of an asynchronous cache, whose event loop is driven
/// by the threads that wait for it.
class BlockingCore {
  public:
    /// @param options checked already.
    BlockingCore(std::shared_ptr<PoolSource> pools, CacheOptions options);
    BlockingCore(const BlockingCore&) = delete;
    BlockingCore& operator=(const BlockingCore&) = delete;
    ~BlockingCore();

    /// Runs a call in the calling thread.
    template <class Request>
    typename Request::Value perform(Request request, const CallOptions& options) {
        const Inside inside(*this, Request::name);
        Performance<Request> performance(*core_, std::move(request), options);
        performance.check_more(TimePoint::max());
        for (CallSpan calls = performance.next_calls(); !calls.empty();
             calls = performance.next_calls()) {
            settle(calls);
        }
        return performance.finish();
    }

    /// Runs a call on the whole table. @param call makes its coroutine of the core.
    template <class Maintenance>
    std::uint64_t maintain(std::string_view operation, const Maintenance& call) {
        const Inside inside(*this, operation);
        std::uint64_t rows = 0;
        const auto count = [&]() -> asio::awaitable<void> {
            auto running = call(core_);
            rows = co_await std::move(running);
        };
        run_on_loop(count());
        return rows;
    }
    /// Takes no more calls, waits until all have ended, and closes the pool.
    bool drain(Duration patience);

    /// Opens connections before they are needed.
    void warm_up();

    /// @param interval checked already.
    std::shared_ptr<CleanupThread> start_cleanup(Duration interval) const;

    const CacheCore::Self& cache() const noexcept { return core_; }
    RenewalThreads& renewals() noexcept { return renewals_; }

    CacheStatistics statistics() const { return core_->statistics(); }
    /// What callers that are gone have left behind is looked after first.
    std::optional<PoolStatistics> pool_statistics();

  private:
    /// Marks the thread as being inside of a call; refuses a second one, and the child of a fork.
    class Inside {
      public:
        Inside(BlockingCore& core, std::string_view operation);
        Inside(const Inside&) = delete;
        Inside& operator=(const Inside&) = delete;
        ~Inside();

      private:
        BlockingCore& core_;
        const Inside* const outer_;
    };

    void run_on_loop(asio::awaitable<void> task);
    void settle(CallSpan calls);
    void clear_up();
    void wait_for(Waited& waited, CallSpan calls, Batcher::Rest rest);

    const unsigned forks_ = pg::forks();
    const std::shared_ptr<PoolSource> pools_;
    const CacheOptions options_;
    const Telemetry telemetry_;
    std::atomic<std::size_t> callers_{0};
    Loop loop_;
    const std::shared_ptr<AsyncCachePool> pool_;
    ListenerThread listener_;
    const CacheCore::Self core_;
    RenewalThreads renewals_;  // last, since its threads use all of the rest
};

}  // namespace psycache::detail
