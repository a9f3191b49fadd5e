// Which calls go next, and with how many workers.

#include "batching/scheduler.hpp"

#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>
#include <string>

#include "batching/router.hpp"
#include "unit/calls.hpp"

using namespace psycache;
using namespace psycache::detail;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// Limits under which one worker takes all that waits.
constexpr GroupLimits small_limits() {
    GroupLimits limits;
    limits.calls = 4;
    limits.shared = 4;
    limits.bytes = 100;
    limits.alone = 50;
    limits.workers = 1;
    limits.spread = false;
    return limits;
}

/// A scheduler with the locked keys beside it.
struct SchedulerSite {
    explicit SchedulerSite(GroupLimits limits = small_limits(), std::size_t capacity = 1000)
        : scheduler(limits, capacity) {}

    bool add(const Operation& operation, const std::string& key) {
        return scheduler.add(call(operation, key));
    }
    void add_many(const Operation& operation, std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) {
            add(operation, std::to_string(i));
        }
    }
    /// @returns whether one more worker is wanted; it is kept as one that is coming.
    bool call_worker() {
        if (!scheduler.call_worker()) {
            return false;
        }
        workers.emplace_back();
        return true;
    }
    Calls next(std::size_t worker = 0, TimePoint now = the_start) {
        Calls calls = scheduler.next_group(workers.at(worker), locked, order, now);
        if (ends_at_once) {
            for (const auto& one : calls) {
                Calls freed;
                order.end(*one, freed);
            }
        }
        return calls;
    }
    /// @returns the next group of a worker that is made for it.
    std::string next_keys() {
        if (workers.empty() && !call_worker()) {
            return "no worker";
        }
        const std::string keys = keys_of(next());
        if (keys.empty()) {
            workers.clear();
        }
        return keys;
    }

    Scheduler scheduler;
    LockRetry locked;
    WriteOrder order;
    bool ends_at_once = true;  ///< a group, as far as those behind it are concerned
    std::vector<Worker> workers;
};

}  // namespace

TEST_CASE("calls of one operation form a group in the order in which they came", "[scheduler]") {
    SchedulerSite site;
    for (const char* key : {"a", "b", "c"}) {
        REQUIRE(site.add(reading, key));
    }
    CHECK(site.next_keys() == "abc");
    CHECK(site.next_keys().empty());
    CHECK(site.scheduler.queued() == 0);
    CHECK(site.scheduler.idle());
}

TEST_CASE("the call that has waited longest decides the operation of the next group",
          "[scheduler]") {
    SchedulerSite site;
    site.add(storing, "p");
    site.add(reading, "a");
    site.add(removing, "r");
    site.add(storing, "q");
    site.add(reading, "b");
    CHECK(site.next_keys() == "pq");
    CHECK(site.next_keys() == "ab");
    CHECK(site.next_keys() == "r");
}

TEST_CASE("a group is bounded in calls and in bytes", "[scheduler]") {
    SchedulerSite site;
    for (const char* key : {"a", "b", "c", "d", "e"}) {
        site.add(reading, key);
    }
    CHECK(site.next_keys() == "abcd");
    CHECK(site.next_keys() == "e");
    for (const char* first : {"f", "g", "h"}) {
        site.scheduler.add(call(storing, first, {}, 39));
    }
    CHECK(site.next_keys() == "fg");
    CHECK(site.next_keys() == "h");
}

TEST_CASE("a large call shares with no other", "[scheduler]") {
    SchedulerSite site;
    site.add(storing, "a");
    site.scheduler.add(call(storing, "B", {}, 60));
    site.add(storing, "c");
    CHECK(site.next_keys() == "a");
    CHECK(site.next_keys() == "B");
    CHECK(site.next_keys() == "c");
}

