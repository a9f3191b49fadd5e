// Writes of one key go one after the other.

#include "batching/write_order.hpp"

#include <catch2/catch.hpp>

#include "unit/calls.hpp"

using namespace psycache;
using namespace psycache::detail;
using namespace psycache::test;

namespace {

Calls freed_by(WriteOrder& order, Call& ended) {
    Calls freed;
    order.end(ended, freed);
    return freed;
}

}  // namespace

TEST_CASE("a write waits for the one of its key that is on its way, and for no other",
          "[write_order]") {
    WriteOrder order;
    const auto first = call(storing, "a");
    const auto second = call(removing, "a");
    const auto third = call(storing, "a");
    CHECK_FALSE(order.add_behind(first));
    order.begin(*first);
    CHECK(order.holds("a"));
    CHECK_FALSE(order.holds("b"));
    CHECK_FALSE(order.add_behind(call(storing, "b")));
    CHECK(order.add_behind(second));
    CHECK(order.add_behind(third));
    CHECK(order.size() == 2);
    CHECK(freed_by(order, *first) == Calls{second, third});
    CHECK(order.size() == 0);
}

TEST_CASE("writes of one key in one statement end together", "[write_order]") {
    WriteOrder order;
    const auto first = call(storing, "a");
    const auto second = call(storing, "a");
    const auto behind = call(storing, "a");
    order.begin(*first);
    order.begin(*second);
    REQUIRE(order.add_behind(behind));
    CHECK(freed_by(order, *first).empty());
    CHECK(freed_by(order, *first).empty());  // it has ended already
    CHECK(order.holds("a"));
    CHECK(freed_by(order, *second) == Calls{behind});
}

TEST_CASE("a write whose caller has left is waited for as well", "[write_order]") {
    WriteOrder order;
    const auto left = settled_call("a");
    order.begin(*left);
    const auto next = call(storing, "a");
    CHECK(order.add_behind(next));
    CHECK(freed_by(order, *left) == Calls{next});
}

TEST_CASE("what did not begin does not end", "[write_order]") {
    WriteOrder order;
    const auto first = call(storing, "a");
    order.begin(*first);
    CHECK(freed_by(order, *call(storing, "a")).empty());
    CHECK(order.holds("a"));
}
