#include "pool/attempts.hpp"

#include <catch2/catch.hpp>

using namespace psycache;
using namespace psycache::detail;
using namespace std::chrono_literals;

TEST_CASE("a server that has refused is asked again after a pause", "[attempts]") {
    Attempts attempts(1);
    CHECK(attempts.failure() == nullptr);
    CHECK(attempts.next() <= Attempts::Clock::now());
    const auto began = Attempts::Clock::now();
    attempts.failed(began, Failure(Errc::connect_failed, "why"));
    REQUIRE(attempts.failure() != nullptr);
    CHECK(attempts.failure()->cause == "why");
    CHECK(attempts.next() >= began + 25ms);
    CHECK_FALSE(attempts.hopeless());
    attempts.succeeded();
    CHECK(attempts.failure() == nullptr);
}

TEST_CASE("attempts that failed side by side make one pause", "[attempts]") {
    Attempts attempts(1);
    const auto began = Attempts::Clock::now();
    attempts.failed(began, Failure(Errc::connect_failed, "first"));
    const auto next = attempts.next();
    for (int i = 0; i < 20; ++i) {
        attempts.failed(began, Failure(Errc::connect_failed, "last"));
    }
    CHECK(attempts.next() == next);
    CHECK(attempts.failure()->cause == "last");
    attempts.failed(Attempts::Clock::now(), Failure(Errc::connect_failed));
    CHECK(attempts.next() != next);
}

TEST_CASE("what somebody has to mend first is hopeless until the pause is over", "[attempts]") {
    for (const bool password : {false, true}) {
        Attempts attempts(1);
        Failure failure(password ? Errc::authentication_failed : Errc::connect_failed);
        failure.sqlstate = password ? "28P01" : "3D000";
        attempts.failed(Attempts::Clock::now(), failure);
        CHECK(attempts.hopeless());
        while (Attempts::Clock::now() < attempts.next()) {
            CHECK(attempts.next() - Attempts::Clock::now() <= 50ms);
        }
        CHECK_FALSE(attempts.hopeless());
        attempts.failed(Attempts::Clock::now(), Failure(Errc::connect_failed));
        CHECK_FALSE(attempts.hopeless());
    }
}