TEST_CASE("calls of an operation that shares no statements go alone", "[scheduler]") {
    struct Alone final : Operation {
        Alone() : Operation("put", true) {}
        const pg::Statement& bind(const Group&, pg::Parameters&) const override { return none; }
        void answer(const Group&, const pg::Rows&, Resume) const override {}
        psycache::detail::Failure explain(psycache::detail::Failure failure) const override {
            return failure;
        }
        const pg::Statement& looks_for_locks() const override { return none; }
        LockSight lock_sight(const pg::Rows&) const override { return {}; }
        bool shares(bool /*one_server*/) const noexcept override { return false; }
        const pg::Statement none{"", {}};
    };
    const Alone alone;
    SchedulerSite site;
    for (const char* key : {"a", "a", "b"}) {
        site.add(alone, key);
    }
    CHECK(site.next_keys() == "a");
    CHECK(site.next_keys() == "a");
    CHECK(site.next_keys() == "b");
    CHECK(site.next_keys().empty());
}

TEST_CASE("a full queue refuses, and takes calls again once there is room", "[scheduler]") {
    SchedulerSite site(small_limits(), 2);
    CHECK(site.add(reading, "a"));
    CHECK_FALSE(site.scheduler.add(call(storing, "x"), 1));
    CHECK(site.add(storing, "b"));
    CHECK_FALSE(site.add(reading, "c"));
    CHECK(site.scheduler.queued() == 2);
    CHECK(site.next_keys() == "a");
    CHECK(site.add(reading, "c"));
}

TEST_CASE("calls that were settled make room, and are left out", "[scheduler]") {
    SchedulerSite site(small_limits(), 2);
    site.scheduler.add(settled_call("x"));
    site.scheduler.add(settled_call("y"));
    CHECK(site.add(storing, "a"));
    CHECK(site.scheduler.queued() == 1);
    site.scheduler.add(settled_call("z"));
    CHECK(site.next_keys() == "a");
    CHECK(site.next_keys().empty());
}

TEST_CASE("everything can be taken out at once", "[scheduler]") {
    SchedulerSite site;
    site.add(reading, "a");
    site.add(removing, "b");
    CHECK(site.scheduler.take_all().size() == 2);
    CHECK(site.scheduler.queued() == 0);
    CHECK_FALSE(site.call_worker());
}

TEST_CASE("different callers share smaller groups than one caller may fill", "[scheduler]") {
    struct Owner final : CallOwner {
        void call_done() override {}
    };
    GroupLimits limits = small_limits();
    limits.calls = 6;
    limits.shared = 3;
    SchedulerSite site(limits);
    const auto push = [&](const std::string& keys, const CallOwner* owner) {
        for (const char key : keys) {
            auto one = call(reading, std::string(1, key));
            one->together = owner;
            site.scheduler.add(std::move(one));
        }
    };
    const Owner first;
    const Owner second;
    push("abcd", nullptr);
    CHECK(site.next_keys() == "abc");
    push("ABCDEFGH", &first);
    CHECK(site.next_keys() == "dABCDE");
    CHECK(site.next_keys() == "FGH");
    push("AB", &first);
    push("CDEF", &second);
    CHECK(site.next_keys() == "ABCDEF");
}

TEST_CASE("calls of one key in a row stay together", "[scheduler]") {
    GroupLimits limits = small_limits();
    limits.workers = 2;
    limits.spread = true;
    SchedulerSite site(limits);
    for (const char* key : {"a", "b", "b", "c"}) {
        site.add(reading, key);
    }
    REQUIRE(site.call_worker());
    CHECK(keys_of(site.next()) == "abb");
}

TEST_CASE("a group leaves their share to other workers", "[scheduler]") {
    struct Row {
        std::size_t waiting;
        std::size_t workers;  // that are wanted at the most
        std::size_t taken;
    };
    const auto row = GENERATE(values<Row>({
        {1, 2, 1},
        {2, 2, 1},
        {33, 2, 17},
        {33, 3, 11},
        {33, 1, 33},
        {200, 3, 64},
        {200, 1, 64},
    }));
    CAPTURE(row.waiting, row.workers);
    GroupLimits limits;
    limits.workers = row.workers;
    limits.spread = row.workers > 1;
    SchedulerSite site(limits);
    site.add_many(storing, row.waiting);
    REQUIRE(site.call_worker());
    CHECK(site.next().size() == row.taken);
    CHECK(site.scheduler.queued() == row.waiting - row.taken);
}

