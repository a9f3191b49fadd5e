#include "batching/deadlines.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "unit/calls.hpp"

using namespace psycache;
using namespace psycache::detail;
using namespace psycache::test;

namespace {

TimePoint at(int seconds) {
    return TimePoint(std::chrono::seconds(seconds));
}

}  // namespace

TEST_CASE("deadlines are kept in order, whatever the order of arrival", "[deadlines]") {
    const auto a = call(reading, "a", at(3));
    const auto b = call(reading, "b", at(1));
    const auto c = call(reading, "c", at(2));
    const auto d = call(reading, "d", at(2));
    Deadlines deadlines;
    CHECK(deadlines.next() == TimePoint::max());
    for (const auto& one : {a, b, c, d}) {
        deadlines.add(*one);
    }
    CHECK(deadlines.next() == at(1));
    deadlines.remove(*c);
    deadlines.remove(*c);  // a second time does nothing
    CHECK(deadlines.expired_calls(at(0)).empty());
    CHECK(keys_of(deadlines.expired_calls(at(2))) == "bd");
    CHECK(deadlines.next() == at(3));
    CHECK(keys_of(deadlines.expired_calls(at(9))) == "a");
    CHECK(deadlines.next() == TimePoint::max());
    deadlines.add(*a);
    CHECK(deadlines.next() == at(3));
    deadlines.remove(*a);
}

TEST_CASE("equal deadlines come in the order in which they were added", "[deadlines]") {
    Deadlines deadlines;
    Calls calls;
    for (const char* key : {"a", "b", "c"}) {
        calls.push_back(call(reading, key, at(1)));
        deadlines.add(*calls.back());
    }
    CHECK(keys_of(deadlines.expired_calls(at(1))) == "abc");
}

TEST_CASE("a hundred thousand calls with an early deadline find their places soon", "[deadlines]") {
    // Those of one large call come in slices, after later ones of others.
    Deadlines deadlines;
    Calls calls;
    for (int i = 0; i < 100000; ++i) {
        calls.push_back(call(reading, "late", at(100 + i % 7)));
        calls.push_back(call(reading, "early", at(1)));
    }
    for (const auto& one : calls) {
        deadlines.add(*one);
    }
    CHECK(deadlines.expired_calls(at(1)).size() == 100000);
    CHECK(deadlines.expired_calls(at(200)).size() == 100000);
}
