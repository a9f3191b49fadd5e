// An old primary that comes back though another one was promoted: nobody has shut it off, and what
// it answers is stale.

#include <catch2/catch.hpp>
#include <future>

#include "support/both.hpp"
#include "support/private_server.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// A pool of both, the standby or the primary first.
PoolOptions pool_of(const PrivateServer& first, const PrivateServer& second) {
    PoolOptions pool;
    pool.dsn = first.dsn({{"host", first.folder() + "," + second.folder()},
                          {"port", first.port() + "," + second.port()},
                          {"target_session_attrs", "read-write"}});
    pool.connect_timeout = 1s * slowness;
    pool.acquire_timeout = 2s * slowness;
    return pool;
}

TableOptions logged() {
    TableOptions options;
    options.unlogged = false;
    return options;
}

}  // namespace

TEST_CASE("A pool of several hosts answers from no old primary once it has seen the new one") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PrivateServer primary;
    init_db(primary.dsn());
    const auto standby = PrivateServer::standby_of(primary);
    // The old one is asked first, every time.
    PoolOptions pool = pool_of(primary, *standby);
    pool.max_lifetime = 50ms;
    CacheOptions options;
    options.timeout = 3s * slowness;
    const auto cache = make_cache(flavour, options, pool);
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));

    primary.freeze();
    standby->promote();
    const auto stored = [&] { return !failure_of([&] { cache->put("key", numbered(2), 1h); }); };
    REQUIRE(eventually(stored));
    primary.thaw();
    REQUIRE(Psql(primary.dsn()).truth("SELECT NOT pg_is_in_recovery()"));
    const auto before =
        Psql(standby->dsn()).number("SELECT sum(numbackends) FROM pg_stat_database");
    CHECK(before > 0);
    std::size_t answers = 0;
    std::size_t stale = 0;
    const auto end = Clock::now() + 2s;
    while (Clock::now() < end) {
        std::optional<json::object> value;
        const auto failure = failure_of([&] { value = cache->get("key"); });
        if (!failure) {
            ++answers;
            stale += value == numbered(2) ? 0 : 1;
        }
    }
    CHECK(answers > 20);
    CHECK(stale == 0);

    // It stays so when the new one goes: an outage rather than a wrong answer.
    standby->stop();
    const auto refused = [&] {
        const auto failure = failure_of([&] { cache->get("key"); });
        return std::string(failure.what()).find("old primary") != std::string::npos;
    };
    CHECK(eventually(refused));
    standby->start();
    CHECK(eventually([&] { return !failure_of([&] { cache->get("key"); }); }));
}

TEST_CASE("What an old primary still answers counts for nothing once the new one has been seen") {
    if (!PrivateServer::available()) {
        return;
    }
    const bool replay_writes = GENERATE(false, true);
    CAPTURE(replay_writes);
    PrivateServer primary;
    init_db(primary.dsn(), logged());
    const auto standby = PrivateServer::standby_of(primary);
    CacheOptions options;
    options.timeout = 20s * slowness;
    options.replay_writes = replay_writes;
    // Two caches, each of which has one connection to the old primary, and may open another.
    PoolOptions pool = pool_of(*standby, primary);
    pool.max_size = 2;
    PostgresCache reader(pool, options);
    PostgresCache writer(pool, options);
    reader.put_raw("key", numbered(1), 1h);
    writer.put_raw("key", numbered(2), 1h);
    CHECK(eventually([&] {
        return Psql(standby->dsn())
                   .exec("SELECT 1 FROM psycache WHERE value = '{\"n\": 2}'")
                   .size() == 1;
    }));

    std::vector<pid_t> backends;
    for (const auto& row : Psql(primary.dsn())
                               .exec("SELECT pid FROM pg_stat_activity WHERE backend_type = "
                                     "'client backend' AND pid <> "
                                     "pg_backend_pid()")) {
        backends.push_back(std::stoi(row[0]));
        PrivateServer::freeze(backends.back());
    }
    REQUIRE(backends.size() == 2);
    auto reading = std::async(std::launch::async, [&] { return reader.get_raw("key"); });
    auto writing = std::async(std::launch::async, [&] {
        return failure_of([&] { writer.put_raw("key", numbered(3), 1h); });
    });
    REQUIRE(eventually([&] {
        return reader.statistics().statements == 2 && writer.statistics().statements == 2;
    }));
    standby->promote();
    Psql(standby->dsn()).exec("UPDATE psycache SET value = '{\"n\": 4}'");
    CHECK(reader.get_raw("key") == numbered(4));
    CHECK(writer.get_raw("key") == numbered(4));

    for (const pid_t backend : backends) {
        PrivateServer::thaw(backend);
    }
    const auto read = reading.get();
    // The write that is sent again may be quicker than the read that is.
    CHECK((read == numbered(4) || (replay_writes && read == numbered(3))));
    const Failure failed = writing.get();
    if (replay_writes) {
        CHECK(!failed);
        CHECK(reader.get_raw("key") == numbered(3));
    } else {
        CHECK(failed.code() == Errc::outcome_unknown);
        CHECK(reader.get_raw("key") == numbered(4));
    }
}

TEST_CASE("A host that is lost while it is asked for its timeline is named with its reason") {
    const auto [what, reason] = GENERATE(table<std::string, std::string>(
        {{"pg_terminate_backend(pg_backend_pid())", "the connection was lost"},
         {"pg_sleep(600) IS NULL", "it did not answer in time"}}));
    CAPTURE(what);
    TestSchema schema(Table::none);
    schema.sql().exec("CREATE FUNCTION " + schema.quoted() +
                      ".pg_control_system(OUT system_identifier bigint, OUT done bool) LANGUAGE "
                      "SQL AS 'SELECT 1::bigint, " +
                      what + "'");
    const std::string host = PQhost(schema.sql().native());
    const std::string port = PQport(schema.sql().native());
    PoolOptions pool;
    pool.dsn = dsn_with({{"host", host + ",127.0.0.1"},
                         {"port", port + ",1"},
                         {"options", "-csearch_path=" + schema.name() + ",pg_catalog"}});
    pool.connect_timeout = 1s * slowness;
    pool.acquire_timeout = 2s * slowness;
    PostgresCache cache(pool);
    const Failure failure = failure_of([&] { cache.get_raw("key"); });
    INFO(failure.what());
    CHECK(failure.code() == Errc::connect_failed);
    CHECK_THAT(failure.what(),
               Catch::Contains("host \"" + host + "\" port " + port + ": " + reason));
    CHECK_THAT(failure.what(), Catch::Contains("port 1 failed: "));
}
