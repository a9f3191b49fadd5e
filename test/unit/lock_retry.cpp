// When locked rows are looked at or tried again, and whose calls go on.

#include "batching/lock_retry.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "unit/calls.hpp"

using namespace psycache;
using namespace psycache::detail;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

using Names = std::vector<std::string>;

/// Calls whose rows were seen to be locked.
struct LockedSite {
    std::shared_ptr<Call> add(const std::string& key, const std::string& holder = "h",
                              TimePoint when = the_start) {
        auto added = call(storing, key);
        locked.add(added, holder, limit, when);
        return added;
    }
    /// @returns what is due next, at the moment when it is.
    LockRetry::Due next() {
        now = locked.due();
        return locked.take_due(now);
    }
    static LockSight sight(const Names& keys, const std::string& holder = "h") {
        LockSight seen;
        for (const auto& key : keys) {
            seen.held.push_back({key, holder});
        }
        return seen;
    }

    LockRetry locked;
    std::optional<LockLimit> limit;
    TimePoint now = the_start;
};

}  // namespace

TEST_CASE("calls of a locked key wait in their order, whatever they do", "[locked]") {
    LockedSite site;
    CHECK(site.locked.empty());
    CHECK(site.locked.due() == TimePoint::max());
    const auto first = site.add("a");
    const auto second = call(removing, "a");
    CHECK(site.locked.add_behind(second, the_start));
    CHECK_FALSE(site.locked.add_behind(call(storing, "b"), the_start));
    CHECK(second->progress.locked);
    CHECK(site.locked.size() == 2);
    CHECK(site.locked.holds("a"));
    CHECK_FALSE(site.locked.holds("b"));
    CHECK(site.locked.due() == the_start + LockRetry::shortest_pause);
    CHECK(site.next().looks == Names{"a"});
    CHECK(site.locked.holds("a"));
    CHECK(site.locked.seen({"a"}, LockSight(), site.now) == Calls{first, second});
    CHECK(site.locked.empty());
    CHECK(site.locked.size() == 0);
}

TEST_CASE("a row that stays locked is looked at again and again, with longer pauses", "[locked]") {
    LockedSite site;
    site.add("a");
    auto pause = LockRetry::shortest_pause;
    for (int i = 0; i < 8; ++i) {
        REQUIRE(site.next().looks == Names{"a"});
        CHECK(site.locked.seen({"a"}, LockedSite::sight({"a"}), site.now).empty());
        pause = std::min(2 * pause, LockRetry::longest_pause);
        CHECK(site.locked.due() == site.now + pause);
    }
    // A freed row is noticed within 0.1 s.
    CHECK(pause <= 100ms);
}

TEST_CASE("many locked rows are looked at with few statements, and only free ones go on",
          "[locked]") {
    LockedSite site;
    for (int i = 0; i < 150; ++i) {
        site.add(std::to_string(i));
    }
    const auto first = site.next().looks;
    CHECK(first.size() == 64);
    CHECK(site.locked.take_due(site.now).looks.size() == 64);
    CHECK(site.locked.take_due(site.now).looks.size() == 22);
    CHECK(site.locked.take_due(site.now).looks.empty());
    const Names still(first.begin() + 1, first.end());
    const auto freed = site.locked.seen(first, LockedSite::sight(still), site.now);
    REQUIRE(freed.size() == 1);
    CHECK(freed.front()->key == first.front());
    CHECK(site.locked.size() == 149);
}

TEST_CASE("a row that changes hands between two looks is tried", "[locked]") {
    LockedSite site;
    const auto waiting = site.add("a", "one");
    REQUIRE(site.next().looks == Names{"a"});
    CHECK(site.locked.seen({"a"}, LockedSite::sight({"a"}, "two"), site.now).empty());
    CHECK(site.next().tries == Calls{waiting});
    // In vain: it is looked at again.
    CHECK(site.locked.tried("a", {waiting}, true, site.now).empty());
    REQUIRE(site.next().looks == Names{"a"});
    CHECK(site.locked.seen({"a"}, LockedSite::sight({"a"}, "two"), site.now).empty());
    CHECK(site.next().looks == Names{"a"});
}

