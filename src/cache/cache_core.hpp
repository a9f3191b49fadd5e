#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <memory>
#include <optional>

#include <psycache/async_postgres_cache.hpp>
#include <psycache/connection_pool.hpp>

#include "batching/batcher.hpp"
#include "cache/breaker.hpp"
#include "core/telemetry.hpp"
#include "loading/loads.hpp"
#include "near/near_cache.hpp"
#include "operations/operations.hpp"

namespace psycache::detail {

/// What the handles of one cache share. Its calls are made by perform() and, for whole tables, by
/// the functions of maintenance.hpp.
class CacheCore {
  public:
    using Self = std::shared_ptr<CacheCore>;

    /// How threads that wait run calls; none of it where coroutines do.
    struct Blocking {
        Batcher::Host* host = nullptr;
        bool pool_blocks = false;
    };

    /// @param options checked already.
    /// @param near_cache null where there is none.
    CacheCore(std::shared_ptr<AsyncCachePool> pool, const CacheOptions& options,
              Telemetry telemetry, Blocking blocking, std::shared_ptr<NearCache> near_cache);
    /// @throws std::invalid_argument for a near cache that the pool has no connection for.
    CacheCore(std::shared_ptr<AsyncCachePool> pool, const CacheOptions& options);
    CacheCore(const CacheCore&) = delete;
    CacheCore& operator=(const CacheCore&) = delete;
    ~CacheCore();

    /// A call, or maintenance, that is in progress.
    class InProgress {
      public:
        explicit InProgress(const CacheCore& core) noexcept : core_(core) { ++core_.in_progress_; }
        InProgress(const InProgress&) = delete;
        InProgress& operator=(const InProgress&) = delete;
        ~InProgress() { --core_.in_progress_; }

        /// @returns whether the cache takes no calls any more.
        bool refused() const noexcept { return core_.draining_; }

      private:
        const CacheCore& core_;
    };

    /// Takes no more calls from now on. @returns whether none is in progress.
    bool drain() noexcept {
        draining_ = true;
        return in_progress_ == 0;
    }

    /// @returns how long a statement of maintenance may take.
    Duration patience(const CallOptions& options) const {
        return options.timeout.value_or(maintenance_timeout);
    }
    /// @returns the deadline of a call that begins now. @throws std::invalid_argument.
    TimePoint deadline(const CallOptions& options) const;
    /// @returns a call's way past the breaker.
    Breaker::Pass admit(bool writes) const;
    /// Counts the failure of a call.
    void count_failure(const Failure& failure) const noexcept;
    /// @returns whether a call that failed so is answered as OnOutage::miss says.
    bool hides(const Failure& failure) const noexcept;

    CacheStatistics statistics() const;
    Telemetry shown() const { return {observers, counts}; }

    const std::shared_ptr<AsyncCachePool> pool;
    const std::shared_ptr<const Observers> observers;
    const std::shared_ptr<Counts> counts;
    const std::shared_ptr<const Operations> operations_owner;
    const Operations& operations;
    const std::shared_ptr<Batcher> batcher;
    const std::shared_ptr<NearCache> near;  ///< null where there is none
    const std::shared_ptr<Loads> loads = std::make_shared<Loads>();
    const Duration timeout;
    const Duration maintenance_timeout;
    const TableLimits limits;
    const bool pool_blocks;
    std::shared_ptr<ConnectionPool>
        own_pool;  ///< made for this cache alone; null where it is shared

  private:
    CacheCore(std::shared_ptr<AsyncCachePool> pool, const CacheOptions& options,
              const Telemetry& telemetry);

    mutable std::atomic<std::size_t> in_progress_{0};
    std::atomic<bool> draining_{false};
    const OnOutage on_outage_;
    const std::shared_ptr<Breaker> breaker_;  // none where outages are to be heard of
};

/// @param executor where its listener runs, which need not be the pool's. @param started see
/// NearCache::Place.
/// @returns the near cache that the options ask for, or null.
/// @throws std::invalid_argument where it is to listen and the pool has no connection for that.
std::shared_ptr<NearCache> make_near_cache(const CacheOptions& options, const AsyncCachePool& pool,
                                           const std::shared_ptr<const Observers>& observers,
                                           const asio::any_io_executor& executor,
                                           std::function<void()> started);

/// @returns the failure of a call that comes when the cache takes no more.
Failure drained_failure();

/// Opens connections before they are needed.
asio::awaitable<void> warm_up(CacheCore::Self core);

/// Takes no more calls, waits until all have ended, to @p patience at most, and closes the cache's
/// own pool. @returns whether all have ended.
asio::awaitable<bool> drain(CacheCore::Self core, Duration patience);

}  // namespace psycache::detail
