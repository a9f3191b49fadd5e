// Who gets which connection, and when one is opened. No connection is real here.

#include "pool/pool_state.hpp"

#include <catch2/catch.hpp>

#include "unit/calls.hpp"

using namespace psycache;
using namespace psycache::detail;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

PoolOptions limits_of(std::size_t max_size) {
    PoolOptions some;
    some.max_size = max_size;
    some.idle_timeout = 10s;
    some.max_lifetime = no_expiry;
    return some;
}

/// A pool of which everything that is lent can be told from the rest by its time.
struct PoolSite {
    explicit PoolSite(std::size_t max_size, PoolOptions its_options = PoolOptions())
        : limits(its_options.max_size == max_size ? its_options : limits_of(max_size)),
          state(limits, 1) {}

    std::shared_ptr<PoolState::Waiter> join(TimePoint now = the_start) {
        auto waiter = std::make_shared<PoolState::Waiter>();
        joined = state.join(waiter, now);
        return waiter;
    }
    /// Opens a connection as the driver does. @returns the caller that gets it.
    std::shared_ptr<PoolState::Waiter> open(TimePoint now = the_start) {
        PooledConnection opened = state.opened(nullptr, now);
        return state.hand_over(opened);
    }
    /// Gives a connection back that has been used until @p now.
    std::shared_ptr<PoolState::Waiter> give_back(TimePoint now, bool reusable = true) {
        PooledConnection used;
        used.idle_since = now;
        return state.keep(used, reusable) ? state.hand_over(used) : nullptr;
    }

    const PoolOptions limits;
    PoolState state;
    PoolState::Joined joined;
};

}  // namespace

TEST_CASE("a connection is opened only for those who wait, one at a time", "[pool_state]") {
    PoolSite site(2);
    CHECK_FALSE(site.state.begin_connecting());
    const auto first = site.join();
    CHECK(site.state.begin_connecting());
    CHECK_FALSE(site.state.begin_connecting());
    CHECK(site.state.statistics().connecting == 1);
    CHECK(site.state.next_attempt() <= the_start);
    CHECK(site.open() == first);
    CHECK_FALSE(site.state.next_attempt());
    CHECK(site.state.statistics().connecting == 0);
    CHECK(site.state.statistics().busy == 1);
}

TEST_CASE("no more connections are opened than there may be", "[pool_state]") {
    PoolSite site(1);
    site.join();
    REQUIRE(site.state.begin_connecting());
    site.open();
    const auto second = site.join();
    CHECK_FALSE(site.state.next_attempt());
    CHECK_FALSE(site.state.begin_connecting());
    CHECK(site.give_back(the_start) == second);
    CHECK(site.state.statistics().leases == 2);
}

TEST_CASE("those who wait are served in the order in which they came", "[pool_state]") {
    PoolSite site(1);
    const auto a = site.join();
    const auto b = site.join();
    const auto c = site.join();
    CHECK(site.state.statistics().waiting == 3);
    CHECK(site.open() == a);
    b->settle(cancelled_failure());
    CHECK(site.give_back(the_start) == c);
    CHECK(site.give_back(the_start) == nullptr);
    CHECK(site.state.statistics().idle == 1);
    CHECK(site.state.statistics().waits == 3);
}

TEST_CASE("no idle connection is lent past those who wait", "[pool_state]") {
    PoolSite site(2);
    site.open();
    CHECK(site.state.statistics().idle == 1);
    CHECK(site.state.lend_idle(the_start).lent);
    const auto waiter = site.join();
    CHECK_FALSE(site.joined.lent);
    CHECK_FALSE(site.state.lend_idle(the_start).lent);
    CHECK(site.give_back(the_start) == waiter);
}

TEST_CASE("one that came back before the line was joined is not missed", "[pool_state]") {
    PoolSite site(1);
    site.open();
    site.join();
    CHECK(site.joined.lent);
    CHECK(site.state.statistics().waiting == 0);
    CHECK(site.state.statistics().busy == 1);
}

