#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <memory>
#include <optional>

#include <psycache/cache_pool.hpp>
#include <psycache/duration.hpp>
#include <psycache/export.hpp>

namespace psycache {

namespace detail {
class CleanupTask;
class CleanupThread;
}  // namespace detail

/// The handle of a cleanup loop that runs as a coroutine: see
/// `AsyncPostgresCache::start_cleanup_task`.
///
/// Move-only. Destroying it asks the loop to stop and does not wait. The context of the loop's
/// executor must outlive it.
class PSYCACHE_EXPORT AsyncCleanupService {
  public:
    /// A handle of nothing: `stop` answers true.
    AsyncCleanupService() noexcept;
    explicit AsyncCleanupService(std::shared_ptr<detail::CleanupTask> task) noexcept;
    AsyncCleanupService(AsyncCleanupService&&) noexcept;
    AsyncCleanupService& operator=(AsyncCleanupService&&) noexcept;
    ~AsyncCleanupService();

    /// Asks the loop to stop and waits until it has.
    ///
    /// A batch that is running is not interrupted. May be called again, also at the same time.
    ///
    /// @param timeout how long to wait, not negative; nullopt waits for ever.
    /// @returns whether the loop has ended; false is logged as a warning, and the loop still ends
    /// after its batch.
    /// @par Errors
    /// `std::invalid_argument` for a negative time-out or no_expiry, before anything is asked.
    /// @par Cancellation
    /// All types: the wait ends with `operation_aborted`; the loop stays asked to stop.
    /// @par Executor and threads
    /// Any thread; resumes on the awaiting coroutine's executor.
    /// @par Object lifetimes
    /// The handle may be destroyed while this waits.
    asio::awaitable<bool> stop(std::optional<Duration> timeout = std::chrono::seconds(5));

  private:
    std::shared_ptr<detail::CleanupTask> task_;
};

/// The handle of a cleanup loop that runs in a thread of its own, named "psycache-cleanup" (Linux
/// shows the first 15 characters): see
/// `PostgresCache::start_cleanup_thread`.
///
/// Move-only. Destroying it stops the thread and joins it: it waits for the running batch, for
/// `CacheOptions::maintenance_timeout` at most, plus the time to get a connection.
class PSYCACHE_EXPORT CleanupService {
  public:
    /// A handle of nothing: `stop` answers true.
    CleanupService() noexcept;
    explicit CleanupService(std::shared_ptr<detail::CleanupThread> thread) noexcept;
    CleanupService(CleanupService&&) noexcept;
    CleanupService& operator=(CleanupService&&) noexcept;
    ~CleanupService();

    /// Asks the thread to stop and waits until it has.
    ///
    /// A batch that is running is not interrupted. May be called again, from any thread.
    ///
    /// @param timeout how long to wait, not negative; nullopt waits for ever.
    /// @returns whether the thread has ended; false is logged as a warning, and the thread still
    /// ends after its batch.
    /// @throws std::invalid_argument for a negative time-out or no_expiry, before anything is
    /// asked.
    bool stop(std::optional<Duration> timeout = std::chrono::seconds(5));

  private:
    std::shared_ptr<detail::CleanupThread> thread_;
};

}  // namespace psycache
