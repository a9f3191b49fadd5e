#include "pool/backoff.hpp"

#include <catch2/catch.hpp>

using namespace psycache;
using namespace std::chrono_literals;

TEST_CASE("the pause between attempts grows, is bounded, and ends with success", "[backoff]") {
    const auto now = Backoff::Clock::now();
    for (unsigned seed = 1; seed < 50; ++seed) {
        Backoff backoff(seed);
        CHECK(backoff.next_attempt() <= now);
        auto whole = std::chrono::milliseconds(50);
        for (int attempt = 0; attempt < 40; ++attempt) {
            backoff.failed(now);
            const auto pause = backoff.next_attempt() - now;
            CHECK(pause >= whole / 2);
            CHECK(pause <= whole);
            whole = std::min<std::chrono::milliseconds>(whole * 2, 1000ms);
        }
        backoff.succeeded();
        backoff.failed(now);
        CHECK(backoff.next_attempt() - now <= 50ms);
    }
}

TEST_CASE("two processes do not come back at the same moment", "[backoff]") {
    const auto now = Backoff::Clock::now();
    Backoff one(1);
    Backoff other(2);
    int equal = 0;
    for (int attempt = 0; attempt < 20; ++attempt) {
        one.failed(now);
        other.failed(now);
        equal += one.next_attempt() == other.next_attempt() ? 1 : 0;
    }
    CHECK(equal < 10);
}
