#include "batching/waiting_thread.hpp"

#include <boost/asio/post.hpp>

#include "batching/batcher.hpp"

namespace psycache::detail {

WorkerTurn::~WorkerTurn() {
    if (batcher_) {
        batcher_->turn_lost(worker);
    }
}

void WaitingThread::wake(std::unique_lock<std::mutex> lock) noexcept {
    if (driven_ == nullptr) {
        lock.unlock();
        changed_.notify_one();
        return;
    }
    try {
        // Under the lock: the thread leaves the context before it goes on.
        asio::post(*driven_, [] {});
    } catch (...) {
        // Out of memory: it goes on when the next thing happens on the loop, or at its deadline.
    }
}

void WaitingThread::answer() noexcept {
    std::unique_lock lock(mutex_);
    answered_ = true;
    wake(std::move(lock));
}

bool WaitingThread::offer(WorkerTurn& turn) noexcept {
    std::unique_lock lock(mutex_);
    if (!takes_turns_ || turn_ || answered_) {
        return false;
    }
    turn_.emplace(std::move(turn));
    wake(std::move(lock));
    return true;
}

void WaitingThread::ask_to_drive() noexcept {
    std::unique_lock lock(mutex_);
    asked_to_drive_ = true;
    wake(std::move(lock));
}

bool WaitingThread::answered() const noexcept {
    const std::lock_guard lock(mutex_);
    return answered_;
}

std::optional<WorkerTurn> WaitingThread::take_turn() {
    const std::lock_guard lock(mutex_);
    std::optional<WorkerTurn> taken = move_turn_out();
    takes_turns_ = !taken;
    return taken;
}

void WaitingThread::work() noexcept {
    const std::lock_guard lock(mutex_);
    takes_turns_ = false;
}

std::optional<WorkerTurn> WaitingThread::leave() {
    const std::lock_guard lock(mutex_);
    takes_turns_ = false;
    return move_turn_out();
}

std::optional<WorkerTurn> WaitingThread::move_turn_out() {
    std::optional<WorkerTurn> out;
    if (turn_) {
        out.emplace(std::move(*turn_));
        turn_.reset();
    }
    return out;
}

void WaitingThread::sleep(TimePoint until) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, until, [this] { return answered_ || turn_ || asked_to_drive_; });
    asked_to_drive_ = false;
}

void WaitingThread::drive(boost::asio::io_context* context) noexcept {
    const std::lock_guard lock(mutex_);
    driven_ = context;
    asked_to_drive_ = false;
}

bool WaitingThread::wanted() const noexcept {
    const std::lock_guard lock(mutex_);
    return answered_ || turn_;
}

}  // namespace psycache::detail
