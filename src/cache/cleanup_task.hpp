#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "cache/cache_core.hpp"
#include "core/timed_wait.hpp"

namespace psycache::detail {

/// A cleanup loop on a strand of an executor, and the waits for its end.
class CleanupTask : public std::enable_shared_from_this<CleanupTask> {
  public:
    CleanupTask(CacheCore::Self core, const asio::any_io_executor& executor);

    void start(Duration interval);
    void request_stop() noexcept;

    /// @param timeout checked already.
    static asio::awaitable<bool> stop(std::shared_ptr<CleanupTask> self,
                                      std::optional<Duration> timeout);

  private:
    using EndWait = TimedWait<bool>;

    void ended() noexcept;
    void wait_for_end(std::shared_ptr<EndWait> wait, asio::steady_timer& timer,
                      std::optional<Duration> timeout);

    const CacheCore::Self core_;
    const asio::any_io_executor strand_;
    asio::cancellation_signal stop_signal_;  // used on the strand only

    std::mutex mutex_;
    bool ended_ = false;
    std::vector<std::shared_ptr<EndWait>> waits_;
};

/// @returns "5s", "0.25s": as the warnings about a late stop put it.
std::string in_seconds(Duration duration);

}  // namespace psycache::detail
