#include "blocking/renewal_threads.hpp"

#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "pg/fork.hpp"

namespace psycache::detail {

RenewalThreads::~RenewalThreads() {
    if (forks_ != pg::forks()) {
        return;  // the lock may be held by a thread that is not there
    }
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return running_ == 0; });
}

bool RenewalThreads::start(std::function<void()> task) {
    const std::lock_guard lock(mutex_);
    if (running_ >= most) {
        return false;
    }
    forks_ = pg::forks();
    try {
        std::thread([this, own = std::move(task)]() mutable {
            own();
            own = nullptr;
            const std::lock_guard ending(mutex_);
            --running_;
            ended_.notify_all();
        }).detach();
    } catch (const std::system_error&) {
        return false;
    }
    ++running_;
    return true;
}

}  // namespace psycache::detail
