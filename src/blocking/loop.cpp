#include "blocking/loop.hpp"

#include <algorithm>

namespace psycache::detail {

void Loop::loop_has_work() noexcept {
    const std::lock_guard lock(mutex_);
    busy_ = true;
    ++posted_;
    find_driver();
}

/// Asks a thread to drive the loop, if that is wanted. Under the lock.
void Loop::find_driver() {
    if (busy_ && !driven_ && !waiting_.empty()) {
        // It is the driver from now on, so that no other is asked.
        driven_ = true;
        waiting_.front()->ask_to_drive();
        waiting_.pop_front();
    }
}

void Loop::wait(WaitingThread& thread, TimePoint until) {
    std::unique_lock lock(mutex_);
    bool drives = busy_ && !driven_;
    if (drives) {
        driven_ = true;
    } else {
        const auto place = waiting_.insert(waiting_.end(), &thread);
        lock.unlock();
        thread.sleep(until);
        lock.lock();
        // Taken out by the one who asked it to drive.
        drives = std::find(waiting_.begin(), waiting_.end(), &thread) == waiting_.end();
        if (!drives) {
            waiting_.erase(place);
        }
    }
    lock.unlock();
    if (drives) {
        drive(thread, until);
    }
}

void Loop::drive(WaitingThread& thread, TimePoint until) {
    thread.drive(&context_);
    bool ended = false;
    while (!ended && !thread.wanted() && Clock::now() < until) {
        std::size_t seen = 0;
        {
            const std::lock_guard lock(mutex_);
            seen = posted_;
        }
        if (context_.stopped()) {
            context_.restart();
        }
        ended = context_.run_one_until(until) == 0 && context_.stopped() && came_to_its_end(seen);
    }
    thread.drive(nullptr);
    stop_driving();
}

/// The loop has run out of work. @returns whether it got none since @p seen was read.
bool Loop::came_to_its_end(std::size_t seen) {
    const std::lock_guard lock(mutex_);
    if (seen == posted_) {
        busy_ = false;
    }
    return !busy_;
}

void Loop::stop_driving() {
    const std::lock_guard lock(mutex_);
    driven_ = false;
    find_driver();
}

void Loop::run_ready() {
    std::size_t seen = 0;
    {
        const std::lock_guard lock(mutex_);
        if (driven_) {
            return;
        }
        driven_ = true;
        seen = posted_;
    }
    if (context_.stopped()) {
        context_.restart();
    }
    context_.poll();
    if (context_.stopped()) {
        came_to_its_end(seen);
    }
    stop_driving();
}

}  // namespace psycache::detail
