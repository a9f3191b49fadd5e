// What goes to standard error without a log: every line, but none so often that it floods.

#include "core/standard_error.hpp"

#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using namespace psycache;
using namespace psycache::detail;
using namespace std::chrono_literals;

namespace {

const LineLimiter::TimePoint first_line_at{1000h};

}  // namespace

TEST_CASE("a line passes once a minute") {
    LineLimiter limiter;
    CHECK(limiter.admit("a", first_line_at));
    CHECK_FALSE(limiter.admit("a", first_line_at));
    CHECK(limiter.admit("b", first_line_at + 1s));
    CHECK_FALSE(limiter.admit("a", first_line_at + 59s));
    CHECK(limiter.admit("a", first_line_at + 60s));
    CHECK_FALSE(limiter.admit("a", first_line_at + 119s));
    CHECK_FALSE(limiter.admit("b", first_line_at + 60s));
    CHECK(limiter.admit("b", first_line_at + 61s));
    CHECK(limiter.admit("", first_line_at));
    CHECK_FALSE(limiter.admit("", first_line_at));
}

TEST_CASE("no more than so many different lines pass in a minute") {
    LineLimiter limiter;
    std::size_t passed = 0;
    for (int i = 0; i < 1000; ++i) {
        passed += limiter.admit(std::to_string(i), first_line_at + i * 1ms) ? 1 : 0;
    }
    CHECK(passed == LineLimiter::most_lines);
    for (int i = 0; i < 1000; ++i) {
        passed += limiter.admit(std::to_string(i), first_line_at + 61s) ? 1 : 0;
    }
    CHECK(passed == 2 * LineLimiter::most_lines);
}

TEST_CASE("of threads that say the same at once one is let pass") {
    LineLimiter limiter;
    std::atomic<int> passed = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&] {
            for (int n = 0; n < 1000; ++n) {
                passed += limiter.admit("a", first_line_at + n * 1ms) ? 1 : 0;
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK(passed == 1);
}