TEST_CASE("the newest idle connection is lent first, and old ones are closed", "[pool_state]") {
    PoolSite site(3);
    site.open(the_start);
    site.open(the_start + 4s);
    site.open(the_start + 8s);
    const PoolState::Idle idle = site.state.lend_idle(the_start + 15s);
    REQUIRE(idle.lent);
    CHECK(idle.lent->idle_since == the_start + 8s);
    CHECK(idle.too_old.size() == 2);
    CHECK(site.state.statistics().open == 1);
    CHECK(site.state.statistics().retired == 2);
}

TEST_CASE("a connection is replaced when its lifetime is over", "[pool_state]") {
    PoolOptions limits = limits_of(1);
    limits.max_lifetime = 100s;
    PoolSite site(1, limits);
    const PooledConnection opened = site.state.opened(nullptr, the_start);
    // Less up to a tenth, so that not all are replaced at once.
    CHECK(opened.retire_at >= the_start + 90s);
    CHECK(opened.retire_at <= the_start + 100s);
    PooledConnection used;
    used.retire_at = opened.retire_at;
    used.idle_since = opened.retire_at;
    CHECK_FALSE(site.state.keep(used, true));
    CHECK(site.state.statistics().retired == 1);
    CHECK(site.state.statistics().open == 0);
}

TEST_CASE("a connection that is not reusable is lost, and another is opened", "[pool_state]") {
    PoolSite site(1);
    site.join();
    site.open();
    const auto next = site.join();
    CHECK(site.give_back(the_start, false) == nullptr);
    CHECK(site.state.statistics().lost == 1);
    CHECK(site.state.statistics().open == 0);
    CHECK(site.state.begin_connecting());
    CHECK(site.open() == next);
}

TEST_CASE("one that is found dead was never lent", "[pool_state]") {
    PoolSite site(1);
    site.open();
    REQUIRE(site.state.lend_idle(the_start).lent);
    site.state.found_dead();
    CHECK(site.state.statistics().open == 0);
    CHECK(site.state.statistics().lost == 1);
    CHECK(site.state.statistics().leases == 0);
}

TEST_CASE("a failed attempt answers those who wait, unless connections may come back",
          "[pool_state]") {
    PoolSite site(2);
    const auto first = site.join();
    REQUIRE(site.state.begin_connecting());
    CHECK(site.state
              .open_failed(the_start, psycache::detail::Failure(Errc::connect_failed), the_start)
              .size() == 1);
    CHECK(site.state.statistics().connect_failures == 1);
    site.join();
    // The next attempt is made after a pause.
    CHECK(site.state.next_attempt() > the_start);
    site.open();
    site.join();
    CHECK(site.state
              .open_failed(the_start, psycache::detail::Failure(Errc::connect_failed), the_start)
              .empty());
    CHECK(site.state.acquire_timeout().code == Errc::acquire_timed_out);
    CHECK(site.state.acquire_timeout().cause.find("1 of 2 are open; the last attempt") !=
          std::string::npos);
}

TEST_CASE("those who wait stay when a session was ended while it began", "[pool_state]") {
    PoolSite site(1);
    const auto waiter = site.join();
    REQUIRE(site.state.begin_connecting());
    psycache::detail::Failure ended(Errc::connect_failed);
    ended.sqlstate = "57P01";
    CHECK(site.state.open_failed(the_start, ended, the_start).empty());
    CHECK(site.state.statistics().connect_failures == 1);
    // The same driver goes on, after a pause.
    CHECK(site.state.next_attempt() > the_start);
    ended.sqlstate = "57P03";
    CHECK(site.state.open_failed(the_start, ended, the_start).size() == 1);
}

TEST_CASE("no caller waits for a server that refuses the role", "[pool_state]") {
    PoolSite site(1);
    const auto first = site.join();
    REQUIRE(site.state.begin_connecting());
    psycache::detail::Failure refused(Errc::authentication_failed, "the password is wrong");
    site.state.open_failed(the_start, refused, the_start);
    site.join(the_start);
    REQUIRE(site.joined.failure);
    CHECK(site.joined.failure->cause == "the password is wrong");
    site.join(the_start + 1min);
    CHECK_FALSE(site.joined.failure);
}

