// The server is there, but refuses connections: too many of them, or a database that is missing.

#include <catch2/catch.hpp>
#include <future>
#include <string>

#include "faults/load.hpp"
#include "faults/role.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

TEST_CASE("A role that may have no connection is told so, and works when it may") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const Role role(schema);
    Trial trial(flavour, dsn(), schema.cache_options(), {{"user", role.name()}});
    REQUIRE(trial.load().works());

    role.alter("CONNECTION LIMIT 0");
    trial.terminate();
    CHECK(trial.load().fails());
    CHECK(trial.load().fails());
    CHECK(trial.record().count("53300") >= 1);
    role.alter("CONNECTION LIMIT -1");
    CHECK(trial.load().works());

    CHECK(make_error_code(Errc::connect_failed) == Condition::unavailable);
    CHECK(make_error_code(Errc::connect_failed) == Condition::transient);
    trial.finish({Errc::connect_failed, Errc::outcome_unknown});
}

TEST_CASE("Callers share the one connection that the server has room for") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const Role role(schema);
    role.alter("CONNECTION LIMIT 1");
    Trial trial(flavour, dsn(), schema.cache_options(), {{"user", role.name()}});
    CHECK(trial.load().works());
    CHECK(eventually([&] { return trial.load().pool_statistics().connect_failures >= 2; }));
    CHECK(trial.load().works());
    CHECK(trial.connections() == 1);
    role.alter("CONNECTION LIMIT -1");
    CHECK(eventually([&] { return trial.load().pool_statistics().open >= 2; }));
    trial.finish({});
}

TEST_CASE("A lone caller keeps the one connection that the server has room for") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const Role role(schema);
    role.alter("CONNECTION LIMIT 1");
    Trial trial(flavour, dsn(), schema.cache_options(), {{"user", role.name()}});
    CHECK(eventually([&] { return trial.connections() == 1; }));
    CHECK(eventually([&] { return trial.load().pool_statistics().connect_failures >= 1; }));
    REQUIRE(trial.load().hold());
    for (int i = 0; i < 20; ++i) {
        CHECK_FALSE(failure_of([&] { trial.load().get("absent"); }));
    }
    trial.finish({Errc::connect_failed});
}

TEST_CASE("A server without room for more connections serves those who have one") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PrivateServer server({"max_connections = 8", "superuser_reserved_connections = 3"});
    init_db(server.dsn());
    Psql admin(server.dsn());
    admin.exec("CREATE ROLE app LOGIN; GRANT ALL ON psycache TO app");
    Trial trial(flavour, server.dsn(), CacheOptions(), {{"user", "app"}});
    REQUIRE(trial.load().works());

    std::vector<Psql> others;
    const auto full = [&] {
        try {
            others.emplace_back(server.dsn({{"user", "app"}}));
            return false;
        } catch (const SqlError&) {
            return true;
        }
    };
    CHECK(eventually(full));
    const auto before = trial.record().failures();
    CHECK(trial.load().works());
    CHECK(trial.record().failures() == before);
    // Nor does it get one back that was lost while there are others who want it.
    REQUIRE(trial.load().hold());
    trial.terminate();
    // The room of a backend that ends is free a little after it is seen to have ended.
    CHECK(eventually([&] { return trial.connections() == 0; }));
    CHECK(eventually([&] {
        if (!full()) {
            return false;
        }
        std::this_thread::sleep_for(100ms);
        return full();
    }));
    trial.load().go_on();
    CHECK(trial.load().fails());
    CHECK(trial.record().count("53300") >= 1);
    others.clear();
    CHECK(trial.load().works());
    trial.finish({Errc::connect_failed});
}

TEST_CASE("A session that is ended while it begins is begun anew, and no call fails") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PrivateServer server({"autovacuum = off"});
    init_db(server.dsn());
    Psql admin(server.dsn());
    Psql observer(server.dsn());
    PoolOptions pool;
    pool.dsn = server.dsn();
    pool.acquire_timeout = patience;
    CacheOptions options;
    options.timeout = patience;
    auto cache = make_cache(flavour, options, pool);
    // Every session reads this table before it is ready for its client.
    admin.exec("BEGIN; LOCK TABLE pg_catalog.pg_db_role_setting");
    auto call = std::async(std::launch::async,
                           [&] { return failure_of([&] { cache->put("key", numbered(1), 1h); }); });
    std::string ended = "0";
    for (int i = 0; i < 3; ++i) {
        const std::string begins =
            " FROM pg_locks WHERE NOT granted AND relation = "
            "'pg_db_role_setting'::regclass AND pid <> " +
            ended;
        REQUIRE(eventually([&] { return observer.number("SELECT count(*)" + begins) == 1; }));
        ended = observer.value("SELECT pid" + begins);
        observer.exec("SELECT pg_terminate_backend(" + ended + ")");
    }
    admin.exec("COMMIT");
    CHECK_FALSE(call.get());
    CHECK(cache->get("key") == numbered(1));
}

TEST_CASE("A database that is missing is found once it is made") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PrivateServer server;
    Trial trial(flavour, server.dsn(), CacheOptions(), {{"dbname", "later"}});
    CHECK(trial.load().fails());
    CHECK(trial.record().count("3D000") >= 1);
    trial.sql().exec("CREATE DATABASE later");
    init_db(server.dsn({{"dbname", "later"}}));
    CHECK(trial.load().works());
    trial.finish({Errc::connect_failed, Errc::table_missing});
}
