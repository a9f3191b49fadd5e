#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>

namespace psycache::detail {

/// Threads that load stale values anew, for callers that have their answer already. Each ends with
/// its value. Safe for several threads.
class RenewalThreads {
  public:
    RenewalThreads() = default;
    RenewalThreads(const RenewalThreads&) = delete;
    RenewalThreads& operator=(const RenewalThreads&) = delete;
    /// Waits for those that run, unless this is the child of a fork, which has none of them.
    ~RenewalThreads();

    /// Runs @p task in a thread. @returns whether one could be had; if not, it is destroyed.
    bool start(std::function<void()> task);

  private:
    /// So many loaders at once are the work of a service; more would be its end.
    static constexpr std::size_t most = 8;

    std::mutex mutex_;
    std::condition_variable ended_;
    std::size_t running_ = 0;
    std::atomic<unsigned> forks_{0};  // when the last one was started
};

}  // namespace psycache::detail