TEST_CASE("a closed pool lends and keeps nothing", "[pool_state]") {
    PoolSite site(2);
    site.join();
    site.open();
    site.open();
    const auto waiting = site.join();  // gets the idle one
    const auto in_vain = site.join();
    PoolState::Closed rest = site.state.close();
    CHECK(rest.waiters.size() == 1);
    CHECK(rest.waiters.front() == in_vain);
    site.join();
    REQUIRE(site.joined.failure);
    CHECK(site.joined.failure->code == Errc::pool_closed);
    CHECK_FALSE(site.state.lend_idle(the_start).lent);
    CHECK(site.give_back(the_start) == nullptr);
    CHECK(site.give_back(the_start) == nullptr);
    CHECK(site.state.statistics().open == 0);
    CHECK_FALSE(site.state.begin_connecting());
}

TEST_CASE("those who wait learn that what opens connections has gone away", "[pool_state]") {
    PoolSite site(1);
    const auto waiter = site.join();
    REQUIRE(site.state.begin_connecting());
    CHECK(site.state.connecting_lost().size() == 1);
    CHECK(site.state.statistics().connecting == 0);
    const auto next = site.join();
    CHECK(site.state.begin_connecting());
}

TEST_CASE("as many connections are opened at once as may be, and as callers wait for",
          "[pool_state]") {
    struct Case {
        std::size_t max_size, max_connecting, waiting, open, drivers;
    };
    const auto [max_size, max_connecting, waiting, open, drivers] = GENERATE(
        Case{4, 2, 0, 0, 0}, Case{4, 2, 1, 0, 1}, Case{4, 2, 2, 0, 2}, Case{4, 2, 9, 0, 2},
        Case{4, 9, 9, 0, 4}, Case{4, 3, 9, 2, 2}, Case{4, 3, 9, 4, 0}, Case{4, 1, 9, 0, 1});
    CAPTURE(max_size, max_connecting, waiting, open);
    PoolOptions limits = limits_of(max_size);
    limits.max_connecting = max_connecting;
    PoolSite site(max_size, limits);
    for (std::size_t i = 0; i < open; ++i) {
        site.open();
        REQUIRE(site.state.lend_idle(the_start).lent);
    }
    for (std::size_t i = 0; i < waiting; ++i) {
        site.join();
    }
    std::size_t began = 0;
    while (site.state.begin_connecting()) {
        ++began;
    }
    CHECK(began == drivers);
    CHECK(site.state.statistics().connecting == drivers);
}

TEST_CASE("a driver ends when the others are enough for those who wait", "[pool_state]") {
    PoolSite site(4);
    site.join();
    site.join();
    REQUIRE(site.state.begin_connecting());
    REQUIRE(site.state.begin_connecting());
    site.open();
    CHECK_FALSE(site.state.next_attempt());
    CHECK(site.state.statistics().connecting == 1);
    site.open();
    CHECK_FALSE(site.state.next_attempt());
    CHECK(site.state.statistics().connecting == 0);
}

TEST_CASE("of several attempts the last one that fails answers those who wait", "[pool_state]") {
    PoolSite site(4);
    site.join();
    site.join();
    REQUIRE(site.state.begin_connecting());
    REQUIRE(site.state.begin_connecting());
    CHECK(site.state
              .open_failed(the_start, psycache::detail::Failure(Errc::connect_failed), the_start)
              .empty());
    // From now on there is one only.
    CHECK_FALSE(site.state.next_attempt());
    CHECK_FALSE(site.state.begin_connecting());
    CHECK(site.state
              .open_failed(the_start, psycache::detail::Failure(Errc::connect_failed), the_start)
              .size() == 2);
    CHECK_FALSE(site.state.next_attempt());
    site.join();
    site.join();
    CHECK(site.state.begin_connecting());
    CHECK_FALSE(site.state.begin_connecting());
    // And several again once it succeeded.
    site.open();
    site.join();
    CHECK(site.state.begin_connecting());
}

