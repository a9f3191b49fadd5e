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
    CHECK(keys_of(queue.next_group(Take::all)) == "abc");
    CHECK(queue.next_group(Take::all).empty());
    CHECK(queue.empty());
}

TEST_CASE("whoever has waited longest decides the kind of the next group", "[queue]") {
    CallQueue queue(small_limits(), 100);
    queue.push(call(CallKind::put, "p"));
    queue.push(call(CallKind::get, "a"));
    queue.push(call(CallKind::remove, "r"));
    queue.push(call(CallKind::put, "q"));
    queue.push(call(CallKind::get, "b"));
    CHECK(keys_of(queue.next_group(Take::all)) == "pq");
    CHECK(keys_of(queue.next_group(Take::all)) == "ab");
    CHECK(keys_of(queue.next_group(Take::all)) == "r");
}

TEST_CASE("a group is bounded in calls and in bytes", "[queue]") {
    CallQueue queue(small_limits(), 100);
    for (const char* key : {"a", "b", "c", "d", "e"}) {
        queue.push(call(CallKind::get, key));
    }
    CHECK(keys_of(queue.next_group(Take::all)) == "abcd");
    CHECK(keys_of(queue.next_group(Take::all)) == "e");
    for (const char* first : {"f", "g", "h"}) {
        queue.push(call(CallKind::put, first + std::string(39, '.')));
    }
    CHECK(keys_of(queue.next_group(Take::all)) == "fg");
    CHECK(keys_of(queue.next_group(Take::all)) == "h");
}

TEST_CASE("a large call shares with nobody", "[queue]") {
    CallQueue queue(small_limits(), 100);
    queue.push(call(CallKind::put, "a"));
    queue.push(call(CallKind::put, "B" + std::string(60, '.')));
    queue.push(call(CallKind::put, "c"));
    CHECK(keys_of(queue.next_group(Take::all)) == "a");
    CHECK(keys_of(queue.next_group(Take::all)) == "B");
    CHECK(keys_of(queue.next_group(Take::all)) == "c");
}

TEST_CASE("a full queue refuses, and takes calls again once there is room", "[queue]") {
    CallQueue queue(small_limits(), 2);
    CHECK(queue.push(call(CallKind::get, "a")));
    CHECK(queue.push(call(CallKind::put, "b")));
    CHECK_FALSE(queue.push(call(CallKind::get, "c")));
    CHECK(queue.size() == 2);
    queue.next_group(Take::all);
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

TEST_CASE("different callers share smaller groups than one caller may fill", "[queue]") {
    GroupLimits limits;
    limits.calls = 6;
    limits.shared = 3;
    struct Owner final : CallOwner {
        void call_done() override {}
    };
    const auto push = [](CallQueue& queue, const std::string& keys,
                         const std::shared_ptr<CallOwner>& owner) {
        for (const char key : keys) {
            auto one = call(CallKind::get, std::string(1, key));
            one->owner = owner;
            one->together = owner.get();
            queue.push(std::move(one));
        }
    };
    CallQueue queue(limits, 100);
    push(queue, "abcd", nullptr);
    CHECK(keys_of(queue.next_group(Take::most)) == "abc");
    push(queue, "ABCDEFGH", std::make_shared<Owner>());
    CHECK(keys_of(queue.next_group(Take::most)) == "dABCDE");
    CHECK(keys_of(queue.next_group(Take::most)) == "FGH");
    push(queue, "AB", std::make_shared<Owner>());
    push(queue, "CDEF", std::make_shared<Owner>());
    CHECK(keys_of(queue.next_group(Take::most)) == "ABCDEF");
}

TEST_CASE("half of many is left to another worker", "[queue]") {
    struct Row {
        CallKind kind;
        std::size_t waiting;
        Take take;
        std::size_t taken;
    };
    const auto row = GENERATE(values<Row>({
        {CallKind::get, 1, Take::half, 1},
        {CallKind::get, 31, Take::half, 31},
        {CallKind::get, 32, Take::half, 16},
        {CallKind::get, 33, Take::half, 17},
        {CallKind::get, 33, Take::most, 33},
        {CallKind::get, 127, Take::half, 64},
        {CallKind::get, 200, Take::half, 64},
        {CallKind::get, 200, Take::most, 64},
        {CallKind::get, 200, Take::all, 128},
        {CallKind::put, 15, Take::half, 15},
        {CallKind::put, 16, Take::half, 8},
        {CallKind::remove, 17, Take::half, 9},
    }));
    CAPTURE(static_cast<int>(row.kind), row.waiting, static_cast<int>(row.take));
    CallQueue queue(GroupLimits(), 1000);
    for (std::size_t i = 0; i < row.waiting; ++i) {
        queue.push(call(row.kind, std::to_string(i)));
    }
    CHECK(queue.next_group(row.take).size() == row.taken);
}
