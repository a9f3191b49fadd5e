#pragma once

#include <boost/asio/io_context.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "batching/scheduler.hpp"
#include "core/clock.hpp"

namespace psycache::detail {

/// The right to be a worker, and the duty to say how it ends. It is counted by the scheduler; when
/// the context of a worker's coroutine is destroyed, the calls that wait for it learn it here.
class WorkerTurn {
  public:
    /// @param batcher whose scheduler has counted it already.
    explicit WorkerTurn(std::shared_ptr<Batcher> batcher, Worker its = Worker())
        : worker(its), batcher_(std::move(batcher)) {}
    WorkerTurn(WorkerTurn&&) noexcept = default;
    WorkerTurn& operator=(WorkerTurn&& other) noexcept {
        const WorkerTurn old(std::move(*this));
        worker = other.worker;
        resume = other.resume;
        batcher_ = std::move(other.batcher_);
        return *this;
    }
    ~WorkerTurn();

    /// The worker has ended as it should, and is no longer counted.
    void done() noexcept { batcher_.reset(); }

    Worker worker;  // under the batcher's lock
    Resume resume = Resume::posted;

  private:
    std::shared_ptr<Batcher> batcher_;
};

/// A thread that waits for its calls. Meanwhile it may be asked to be a worker, or to drive the
/// event loop; whatever it is asked for wakes it.
class WaitingThread {
  public:
    /// Its calls are settled.
    void answer() noexcept;
    /// Gives it a turn. @returns false, and leaves the turn alone, when it cannot take one: it is
    /// at work, or has left.
    bool offer(WorkerTurn& turn) noexcept;
    /// It is to drive the event loop, if it still waits.
    void ask_to_drive() noexcept;

    bool answered() const noexcept;
    /// @returns the turn that it was given, if any; then it takes no other before it asks again.
    std::optional<WorkerTurn> take_turn();
    /// It is at work with a turn of its own: it takes no other before it asks for one.
    void work() noexcept;
    /// Sleeps until it is answered, is asked for something, or @p until has come.
    void sleep(TimePoint until);
    /// It runs this context from now on, or none: what wakes the thread wakes it from there.
    void drive(boost::asio::io_context* context) noexcept;
    /// @returns whether there is a reason not to wait any longer.
    bool wanted() const noexcept;
    /// It leaves. @returns the turn that it was given meanwhile and has not taken.
    std::optional<WorkerTurn> leave();

  private:
    void wake(std::unique_lock<std::mutex> lock) noexcept;
    std::optional<WorkerTurn> move_turn_out();

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    bool answered_ = false;
    bool takes_turns_ = true;
    bool asked_to_drive_ = false;
    std::optional<WorkerTurn> turn_;
    boost::asio::io_context* driven_ = nullptr;
};

}  // namespace psycache::detail
