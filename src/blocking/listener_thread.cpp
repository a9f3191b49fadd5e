#include "blocking/listener_thread.hpp"

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <utility>

#include "pg/fork.hpp"

namespace psycache::detail {

ListenerThread::~ListenerThread() {
    if (!thread_.joinable()) {
        return;
    }
    if (forks_ != pg::forks()) {
        // The parent's: it is not there, cannot be waited for, and may hold the context's locks.
        static_cast<void>(new std::thread(std::move(thread_)));
        static_cast<void>(new Work(std::move(work_)));
        static_cast<void>(context_.release());
        return;
    }
    work_.reset();
    thread_.join();
}

void ListenerThread::start() {
    const std::lock_guard lock(mutex_);
    if (thread_.joinable()) {
        return;
    }
    forks_ = pg::forks();
    work_.emplace(context_->get_executor());
    thread_ = std::thread([this] { run(); });
}

void ListenerThread::run() noexcept {
#ifdef __linux__
    // Fifteen characters of it are kept.
    ::prctl(PR_SET_NAME, "psycache-listen", 0, 0, 0);
#endif
    context_->run();
}

}  // namespace psycache::detail
