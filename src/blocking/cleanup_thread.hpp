#pragma once

#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "blocking/pool_source.hpp"
#include "cache/cache_core.hpp"

namespace psycache::detail {

/// A cleanup loop in a thread of its own, on a connection of its own. Destroying it stops and joins
/// the thread.
class CleanupThread {
  public:
    CleanupThread(PoolSource& pools, const CacheOptions& options, const Telemetry& telemetry,
                  Duration interval);
    CleanupThread(const CleanupThread&) = delete;
    CleanupThread& operator=(const CleanupThread&) = delete;
    ~CleanupThread();

    /// @param timeout checked already.
    bool stop(std::optional<Duration> timeout);

  private:
    void run() noexcept;

    asio::io_context context_{1};
    const CacheCore::Self core_;
    asio::cancellation_signal stop_signal_;  // used in the thread only

    std::mutex mutex_;
    std::condition_variable ended_changed_;
    bool ended_ = false;
    std::thread thread_;
};

}  // namespace psycache::detail
