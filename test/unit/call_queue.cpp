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
    CHECK(keys_of(queue.next_group(take_all)) == "abc");
    CHECK(queue.next_group(take_all).empty());
    CHECK(queue.empty());
}

TEST_CASE("whoever has waited longest decides the kind of the next group", "[queue]") {
    CallQueue queue(small_limits(), 100);
    queue.push(call(CallKind::put, "p"));
    queue.push(call(CallKind::get, "a"));
    queue.push(call(CallKind::remove, "r"));
    queue.push(call(CallKind::put, "q"));
    queue.push(call(CallKind::get, "b"));
    CHECK(keys_of(queue.next_group(take_all)) == "pq");
    CHECK(keys_of(queue.next_group(take_all)) == "ab");
    CHECK(keys_of(queue.next_group(take_all)) == "r");
}

TEST_CASE("a group is bounded in calls and in bytes", "[queue]") {
    CallQueue queue(small_limits(), 100);
    for (const char* key : {"a", "b", "c", "d", "e"}) {
        queue.push(call(CallKind::get, key));
    }
    CHECK(keys_of(queue.next_group(take_all)) == "abcd");
    CHECK(keys_of(queue.next_group(take_all)) == "e");
    for (const char* first : {"f", "g", "h"}) {
        queue.push(call(CallKind::put, first + std::string(39, '.')));
    }
    CHECK(keys_of(queue.next_group(take_all)) == "fg");
    CHECK(keys_of(queue.next_group(take_all)) == "h");
}

TEST_CASE("a large call shares with nobody", "[queue]") {
    CallQueue queue(small_limits(), 100);
    queue.push(call(CallKind::put, "a"));
    queue.push(call(CallKind::put, "B" + std::string(60, '.')));
    queue.push(call(CallKind::put, "c"));
    CHECK(keys_of(queue.next_group(take_all)) == "a");
    CHECK(keys_of(queue.next_group(take_all)) == "B");
    CHECK(keys_of(queue.next_group(take_all)) == "c");
}

TEST_CASE("a full queue refuses, and takes calls again once there is room", "[queue]") {
    CallQueue queue(small_limits(), 2);
    CHECK(queue.push(call(CallKind::get, "a")));
    CHECK(queue.push(call(CallKind::put, "b")));
    CHECK_FALSE(queue.push(call(CallKind::get, "c")));
    CHECK(queue.size() == 2);
    queue.next_group(take_all);
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
    CHECK(keys_of(queue.next_group(Take())) == "abc");
    push(queue, "ABCDEFGH", std::make_shared<Owner>());
    CHECK(keys_of(queue.next_group(Take())) == "dABCDE");
    CHECK(keys_of(queue.next_group(Take())) == "FGH");
    push(queue, "AB", std::make_shared<Owner>());
    push(queue, "CDEF", std::make_shared<Owner>());
    CHECK(keys_of(queue.next_group(Take())) == "ABCDEF");
}

TEST_CASE("a group leaves their share to other workers", "[queue]") {
    struct Row {
        std::size_t waiting;
        Take take;
        std::size_t taken;
    };
    const auto row = GENERATE(values<Row>({
        {1, Take{2}, 1},
        {2, Take{2}, 1},
        {33, Take{2}, 17},
        {33, Take{3}, 11},
        {33, Take(), 33},
        {200, Take{3}, 64},
        {200, Take(), 64},
        {200, take_all, 128},
    }));
    CAPTURE(row.waiting, row.take.parts, row.take.whole);
    CallQueue queue(GroupLimits(), 1000);
    for (std::size_t i = 0; i < row.waiting; ++i) {
        queue.push(call(CallKind::put, std::to_string(i)));
    }
    CHECK(queue.next_group(row.take).size() == row.taken);
    CHECK(queue.size() == row.waiting - row.taken);
}

TEST_CASE("few calls are divided between two groups, many among three", "[queue]") {
    struct Row {
        std::size_t waiting;
        std::size_t busy;
        std::size_t parts;
        std::size_t parts_on_one_processor;
    };
    const auto row = GENERATE(values<Row>({
        {0, 0, 1, 1},
        {1, 0, 1, 1},
        {2, 0, 2, 1},
        {29, 0, 2, 1},
        {30, 0, 3, 1},
        {32, 0, 3, 2},
        {500, 0, 3, 2},
        {2, 1, 1, 1},
        {19, 1, 1, 1},
        {20, 1, 2, 1},
        {500, 1, 2, 1},
        {500, 2, 1, 1},
        {500, 7, 1, 1},
    }));
    CAPTURE(row.waiting, row.busy);
    CHECK(group_limits(8, 4).parts(row.waiting, row.busy) == row.parts);
    CHECK(group_limits(0, 4).parts(row.waiting, row.busy) == row.parts);
    CHECK(group_limits(1, 4).parts(row.waiting, row.busy) == row.parts_on_one_processor);
    // One connection is enough for two: the next group is ready when it comes back.
    CHECK(group_limits(8, 1).parts(row.waiting, row.busy) <= 2);
}

TEST_CASE("a further worker comes for enough calls", "[queue]") {
    const GroupLimits limits = group_limits(8, 4);
    CHECK_FALSE(limits.worth_another(0, 0));
    CHECK(limits.worth_another(1, 0));
    CHECK(limits.worth_another(1, 1));
    CHECK_FALSE(limits.worth_another(9, 2));
    CHECK(limits.worth_another(10, 2));
    CHECK_FALSE(limits.worth_another(63, 3));
    CHECK(limits.worth_another(64, 3));
    CHECK(limits.worth_another(64, 7));
    CHECK_FALSE(limits.worth_another(1000, 8));
    CHECK_FALSE(group_limits(1, 4).worth_another(63, 2));
    CHECK(one_at_a_time().worth_another(1, 0));
    CHECK_FALSE(one_at_a_time().worth_another(1000, 1));
    CHECK(one_at_a_time().parts(1000, 0) == 1);
}

TEST_CASE("calls that may be served are counted", "[queue]") {
    CallQueue queue(GroupLimits(), 100);
    queue.push(call(CallKind::put, "a"));
    queue.push(call(CallKind::get, "b"));
    queue.push(call(CallKind::remove, "c"));
    CHECK(queue.size() == 3);
    CHECK(queue.size(Serve::all) == 3);
    CHECK(queue.size(Serve::gets) == 1);
    CHECK(keys_of(queue.next_group(Take(), Serve::gets)) == "b");
    CHECK(queue.size(Serve::gets) == 0);
    CHECK(queue.size() == 2);
    CHECK(queue.take_all().size() == 2);
    CHECK(queue.empty());
}