TEST_CASE("so many are kept idle once the pool is used, until an attempt fails", "[pool_state]") {
    PoolOptions limits = limits_of(4);
    limits.min_idle = 2;
    limits.max_connecting = 4;
    PoolSite site(4, limits);
    CHECK_FALSE(site.state.begin_connecting());
    CHECK_FALSE(site.state.lend_idle(the_start).lent);
    CHECK(site.state.begin_connecting());
    CHECK(site.state.begin_connecting());
    CHECK_FALSE(site.state.begin_connecting());
    site.open();
    CHECK_FALSE(site.state.next_attempt());
    CHECK(site.state
              .open_failed(the_start, psycache::detail::Failure(Errc::connect_failed), the_start)
              .empty());
    CHECK_FALSE(site.state.next_attempt());
    CHECK_FALSE(site.state.begin_connecting());
    // The next use tries again, after the pause.
    REQUIRE(site.state.lend_idle(the_start).lent);
    REQUIRE(site.state.begin_connecting());
    CHECK(site.state.next_attempt() > the_start);
    site.open();
    CHECK(site.state.next_attempt());
    site.open();
    CHECK_FALSE(site.state.next_attempt());
    CHECK(site.state.statistics().idle == 2);
    CHECK(site.state.statistics().open == 3);
}

TEST_CASE("as many as are kept idle are left alone by idle_timeout", "[pool_state]") {
    PoolOptions limits = limits_of(4);
    limits.min_idle = 2;
    PoolSite site(4, limits);
    for (int i = 0; i < 4; ++i) {
        site.open(the_start + std::chrono::seconds(i));
    }
    const PoolState::Idle idle = site.state.lend_idle(the_start + 1h);
    CHECK(idle.lent);
    CHECK(idle.too_old.size() == 2);
    CHECK(site.state.statistics().open == 2);
}

TEST_CASE("a warm-up opens connections until so many are open, lent or not", "[pool_state]") {
    PoolOptions limits = limits_of(4);
    limits.min_idle = 3;
    limits.max_connecting = 9;
    PoolSite site(4, limits);
    site.state.begin_warm_up(3);
    site.join();  // the one who warms it up
    std::size_t began = 0;
    while (site.state.begin_connecting()) {
        ++began;
    }
    CHECK(began == 3);
    for (std::size_t i = 0; i < began; ++i) {
        CHECK_FALSE(site.state.is_warm());
        site.open();
        CHECK_FALSE(site.state.next_attempt());
    }
    CHECK(site.state.is_warm());
    CHECK_FALSE(site.state.begin_connecting());
    site.give_back(the_start);
    site.state.end_warm_up();
    CHECK_FALSE(site.state.begin_connecting());
    CHECK(site.state.statistics().idle == 3);
}

TEST_CASE("idle connections to a server that was left behind are dropped", "[pool_state]") {
    PoolSite site(4);
    for (const std::uint32_t timeline : {1u, 2u, 0u, 1u}) {
        PooledConnection opened = site.state.opened(nullptr, the_start);
        opened.origin.system = 7;
        opened.origin.timeline = timeline;
        site.state.hand_over(opened);
    }
    psycache::detail::pg::Timelines timelines;
    CHECK(site.state.drop_behind(timelines).empty());
    psycache::detail::pg::Origin promoted;
    promoted.system = 7;
    promoted.timeline = 2;
    REQUIRE(timelines.admit(promoted));
    CHECK(site.state.drop_behind(timelines).size() == 2);
    CHECK(site.state.statistics().idle == 2);
    CHECK(site.state.statistics().open == 2);
    CHECK(site.state.statistics().retired == 2);
    CHECK(site.state.drop_behind(timelines).empty());
}
