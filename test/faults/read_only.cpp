// Servers that answer and take no writes: read-only databases and standbys.

#include <catch2/catch.hpp>

#include "faults/load.hpp"
#include "faults/role.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// Settings of a DSN for a primary and its standby, in this order of places.
Settings both_hosts(const PrivateServer& first, const PrivateServer& second) {
    return {{"host", first.folder() + "," + second.folder()},
            {"port", first.port() + "," + second.port()},
            {"target_session_attrs", "read-write"}};
}

/// Waits until a standby has all that the primary has written.
bool has_caught_up(const PrivateServer& standby, const PrivateServer& primary) {
    const auto written = Psql(primary.dsn()).value("SELECT pg_current_wal_flush_lsn()");
    return eventually([&] {
        return Psql(standby.dsn())
            .truth("SELECT pg_last_wal_replay_lsn() >= '" + written + "'::pg_lsn");
    });
}

}  // namespace

TEST_CASE("While a database is read-only puts fail and gets go on") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const PrivateServer server;
    init_db(server.dsn());
    Trial trial(flavour, server.dsn());
    REQUIRE(trial.load().works());

    trial.sql().exec("ALTER DATABASE postgres SET default_transaction_read_only = on");
    trial.terminate();
    CHECK(trial.load().fails());
    CHECK(trial.load().gets_work());
    const auto read_only = sqlstate_code("25006");
    CHECK(trial.record().count(read_only) >= 1);
    CHECK(read_only == Condition::unavailable);
    CHECK(read_only == Condition::transient);

    // The sessions that are read-only are not kept: nobody needs to end them.
    Psql(server.dsn({{"options", "-cdefault_transaction_read_only=off"}}))
        .exec("ALTER DATABASE postgres RESET default_transaction_read_only");
    CHECK(trial.load().works());
    trial.finish({read_only, Errc::outcome_unknown});
}

TEST_CASE("With OnOutage::miss a read-only server loses writes and answers gets") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    schema.insert("key", "{\"n\": 1}");
    const Role role(schema);
    role.alter("SET default_transaction_read_only = on");
    auto options = schema.cache_options();
    options.on_outage = OnOutage::miss;
    PoolOptions pool;
    pool.dsn = dsn_with({{"user", role.name()}});
    const auto cache = make_cache(flavour, options, pool);
    for (int i = 0; i < 50; ++i) {
        cache->put("other", numbered(i), 1h);
    }
    for (int i = 0; i < 50; ++i) {
        CHECK(cache->get("key") == numbered(1));
        CHECK_FALSE(cache->remove("key"));
    }
    const auto statistics = cache->statistics();
    CHECK(statistics.hits == 50);
    CHECK(statistics.outage_misses == 0);
    CHECK(statistics.dropped_writes == 100);
    CHECK(statistics.circuit_open);
    // Nor does each write cost a statement, and the session that is spoilt by it.
    CHECK(statistics.statements < 50 + 2 * 20);

    role.alter("RESET default_transaction_read_only");
    Psql().exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '" +
                role.name() + "'");
    const auto stored = [&] {
        cache->put("other", numbered(7), 1h);
        return schema.has("other");
    };
    CHECK(eventually(stored));
    CHECK_FALSE(cache->statistics().circuit_open);
}

TEST_CASE("A standby has no cache, says so, and has one when it is promoted") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PrivateServer primary;
    init_db(primary.dsn());
    const auto standby = PrivateServer::standby_of(primary);
    REQUIRE(has_caught_up(*standby, primary));
    Trial trial(flavour, standby->dsn());
    trial.load().entries(Entries::vanish);
    CHECK(trial.load().fails());
    const auto unsupported = sqlstate_code("0A000");
    const auto failure = failure_of([&] { trial.load().get("key"); });
    CHECK(failure.code() == unsupported);
    CHECK_THAT(failure.what(), Catch::Contains("standby"));
    const auto connects = trial.load().pool_statistics().connects;

    primary.stop();
    standby->promote();
    CHECK(trial.load().works());

    // Whoever only reads keeps its connections.
    CHECK(connects >= 1);
    trial.finish({unsupported, sqlstate_code("25006")});
}

TEST_CASE("Of a primary and a standby the primary is used, and the other one once promoted") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    const bool standby_first = GENERATE(true, false);
    CAPTURE(flavour, standby_first);
    PrivateServer primary;
    init_db(primary.dsn());
    const auto standby = PrivateServer::standby_of(primary);
    REQUIRE(has_caught_up(*standby, primary));
    Trial trial(flavour, primary.dsn(), CacheOptions(),
                standby_first ? both_hosts(*standby, primary) : both_hosts(primary, *standby));
    CHECK(trial.load().works());
    CHECK(trial.record().failures() == 0);
    CHECK(trial.connections() >= 1);

    trial.load().entries(Entries::vanish);
    primary.crash();
    CHECK(trial.load().fails());
    standby->promote();
    CHECK(trial.load().works());
    trial.load().entries(Entries::stay);
    CHECK(trial.load().works());

    trial.moved(standby->dsn());
    trial.finish({Errc::connect_failed, Errc::connection_lost, Errc::outcome_unknown});
}
