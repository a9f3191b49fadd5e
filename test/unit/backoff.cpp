#include "core/backoff.hpp"

#include <catch2/catch.hpp>

using namespace psycache;
using namespace psycache::detail;
using namespace std::chrono_literals;

TEST_CASE("the pause between attempts grows, is bounded, and ends with success", "[backoff]") {
    const auto now = Backoff::Clock::now();
    for (unsigned seed = 1; seed < 50; ++seed) {
        Backoff backoff(seed, 50ms);
        CHECK(backoff.next_attempt() <= now);
        auto whole = std::chrono::milliseconds(50);
        for (int attempt = 0; attempt < 40; ++attempt) {
            backoff.failed(now, 1000ms);
            const auto pause = backoff.next_attempt() - now;
            CHECK(pause >= whole / 2);
            CHECK(pause <= whole);
            whole = std::min<std::chrono::milliseconds>(whole * 2, 1000ms);
        }
        backoff.succeeded();
        backoff.failed(now, 1000ms);
        CHECK(backoff.next_attempt() - now <= 50ms);
    }
}

TEST_CASE("two processes do not come back at the same moment", "[backoff]") {
    const auto now = Backoff::Clock::now();
    Backoff one(1, 50ms);
    Backoff other(2, 50ms);
    int equal = 0;
    for (int attempt = 0; attempt < 20; ++attempt) {
        one.failed(now, 1000ms);
        other.failed(now, 1000ms);
        equal += one.next_attempt() == other.next_attempt() ? 1 : 0;
    }
    CHECK(equal < 10);
}
