// Which of two servers of a cluster is the old one.

#include "pg/timelines.hpp"

#include <catch2/catch.hpp>

using psycache::detail::pg::Origin;
using psycache::detail::pg::read_origin;
using psycache::detail::pg::Timelines;

TEST_CASE("the timeline is read from the name of a file of the log", "[timelines]") {
    struct Case {
        const char* wal_file;
        std::uint32_t timeline;
    };
    const auto [wal_file, timeline] =
        GENERATE(Case{"000000010000000000000003", 1}, Case{"0000001A0000000100000003", 26},
                 Case{"FFFFFFFF0000000000000003", 4294967295u}, Case{"", 0}, Case{"00000001", 0},
                 Case{"0000000x0000000000000003", 0}, Case{"0000000100000000000000031", 0});
    CAPTURE(wal_file);
    CHECK(read_origin("7123456789012345678", wal_file).timeline == timeline);
    CHECK(read_origin("7123456789012345678", wal_file).system == 7123456789012345678);
    CHECK(read_origin("-5", wal_file).system == -5);
    CHECK(read_origin("", wal_file).system == 0);
}

TEST_CASE("what is behind a timeline that was seen is not admitted", "[timelines]") {
    struct Step {
        Origin origin;
        bool admitted;
    };
    const Step steps[] = {
        {{7, 1}, true},
        {{7, 1}, true},
        {{7, 3}, true},
        {{7, 2}, false},
        {{7, 1}, false},
        {{7, 3}, true},
        // Of a standby and of who does not say nothing is known.
        {{7, 0}, true},
        {{0, 1}, true},
        {{0, 0}, true},
        // Another cluster has a count of its own.
        {{8, 1}, true},
        {{8, 2}, true},
        {{8, 1}, false},
        {{7, 3}, true},
    };
    Timelines timelines;
    int number = 0;
    for (const Step& step : steps) {
        CAPTURE(number++);
        CHECK(timelines.admit(step.origin) == step.admitted);
        CHECK(timelines.is_behind(step.origin) == !step.admitted);
    }
    CHECK(timelines.newest(7) == 3);
    CHECK(timelines.newest(8) == 2);
    CHECK(timelines.newest(9) == 0);
}
