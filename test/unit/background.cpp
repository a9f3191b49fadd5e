// Threads for what blocks: how many there are, what each does, and that all of them end.

#include "pg/background.hpp"

#include <atomic>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "support/run_coro.hpp"
#include "support/server.hpp"

using namespace psycache::test;
using psycache::detail::pg::Background;

namespace {

/// Jobs that hang until they are let go.
class Hanging {
  public:
    std::function<void()> job() {
        return [this] {
            std::unique_lock lock(mutex_);
            most_ = std::max(most_, ++running_);
            changed_.wait(lock, [this] { return free_; });
            --running_;
            ++done_;
        };
    }
    void let_go() {
        const std::lock_guard lock(mutex_);
        free_ = true;
        changed_.notify_all();
    }
    std::size_t running() const {
        const std::lock_guard lock(mutex_);
        return running_;
    }
    std::size_t most() const {
        const std::lock_guard lock(mutex_);
        return most_;
    }
    std::size_t done() const {
        const std::lock_guard lock(mutex_);
        return done_;
    }

  private:
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    bool free_ = false;
    std::size_t running_ = 0;
    std::size_t most_ = 0;
    std::size_t done_ = 0;
};

}  // namespace

TEST_CASE("what hangs leaves threads for what is about another thing", "[background]") {
    static constinit Background background;
    // ThreadSanitizer has a thread of its own from the first one on.
    std::thread([] {}).join();
    const auto threads = thread_names().size();
    Hanging hanging;
    std::size_t taken = 0;
    for (int i = 0; i < 5; ++i) {
        taken += background.run("one", hanging.job()) ? 1 : 0;
    }
    CHECK(taken == 5);
    CHECK(eventually([&] { return hanging.running() == Background::most_alike; }));
    std::atomic<bool> other{false};
    CHECK(background.run("other", [&] { other = true; }));
    CHECK(eventually([&] { return other.load(); }));
    CHECK(hanging.most() == Background::most_alike);
    hanging.let_go();
    CHECK(eventually([&] { return hanging.done() == 5; }));
    CHECK(eventually([&] { return thread_names().size() == threads; }));
}

TEST_CASE("threads and what waits for them have a limit", "[background]") {
    static constinit Background background;
    Hanging hanging;
    std::size_t taken = 0;
    for (int i = 0; i < 100; ++i) {
        taken += background.run("one", hanging.job()) ? 1 : 0;
        if (i == 1) {
            // Those that have a thread wait no longer.
            CHECK(eventually([&] { return hanging.running() == Background::most_alike; }));
        }
    }
    CHECK(taken == Background::most_alike + Background::most_waiting);
    for (int i = 0; i < 20; ++i) {
        taken += background.run(std::to_string(i), hanging.job()) ? 1 : 0;
    }
    CHECK(eventually([&] { return hanging.running() == Background::most_threads; }));
    hanging.let_go();
    CHECK(eventually([&] { return hanging.done() == taken; }));
    CHECK(hanging.most() == Background::most_threads);
    // And then there is room again.
    std::atomic<bool> again{false};
    CHECK(background.run("one", [&] { again = true; }));
    CHECK(eventually([&] { return again.load(); }));
}

TEST_CASE("a job that is refused or has run is destroyed", "[background]") {
    static constinit Background background;
    const auto held = std::make_shared<int>(0);
    for (int i = 0; i < 10; ++i) {
        CHECK(background.run("", [held] {}));
    }
    CHECK(eventually([&] { return held.use_count() == 1; }));
}