TEST_CASE("rows whose lock cannot be seen are tried one at a time, and all go on with the first",
          "[locked]") {
    LockedSite site;
    for (const char* key : {"a", "b", "c"}) {
        site.add(key, "");
    }
    const auto seen_locked = site.add("d", "h");
    const auto looks = site.next().looks;
    CHECK(looks.size() == 4);
    CHECK(site.locked.seen(looks, LockedSite::sight({"d"}), site.now).empty());
    const auto first = site.next().tries;
    REQUIRE(first.size() == 1);
    // The next one comes after a pause, since each waits with a connection.
    CHECK(site.locked.tried(first.front()->key, first, true, site.now).empty());
    CHECK(site.locked.due() == site.now + LockRetry::shortest_pause);
    const auto second = site.next().tries;
    REQUIRE(second.size() == 1);
    CHECK(second.front()->key != first.front()->key);
    const auto freed = site.locked.tried(second.front()->key, second, false, site.now);
    CHECK(freed.size() == 2);
    CHECK(site.locked.take_all() == Calls{seen_locked});
}

TEST_CASE("a try takes the calls of a key as far as they are of one operation", "[locked]") {
    LockedSite site;
    const auto first = call(storing, "a");
    site.locked.add_conflicting(first, the_start);
    const auto second = call(storing, "a");
    const auto third = call(removing, "a");
    const auto last = call(storing, "a");
    for (const auto& one : {second, third, last}) {
        site.locked.add_behind(one, the_start);
    }
    CHECK_FALSE(second->progress.locked);
    const auto tries = site.next().tries;
    CHECK(tries == Calls{first, second});
    CHECK(site.locked.tried("a", tries, true, site.now).empty());
    CHECK(site.locked.size() == 4);
    // What met a conflict is not looked at, but tried again.
    CHECK(site.next().tries == tries);
    CHECK(site.locked.tried("a", tries, false, site.now) == Calls{third, last});
    CHECK(site.locked.empty());
}

TEST_CASE("a look that came to nothing leads to tries", "[locked]") {
    LockedSite site;
    const auto waiting = site.add("a");
    REQUIRE(site.next().looks == Names{"a"});
    CHECK(site.locked.not_seen({"a"}, site.now).empty());
    CHECK(site.next().tries == Calls{waiting});
}

TEST_CASE("the limit of a role ends the wait of each call at its own time", "[locked]") {
    LockedSite site;
    site.limit = LockLimit{25ms, "55P03"};
    const auto first = site.add("a");
    const auto second = call(storing, "a");
    site.locked.add_behind(second, the_start + 15ms);
    CHECK(site.next().looks == Names{"a"});
    CHECK(site.locked.seen({"a"}, LockedSite::sight({"a"}), site.now).empty());
    CHECK(site.locked.due() == the_start + 25ms);
    const auto due = site.next();
    CHECK(due.limited == Calls{first});
    CHECK(due.looks == Names{"a"});
    CHECK(site.locked.seen({"a"}, LockedSite::sight({"a"}), site.now).empty());
    CHECK(site.next().limited == Calls{second});
    CHECK(site.locked.empty());
}

TEST_CASE("what has been settled is forgotten, and its key with the last of its calls",
          "[locked]") {
    LockedSite site;
    site.locked.add(settled_call("a"), "h", std::nullopt, the_start);
    site.locked.add(settled_call("a"), "h", std::nullopt, the_start);
    site.locked.add_conflicting(settled_call("b"), the_start);
    CHECK(site.next().looks.empty());
    CHECK(site.locked.take_due(the_start + 1s).tries.empty());
    CHECK(site.locked.empty());
    CHECK(site.locked.size() == 0);
}

TEST_CASE("all calls of locked keys can be taken out at once", "[locked]") {
    LockedSite site;
    site.add("a");
    site.add("b");
    site.add("b");
    CHECK(site.locked.take_all().size() == 3);
    CHECK(site.locked.empty());
    CHECK(site.locked.size() == 0);
    CHECK(site.locked.due() == TimePoint::max());
}
