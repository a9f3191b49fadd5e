#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

namespace psycache::detail {

/// The thread that runs the listener of a PostgresCache, whose own event loop stands still while
/// no call waits for it. Started when it is first needed.
class ListenerThread {
  public:
    ListenerThread() = default;
    ListenerThread(const ListenerThread&) = delete;
    ListenerThread& operator=(const ListenerThread&) = delete;
    /// Waits for the end of the thread: the listener has been stopped before.
    ~ListenerThread();

    boost::asio::io_context::executor_type executor() noexcept { return context_->get_executor(); }
    void start();

  private:
    using Work =
        std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>>;

    void run() noexcept;

    std::unique_ptr<boost::asio::io_context> context_ = std::make_unique<boost::asio::io_context>();
    std::mutex mutex_;
    Work work_;
    std::thread thread_;
    unsigned forks_ = 0;  // when it was started
};

}  // namespace psycache::detail
