#include "batching/call_queue.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace psycache;

namespace {

constexpr GroupLimits small_limits() {
    GroupLimits limits;
    limits.calls = 4;
    limits.bytes = 100;
    limits.alone = 50;
    return limits;
}

std::shared_ptr<Call> call(CallKind kind, const std::string& key, TimePoint until = {}) {
    return std::make_shared<Call>(kind, key, until);
}

std::string keys_of(const Calls& group) {
    std::string keys;
    for (const auto& one : group) {
        keys += one->key.substr(0, 1);
    }
    return keys;
}

TimePoint at(int seconds) {
    return TimePoint(std::chrono::seconds(seconds));
}

}  // namespace

TEST_CASE("calls of one kind form a group in the order in which they came", "[queue]") {
    CallQueue queue(small_limits(), 100);
    for (const char* key : {"a", "b", "c"}) {
        REQUIRE(queue.push(call(CallKind::get, key)));
    }
    CHECK(keys_of(queue.next_group()) == "abc");
    CHECK(queue.next_group().empty());
    CHECK(queue.empty());
}

TEST_CASE("whoever has waited longest decides the kind of the next group", "[queue]") {
    CallQueue queue(small_limits(), 100);
    queue.push(call(CallKind::put, "p"));
    queue.push(call(CallKind::get, "a"));
    queue.push(call(CallKind::remove, "r"));
    queue.push(call(CallKind::put, "q"));
    queue.push(call(CallKind::get, "b"));
    CHECK(keys_of(queue.next_group()) == "pq");
    CHECK(keys_of(queue.next_group()) == "ab");
    CHECK(keys_of(queue.next_group()) == "r");
}

TEST_CASE("a group is bounded in calls and in bytes", "[queue]") {
    CallQueue queue(small_limits(), 100);
    for (const char* key : {"a", "b", "c", "d", "e"}) {
        queue.push(call(CallKind::get, key));
    }
    CHECK(keys_of(queue.next_group()) == "abcd");
    CHECK(keys_of(queue.next_group()) == "e");
    for (const char* first : {"f", "g", "h"}) {
        queue.push(call(CallKind::put, first + std::string(39, '.')));
    }
    CHECK(keys_of(queue.next_group()) == "fg");
    CHECK(keys_of(queue.next_group()) == "h");
}

TEST_CASE("a large call shares with nobody", "[queue]") {
    CallQueue queue(small_limits(), 100);
    queue.push(call(CallKind::put, "a"));
    queue.push(call(CallKind::put, "B" + std::string(60, '.')));
    queue.push(call(CallKind::put, "c"));
    CHECK(keys_of(queue.next_group()) == "a");
    CHECK(keys_of(queue.next_group()) == "B");
    CHECK(keys_of(queue.next_group()) == "c");
}

TEST_CASE("a full queue refuses, and takes calls again once there is room", "[queue]") {
    CallQueue queue(small_limits(), 2);
    CHECK(queue.push(call(CallKind::get, "a")));
    CHECK(queue.push(call(CallKind::put, "b")));
    CHECK_FALSE(queue.push(call(CallKind::get, "c")));
    CHECK(queue.size() == 2);
    queue.next_group();
    CHECK(queue.push(call(CallKind::get, "c")));
}

TEST_CASE("everything can be taken out at once", "[queue]") {
    CallQueue queue(small_limits(), 10);
    queue.push(call(CallKind::get, "a"));
    queue.push(call(CallKind::remove, "b"));
    CHECK(queue.take_all().size() == 2);
    CHECK(queue.empty());
}

TEST_CASE("deadlines are kept in order, whatever the order of arrival", "[queue]") {
    const auto a = call(CallKind::get, "a", at(3));
    const auto b = call(CallKind::get, "b", at(1));
    const auto c = call(CallKind::get, "c", at(2));
    const auto d = call(CallKind::get, "d", at(2));
    DeadlineList list;
    for (const auto& one : {a, b, c, d}) {
        list.insert(*one);
    }
    std::string order;
    list.remove(*c);
    list.remove(*c);  // a second time does nothing
    while (!list.empty()) {
        order += list.first()->key;
        list.remove(*list.first());
    }
    CHECK(order == "bda");
    list.insert(*a);
    CHECK(list.first() == a.get());
    list.remove(*a);
    CHECK(list.empty());
}
