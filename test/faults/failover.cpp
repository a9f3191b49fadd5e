// A cluster of two servers under load, of which pg_auto_failover makes one the primary: it is
// switched over, killed, frozen, and comes back.

#include <catch2/catch.hpp>
#include <iostream>

#include "faults/load.hpp"
#include "support/auto_failover.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// How long after a new primary takes writes every caller has stored and looked up. The pauses
/// between attempts to connect come to about a second.
constexpr auto soon = 6s * slowness;

/// How long a call may take: less than usual, as those sent to a node that stands still take it
/// all.
constexpr Duration limit = usual_timeout / 2;

/// Callers of a logged table, and of one that is empty after each failover.
class Crowds {
  public:
    /// @param first the node that the DSN names first
    Crowds(const AutoFailoverCluster& cluster, std::size_t first)
        : descriptors_(open_descriptors()) {
        make_tables(cluster.node_dsn(0));
        const auto pool_of = [&](const std::string& name) {
            PoolOptions pool;
            pool.dsn = cluster.dsn(first, {{"application_name", name}});
            pool.max_size = 4;
            pool.connect_timeout = 1s * slowness;
            pool.acquire_timeout = 1500ms * slowness;
            // Each connection that is replaced asks the hosts anew.
            pool.max_lifetime = 500ms;
            return pool;
        };
        logged_.emplace(Flavour::async, pool_of("logged"), options("logged"));
        unlogged_.emplace(Flavour::blocking, pool_of("unlogged"), options("unlogged"));
        logged_->pace(20ms);
        unlogged_->pace(20ms);
    }

    Load& logged() { return *logged_; }
    /// From now on the entries of the unlogged table may vanish, until callers are served again.
    void expect_failover() { unlogged_->entries(Entries::vanish); }

    /// Waits until every caller has stored and looked up, both begun from now on. @returns how long
    /// that took.
    Milliseconds work() {
        const auto began = Clock::now();
        CHECK(logged_->works());
        CHECK(unlogged_->works());
        unlogged_->entries(Entries::stay);
        return std::chrono::duration_cast<Milliseconds>(Clock::now() - began);
    }

    /// Ends the callers, and checks what they have seen and that nothing is left of them.
    void finish() {
        for (auto* load : {&logged_, &unlogged_}) {
            (*load)->stop();
            const auto calls = (*load)->statistics();
            std::cout << (load == &logged_ ? "logged: " : "unlogged: ") << calls.puts << " puts, "
                      << calls.hits << " hits, " << calls.misses << " misses, " << calls.errors
                      << " errors" << std::endl;
            const auto& record = (*load)->record();
            CHECK(record.unexpected({Errc::connect_failed, Errc::connection_lost,
                                     Errc::outcome_unknown, Errc::timed_out,
                                     Errc::acquire_timed_out}) == "");
            CHECK(record.slowest() <= std::chrono::duration_cast<Milliseconds>(limit) + tolerance);
            CHECK(calls.queued == 0);
            load->reset();
        }
        CHECK(eventually([&] { return open_descriptors() <= descriptors_; }));
    }

  private:
    static void make_tables(const std::string& dsn) {
        for (const std::string schema : {"logged", "unlogged"}) {
            Psql(dsn).exec("CREATE SCHEMA " + schema);
            TableOptions options;
            options.schema = schema;
            options.unlogged = schema == "unlogged";
            init_db(dsn, options);
        }
    }
    static CacheOptions options(const std::string& schema) {
        CacheOptions options;
        options.schema = schema;
        options.timeout = limit;
        return options;
    }

    std::size_t descriptors_;
    std::optional<Load> logged_;
    std::optional<Load> unlogged_;
};

/// Waits until callers are served by the new primary, and says what that took.
void take_over(AutoFailoverCluster& cluster, Crowds& crowds, std::size_t to, const char* what,
               Duration in_time = soon) {
    const auto began = Clock::now();
    cluster.wait_for_writes(to);
    const auto promoted = std::chrono::duration_cast<Milliseconds>(Clock::now() - began);
    const auto worked = crowds.work();
    std::cout << what << ": " << promoted.count() << " ms until the new primary takes writes, "
              << worked.count() << " ms more until every caller is served" << std::endl;
    CHECK(worked < in_time);
}

}  // namespace

TEST_CASE("While a primary is switched over, killed and comes back no answer is wrong") {
    if (!AutoFailoverCluster::available()) {
        return;
    }
    AutoFailoverCluster cluster;
    Crowds crowds(cluster, 1);
    crowds.work();

    crowds.expect_failover();
    cluster.switch_over();
    take_over(cluster, crowds, 1, "switchover");
    cluster.wait_until_whole(1);
    crowds.work();

    crowds.expect_failover();
    cluster.kill(1);
    take_over(cluster, crowds, 0, "primary killed");

    // It knows nothing of its successor, takes writes, and is asked first.
    cluster.start_unfenced(1);
    {
        Psql old(cluster.node_dsn(1));
        REQUIRE(old.truth("SELECT NOT pg_is_in_recovery()"));
        old.exec("UPDATE logged.psycache SET expires_at = expires_at + interval '1 day'");
        const auto sessions = [&] {
            return old.number("SELECT sum(sessions) FROM pg_stat_database");
        };
        const auto before = sessions();
        const auto end = Clock::now() + 3s;
        while (Clock::now() < end) {
            crowds.work();
        }
        CHECK(eventually([&] { return sessions() > before + 4; }));
        CHECK(old.number("SELECT count(*) FROM logged.psycache WHERE expires_at < now() + "
                         "interval '1 day'") == 0);
    }
    cluster.stop_unfenced(1);

    cluster.run(1);
    cluster.wait_until_whole(0);
    crowds.work();

    // Refused as an old primary, it counts again as a new one.
    crowds.expect_failover();
    cluster.switch_over();
    take_over(cluster, crowds, 1, "switchover to the node that has come back");
    crowds.finish();
}

TEST_CASE("While a primary stands still and goes on again no answer is wrong") {
    if (!AutoFailoverCluster::available()) {
        return;
    }
    AutoFailoverCluster cluster;
    Crowds crowds(cluster, 0);
    crowds.work();

    // Its connections stay, and it answers on them when it goes on.
    crowds.expect_failover();
    cluster.freeze(0);
    take_over(cluster, crowds, 1, "primary frozen", soon + limit);
    cluster.thaw(0);
    crowds.work();
    cluster.wait_until_whole(1);
    crowds.work();

    cluster.kill(0);
    cluster.kill(1);
    const Failure failure = failure_of([&] { crowds.logged().get("key"); });
    CHECK(failure.code() == Errc::connect_failed);
    for (const std::size_t node : {0U, 1U}) {
        CHECK_THAT(failure.what(), Catch::Contains("port " + cluster.port(node) + " failed"));
    }
    crowds.finish();
}
