#include "pool/attempts.hpp"

#include <catch2/catch.hpp>

#include "unit/calls.hpp"

using namespace psycache;
using namespace psycache::detail;
using namespace psycache::test;
using namespace std::chrono_literals;

TEST_CASE("a server that has refused is asked again after a pause", "[attempts]") {
    Attempts attempts(1);
    CHECK(attempts.failure() == nullptr);
    CHECK(attempts.next() <= the_start);
    attempts.failed(the_start, psycache::detail::Failure(Errc::connect_failed, "why"),
                    the_start + 1ms);
    REQUIRE(attempts.failure() != nullptr);
    CHECK(attempts.failure()->cause == "why");
    CHECK(attempts.next() >= the_start + 1ms + 25ms);
    CHECK_FALSE(attempts.waiting_is_in_vain(the_start + 1ms));
    attempts.succeeded();
    CHECK(attempts.failure() == nullptr);
}

TEST_CASE("attempts that failed side by side make one pause", "[attempts]") {
    Attempts attempts(1);
    attempts.failed(the_start, psycache::detail::Failure(Errc::connect_failed, "first"),
                    the_start + 10ms);
    const auto next = attempts.next();
    for (int i = 0; i < 20; ++i) {
        attempts.failed(the_start, psycache::detail::Failure(Errc::connect_failed, "last"),
                        the_start + 11ms);
    }
    CHECK(attempts.next() == next);
    CHECK(attempts.failure()->cause == "last");
    attempts.failed(the_start + 12ms, psycache::detail::Failure(Errc::connect_failed),
                    the_start + 13ms);
    CHECK(attempts.next() != next);
}

TEST_CASE("waiting for a server is in vain while its set-up is wrong, until the pause is over",
          "[attempts]") {
    for (const bool password : {false, true}) {
        Attempts attempts(1);
        psycache::detail::Failure failure(password ? Errc::authentication_failed
                                                   : Errc::connect_failed);
        failure.sqlstate = password ? "28P01" : "3D000";
        attempts.failed(the_start, failure, the_start);
        CHECK(attempts.waiting_is_in_vain(the_start));
        CHECK(attempts.next() - the_start <= 50ms);
        CHECK(attempts.waiting_is_in_vain(attempts.next() - 1us));
        CHECK_FALSE(attempts.waiting_is_in_vain(attempts.next()));
        attempts.failed(the_start + 1s, psycache::detail::Failure(Errc::connect_failed),
                        the_start + 1s);
        CHECK_FALSE(attempts.waiting_is_in_vain(the_start + 1s));
    }
}
