#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <list>
#include <mutex>

#include "batching/batcher.hpp"
#include "batching/waiting_thread.hpp"

namespace psycache::detail {

/// The event loop of a blocking cache. It has no thread of its own: while there is work on it, one
/// of the threads that wait drives it, and hands that on when it leaves.
class Loop final : public Batcher::Host {
  public:
    boost::asio::io_context& context() noexcept { return context_; }

    void loop_has_work() noexcept override;

    /// Waits until the thread is answered or has a turn, or @p until has come; drives the loop
    /// meanwhile where no other thread does.
    void wait(WaitingThread& thread, TimePoint until);

    /// @returns whether threads that are gone may have left work behind.
    bool has_leftovers() const noexcept { return busy_.load(std::memory_order_relaxed); }
    /// Runs what is ready, if no thread drives the loop.
    void run_ready();

  private:
    void drive(WaitingThread& thread, TimePoint until);
    void stop_driving();
    void find_driver();
    bool came_to_its_end(std::size_t seen);

    boost::asio::io_context context_{BOOST_ASIO_CONCURRENCY_HINT_SAFE};
    std::mutex mutex_;
    std::atomic<bool> busy_{false};  // set under the lock
    bool driven_ = false;
    std::size_t posted_ = 0;             // how often it got work
    std::list<WaitingThread*> waiting_;  // that may be asked to drive
};

}  // namespace psycache::detail
