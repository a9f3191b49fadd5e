#include "batching/locked_keys.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace psycache;

namespace {

const TimePoint start{std::chrono::hours(1)};

std::shared_ptr<Call> call(CallKind kind, const std::string& key) {
    return std::make_shared<Call>(kind, key, TimePoint());
}

std::shared_ptr<Call> settled_call(const std::string& key) {
    auto gone = call(CallKind::put, key);
    gone->settle(cancelled_failure());
    return gone;
}

}  // namespace

TEST_CASE("calls of a locked key are tried together, as far as they are of one kind", "[locked]") {
    LockedKeys locked;
    CHECK(locked.empty());
    const auto first = call(CallKind::put, "a");
    const auto second = call(CallKind::put, "a");
    const auto third = call(CallKind::remove, "a");
    const auto last = call(CallKind::put, "a");
    for (const auto& one : {first, second, third, last}) {
        locked.add(one, start);
    }
    CHECK(locked.size() == 4);
    CHECK(locked.holds("a"));
    CHECK_FALSE(locked.holds("b"));
    CHECK(locked.take_due() == Calls{first, second});
    CHECK(locked.holds("a"));
    CHECK(locked.size() == 2);
    CHECK(locked.freed("a") == Calls{third, last});
    CHECK(locked.empty());
    CHECK(locked.size() == 0);
}

TEST_CASE("a key that is still locked comes again after a longer pause, in the old order",
          "[locked]") {
    LockedKeys locked;
    const auto first = call(CallKind::put, "a");
    const auto second = call(CallKind::put, "a");
    locked.add(first, start);
    TimePoint now = locked.due();
    CHECK(now == start + LockedKeys::shortest_pause);
    auto pause = LockedKeys::shortest_pause;
    for (int i = 0; i < 8; ++i) {
        const Calls tried = locked.take_due();
        if (i == 0) {
            locked.add(second, now);
        }
        locked.still_locked(tried, now);
        pause = std::min(2 * pause, LockedKeys::longest_pause);
        CHECK(locked.due() == now + pause);
        now = locked.due();
    }
    CHECK(locked.take_due() == Calls{first, second});
}

TEST_CASE("locked keys take turns", "[locked]") {
    LockedKeys locked;
    locked.add(call(CallKind::put, "a"), start);
    locked.add(call(CallKind::put, "b"), start + std::chrono::milliseconds(1));
    const Calls a = locked.take_due();
    CHECK(a.front()->key == "a");
    locked.still_locked(a, start + LockedKeys::shortest_pause);
    CHECK(locked.take_due().front()->key == "b");
}

TEST_CASE("what nobody waits for is not tried, and its key is forgotten", "[locked]") {
    LockedKeys locked;
    locked.add(settled_call("a"), start);
    locked.add(settled_call("a"), start);
    CHECK(locked.take_due().empty());
    CHECK(locked.empty());
    CHECK(locked.size() == 0);
    CHECK(locked.take_due().empty());
}

TEST_CASE("all calls of locked keys can be taken out at once", "[locked]") {
    LockedKeys locked;
    locked.add(call(CallKind::put, "a"), start);
    locked.add(call(CallKind::remove, "b"), start);
    locked.add(call(CallKind::put, "b"), start);
    CHECK(locked.take_all().size() == 3);
    CHECK(locked.empty());
    CHECK(locked.size() == 0);
}
