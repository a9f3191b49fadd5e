// How many entries have to go where a table is to be no larger than so much.

#include <catch2/catch.hpp>
#include <vector>

#include "operations/evict.hpp"

using namespace psycache::detail;

TEST_CASE("What is too much for a table is found by either limit") {
    struct Row {
        TableLimits limits;
        TableEstimate estimate;
        std::uint64_t excess;
    };
    const auto none = std::nullopt;
    for (const Row& row : std::vector<Row>{
             {{none, none}, {1000, 100}, 0},
             {{1000, none}, {0, 0}, 0},
             {{1000, none}, {1000, 0}, 0},
             {{1000, none}, {1001, 0}, 1},
             {{1, none}, {1000, 0}, 999},
             {{none, 1000}, {10, 100}, 0},
             {{none, 1000}, {11, 100}, 1},
             {{none, 1099}, {11, 100}, 1},
             {{none, 50}, {11, 100}, 11},
             // Nothing is known of a size where the sample was empty.
             {{none, 1000}, {11, 0}, 0},
             {{5, 1000}, {11, 100}, 6},
             {{11, 300}, {11, 100}, 8},
             {{5, 1000}, {11, 0}, 6},
         }) {
        CAPTURE(row.estimate.entries, row.estimate.entry_bytes, row.excess);
        CHECK(excess(row.limits, row.estimate) == row.excess);
    }
}

TEST_CASE("What goes at once leaves something, should another one delete as much") {
    struct Row {
        std::uint64_t entries;
        std::uint64_t excess;
        std::uint64_t batch;
    };
    for (const Row& row : std::vector<Row>{
             {1001, 1, 1},
             {100, 10, 10},
             {100, 60, 30},
             {1100, 100, 100},
             {1200, 200, 100},
             {2000, 1000, 500},
             {50'000, 49'000, 1000},
             {1'000'000, 500, 500},
             {1'000'000, 5000, 1000},
             {5, 5, 5},
         }) {
        CAPTURE(row.entries, row.excess);
        CHECK(first_batch({row.entries, 0}, row.excess) == row.batch);
    }
}
