#pragma once

#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "cache/cache_core.hpp"

namespace psycache::detail {

/// Makes the connections of one event loop: a lane's or a cleanup thread's.
using PoolFactory = std::function<std::shared_ptr<AsyncCachePool>(asio::any_io_executor)>;

/// A cleanup loop in a thread of its own. Destroying it stops and joins the thread.
class CleanupThread {
  public:
    CleanupThread(const PoolFactory& make_pool, const CacheOptions& options,
                  std::shared_ptr<Telemetry> telemetry, Duration interval);
    CleanupThread(const CleanupThread&) = delete;
    CleanupThread& operator=(const CleanupThread&) = delete;
    ~CleanupThread();

    /// @param timeout checked already.
    bool stop(std::optional<Duration> timeout);

  private:
    void run() noexcept;

    const std::shared_ptr<Telemetry> telemetry_;
    asio::io_context context_{1};
    std::shared_ptr<CacheCore> core_;
    asio::cancellation_signal stop_signal_;  // used in the thread only

    std::mutex mutex_;
    std::condition_variable ended_changed_;
    bool ended_ = false;
    std::thread thread_;
};

}  // namespace psycache::detail
