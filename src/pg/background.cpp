#include "pg/background.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/at_end.hpp"
#include "pg/fork.hpp"

namespace psycache::detail::pg {

namespace {

struct Waiting {
    std::string about;
    std::function<void()> job;
};

/// The application's signal handlers run in its own threads.
void start_thread(const std::function<void()>& work) {
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &before);
    const AtEnd unmask([&] { ::pthread_sigmask(SIG_SETMASK, &before, nullptr); });
    std::thread(work).detach();
}

}  // namespace

/// What one process has; never destroyed, since a thread may be using it when the process ends.
struct Background::State {
    const unsigned forks = pg::forks();
    std::mutex mutex;
    std::deque<Waiting> waiting;
    std::vector<std::string> running;  // what they are about; has room for all
    std::size_t threads = 0;

    State() { running.reserve(most_threads); }

    std::deque<Waiting>::iterator next() {
        return std::find_if(waiting.begin(), waiting.end(), [this](const Waiting& one) {
            return static_cast<std::size_t>(std::count(running.begin(), running.end(), one.about)) <
                   most_alike;
        });
    }
};

Background::State& Background::state() {
    State* seen = state_.load();
    while (seen == nullptr || seen->forks != forks()) {
        // In a child the parent's lock may be held for ever, by a thread that is not there.
        auto fresh = std::make_unique<State>();
        if (state_.compare_exchange_strong(seen, fresh.get())) {
            seen = fresh.release();
        }
    }
    return *seen;
}

bool Background::run(std::string about, std::function<void()> job) noexcept {
    try {
        State& own = state();
        const std::lock_guard lock(own.mutex);
        const auto alike = std::count_if(own.waiting.begin(), own.waiting.end(),
                                         [&](const Waiting& one) { return one.about == about; });
        if (static_cast<std::size_t>(alike) >= most_waiting) {
            return false;
        }
        own.waiting.push_back(Waiting{std::move(about), std::move(job)});
        // A job that must wait for one alike is taken on by the thread that runs that one.
        if (own.threads < most_threads && own.next() != own.waiting.end()) {
            try {
                start_thread([&own] { work(own); });
                ++own.threads;
            } catch (...) {
                if (own.threads == 0) {
                    own.waiting.pop_back();
                    return false;
                }
            }
        }
        return true;
    } catch (...) {
        return false;  // out of memory
    }
}

void Background::work(State& state) noexcept {
    std::unique_lock lock(state.mutex);
    for (auto next = state.next(); next != state.waiting.end(); next = state.next()) {
        std::function<void()> job = std::move(next->job);
        const std::string about = std::move(next->about);
        state.running.push_back(about);
        state.waiting.erase(next);
        lock.unlock();
        job();
        job = nullptr;
        lock.lock();
        state.running.erase(std::find(state.running.begin(), state.running.end(), about));
    }
    --state.threads;
}

}  // namespace psycache::detail::pg