TEST_CASE("few calls are divided between two groups, many among three", "[scheduler]") {
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

TEST_CASE("a further worker comes for enough calls", "[scheduler]") {
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
}

TEST_CASE("no worker is called while one is about to look", "[scheduler]") {
    SchedulerSite site(group_limits(8, 4));
    site.add(reading, "a");
    CHECK(site.call_worker());
    site.add(reading, "b");
    CHECK_FALSE(site.call_worker());
    CHECK(keys_of(site.next()) == "a");
    // It has left a share to the next one.
    CHECK(site.call_worker());
    CHECK(keys_of(site.next(1)) == "b");
    site.add(reading, "c");
    CHECK_FALSE(site.call_worker());
    site.scheduler.coming(site.workers[0]);
    CHECK(keys_of(site.next(0)) == "c");
    site.scheduler.ended(site.workers[0]);
    site.scheduler.ended(site.workers[1]);
    CHECK(site.scheduler.idle());
}

TEST_CASE("writes leave workers to reads", "[scheduler]") {
    GroupLimits limits = small_limits();
    limits.workers = 2;
    limits.most_writing = 1;
    SchedulerSite site(limits);
    site.add(storing, "a");
    REQUIRE(site.call_worker());
    CHECK(keys_of(site.next()) == "a");
    site.add(removing, "b");
    CHECK_FALSE(site.call_worker());
    site.add(reading, "c");
    REQUIRE(site.call_worker());
    CHECK(keys_of(site.next(1)) == "c");
    // The second worker finds nothing that it may do, and ends.
    site.scheduler.coming(site.workers[1]);
    CHECK(site.next(1).empty());
    // The one that has written may write again.
    site.scheduler.coming(site.workers[0]);
    CHECK(keys_of(site.next(0)) == "b");
}

TEST_CASE("calls that wait while all workers are held up get one more after a while",
          "[scheduler]") {
    GroupLimits limits = small_limits();
    limits.most = 2;
    SchedulerSite site(limits);
    CHECK(site.scheduler.stuck_at() == TimePoint::max());
    site.add(storing, "a");
    REQUIRE(site.call_worker());
    CHECK(site.scheduler.stuck_at() == TimePoint::max());
    site.next();
    CHECK(site.scheduler.stuck_at() == TimePoint::max());
    site.add(reading, "b");
    CHECK_FALSE(site.call_worker());
    CHECK(site.scheduler.stuck_at() == the_start + Scheduler::stuck_after);
    CHECK_FALSE(site.scheduler.call_worker_if_stuck(the_start + 9ms));
    site.scheduler.started(the_start + 5ms);
    CHECK_FALSE(site.scheduler.call_worker_if_stuck(the_start + 14ms));
    CHECK(site.scheduler.call_worker_if_stuck(the_start + 15ms));
    site.workers.emplace_back();
    CHECK(keys_of(site.next(1, the_start + 15ms)) == "b");
    // There are as many as there may be.
    site.add(reading, "c");
    CHECK(site.scheduler.stuck_at() == TimePoint::max());
    CHECK_FALSE(site.scheduler.call_worker_if_stuck(the_start + 1h));
}

TEST_CASE("a call goes alone where nothing waits and connections are left", "[scheduler]") {
    struct Row {
        std::size_t busy;     // workers that have a group
        std::size_t callers;  // threads inside of a call, this one included
        bool alone;
    };
    const auto row = GENERATE(values<Row>({
        {0, 1, true},
        {1, 2, true},
        {5, 6, true},
        {6, 6, false},
        // With more threads than connections it is better to share.
        {0, 7, true},
        {3, 7, true},
        {4, 7, false},
        {5, 64, false},
    }));
    CAPTURE(row.busy, row.callers);
    SchedulerSite site(thread_limits(6));
    for (std::size_t i = 0; i < row.busy; ++i) {
        REQUIRE(site.scheduler.call_lone_worker(1, false));
    }
    CHECK(site.scheduler.call_lone_worker(row.callers, false) == row.alone);
}

TEST_CASE("no call goes ahead of those that wait", "[scheduler]") {
    SchedulerSite site(thread_limits(4));
    site.add(reading, "a");
    CHECK_FALSE(site.scheduler.call_lone_worker(1, false));
}

TEST_CASE("calls of a key that is known to be locked are laid aside", "[scheduler]") {
    SchedulerSite site;
    site.locked.add(call(storing, "b"), "holder", std::nullopt, the_start);
    for (const char* key : {"a", "b", "c"}) {
        site.add(storing, key);
    }
    CHECK(site.next_keys() == "ac");
    CHECK(site.locked.size() == 2);
    site.add(removing, "b");
    site.add(reading, "b");
    // A read does not wait for locks.
    CHECK(site.next_keys() == "b");
    CHECK(site.locked.size() == 3);
    CHECK(site.scheduler.queued() == 0);
}

TEST_CASE("writes of a key that is on its way are laid aside, and come first afterwards",
          "[scheduler]") {
    SchedulerSite site;
    site.ends_at_once = false;
    site.add(storing, "a");
    site.add(storing, "a");
    REQUIRE(site.call_worker());
    const Calls first = site.next();
    CHECK(keys_of(first) == "aa");
    const auto behind = call(removing, "a");
    site.scheduler.add(behind);
    site.add(storing, "b");
    site.add(reading, "a");
    CHECK(keys_of(site.next()) == "b");
    CHECK(site.order.size() == 1);
    // A read waits for nothing.
    CHECK(keys_of(site.next()) == "a");
    site.add(storing, "c");
    Calls freed;
    for (const auto& one : first) {
        site.order.end(*one, freed);
    }
    REQUIRE(freed == Calls{behind});
    site.scheduler.add_first(freed);
    CHECK(site.next() == freed);
    CHECK(keys_of(site.next()) == "c");
}

TEST_CASE("maintenance counts as a write, and comes before those that wait", "[scheduler]") {
    GroupLimits limits = small_limits();
    limits.workers = 3;
    limits.each = 1;
    limits.most_writing = 1;
    SchedulerSite site(limits);
    site.add(storing, "a");
    REQUIRE(site.call_worker());
    CHECK(keys_of(site.next()) == "a");
    CHECK_FALSE(site.scheduler.begin_maintenance(false));
    site.add(storing, "b");
    site.add(reading, "c");
    // The write has ended: the next one is not served, since maintenance waits.
    CHECK(keys_of(site.next()) == "c");
    CHECK(site.scheduler.begin_maintenance(true));
    CHECK(keys_of(site.next()).empty());
    site.workers.clear();
    CHECK_FALSE(site.call_worker());
    site.scheduler.maintenance_ended();
    REQUIRE(site.call_worker());
    CHECK(keys_of(site.next()) == "b");
    // One that gives up leaves its place.
    CHECK_FALSE(site.scheduler.begin_maintenance(false));
    site.scheduler.maintenance_gave_up();
    site.add(storing, "d");
    CHECK(keys_of(site.next()) == "d");
}

namespace {

struct OwnerOfMany final : CallOwner {
    void call_done() override {}
};

std::shared_ptr<Call> owned_call(const std::shared_ptr<OwnerOfMany>& owner,
                                 const std::string& key) {
    auto one = call(reading, key);
    one->owner = owner;
    one->together = owner.get();
    return one;
}

}  // namespace

TEST_CASE("the calls of one owner count as one against the capacity", "[scheduler]") {
    SchedulerSite site(small_limits(), 3);
    const auto first = std::make_shared<OwnerOfMany>();
    const auto second = std::make_shared<OwnerOfMany>();
    for (int i = 0; i < 5; ++i) {
        CHECK(site.scheduler.add(owned_call(first, "a")));
    }
    for (int i = 0; i < 5; ++i) {
        CHECK(site.scheduler.add(owned_call(second, "b")));
    }
    CHECK(site.add(reading, "c"));
    CHECK_FALSE(site.add(reading, "d"));
    CHECK_FALSE(site.scheduler.add(owned_call(std::make_shared<OwnerOfMany>(), "e")));
    CHECK(site.scheduler.queued() == 11);
    CHECK(site.next_keys() == "aaaa");
    CHECK(site.add(reading, "f"));
    CHECK_FALSE(site.add(reading, "g"));
    CHECK(site.next_keys() == "abbb");
    CHECK(site.next_keys() == "bbcf");
    CHECK(site.next_keys().empty());
}

TEST_CASE("calls of an owner that is gone make no room for those of the next", "[scheduler]") {
    SchedulerSite site(small_limits(), 2);
    auto owner = std::make_shared<OwnerOfMany>();
    const auto gone = owned_call(owner, "a");
    REQUIRE(site.scheduler.add(gone));
    gone->fail(cancelled_failure());
    // As if the next owner had the memory of the last.
    REQUIRE(site.scheduler.add(owned_call(owner, "b")));
    CHECK(site.add(reading, "c"));
    CHECK_FALSE(site.add(reading, "d"));
}

TEST_CASE("writes that go alone leave a connection to reads", "[scheduler]") {
    SchedulerSite site(thread_limits(3));
    REQUIRE(site.scheduler.call_lone_worker(1, true));
    REQUIRE(site.scheduler.call_lone_worker(2, true));
    CHECK_FALSE(site.scheduler.call_lone_worker(3, true));
    CHECK(site.scheduler.call_lone_worker(3, false));
    // One has ended.
    site.scheduler.ended(Worker{false, true});
    CHECK(site.scheduler.call_lone_worker(3, true));
}

TEST_CASE("writes whose keys go apart share a statement with other keys only", "[scheduler]") {
    static const NamedOperation comparing{
        "compare_and_put", true, Operation::Traits{.replayable = false, .keys_apart = true}};
    SchedulerSite site(small_limits());
    for (const char* key : {"a", "b", "a", "a", "c"}) {
        REQUIRE(site.add(comparing, key));
    }
    site.ends_at_once = false;
    REQUIRE(site.call_worker());
    const Calls group = site.next();
    CHECK(keys_of(group) == "ab");
    CHECK(site.order.size() == 2);
    Calls freed;
    for (const auto& call : group) {
        site.order.end(*call, freed);
    }
    CHECK(keys_of(freed) == "aa");
    CHECK(site.order.size() == 0);
}

TEST_CASE("Calls of one route go together, whatever came between them") {
    const auto one = std::make_shared<const Route>(nullptr);
    const auto other = std::make_shared<const Route>(nullptr);
    SchedulerSite site;
    for (const char* key : {"a1", "b2", "c1", "d2", "e"}) {
        auto queued = call(reading, key);
        queued->route = key[1] == '1' ? one : key[1] == '2' ? other : nullptr;
        site.scheduler.add(std::move(queued));
    }
    REQUIRE(site.call_worker());
    CHECK(keys_of(site.next()) == "ac");
    CHECK(keys_of(site.next()) == "bd");
    CHECK(keys_of(site.next()) == "e");
    CHECK(site.next().empty());
    CHECK(site.scheduler.queued() == 0);
}

TEST_CASE("The calls of a route are not parted among workers") {
    GroupLimits limits;
    limits.each = 2;
    SchedulerSite site(limits);
    const auto route = std::make_shared<const Route>(nullptr);
    for (const char* key : {"a", "b", "c", "d", "e", "f"}) {
        auto queued = call(reading, key);
        queued->route = route;
        site.scheduler.add(std::move(queued));
    }
    REQUIRE(site.call_worker());
    CHECK(keys_of(site.next()) == "abcdef");
}

TEST_CASE("What shares a statement only where its rows are does so in no other route") {
    class OnServer final : public Operation {
      public:
        OnServer() : Operation("put", true) {}
        const pg::Statement& bind(const Group&, pg::Parameters&) const override { return none_; }
        void answer(const Group&, const pg::Rows&, Resume) const override {}
        bool shares(bool one_server) const noexcept override { return one_server; }
        Failure explain(Failure failure) const override { return failure; }
        const pg::Statement& looks_for_locks() const override { return none_; }
        LockSight lock_sight(const pg::Rows&) const override { return {}; }

      private:
        const pg::Statement none_{"", {}};
    } const operation;
    asio::io_context context;
    const bool direct = GENERATE(true, false);
    CAPTURE(direct);
    const auto route = std::make_shared<const Route>(
        direct ? std::make_shared<PoolCore>(context.get_executor(), PoolOptions()) : nullptr);
    SchedulerSite site;
    for (const char* key : {"a", "b"}) {
        auto queued = call(operation, key);
        queued->route = route;
        site.scheduler.add(std::move(queued));
    }
    REQUIRE(site.call_worker());
    CHECK(keys_of(site.next()) == (direct ? "ab" : "a"));
}
