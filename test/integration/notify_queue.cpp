// A session that listens, and stays in a transaction, lets the server's queue of notifications
// fill.

#include <catch2/catch.hpp>
#include <string>

#include "support/both.hpp"
#include "support/private_server.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

TEST_CASE("While the queue of notifications is full nothing is changed, and nothing is too old") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PrivateServer server;
    if (Psql(server.dsn()).number("SHOW server_version_num") < 170000) {
        WARN("Only from PostgreSQL 17 on can the queue be made so small that a test can fill it");
        return;
    }
    server.configure("max_notify_queue_pages = 64");
    server.restart();
    TableOptions table;
    table.notify = true;
    init_db(server.dsn(), table);
    PoolOptions pool;
    pool.dsn = server.dsn();
    CacheOptions options;
    options.near_cache.emplace();
    options.near_cache->max_staleness = 400ms * slowness;
    const auto cache = make_cache(flavour, options, pool);
    const auto kept = [&] {
        const auto value = cache->get_shared("key");
        return value != nullptr && cache->peek("key") == value;
    };
    cache->put("key", numbered(1), 1h);
    REQUIRE(eventually(kept));

    Psql deaf(server.dsn());
    deaf.exec("LISTEN something");
    deaf.exec("BEGIN");
    Psql writer(server.dsn());
    const auto full = [&] {
        try {
            writer.exec(
                "SELECT count(pg_notify('something', repeat('-', 7000) || i)) FROM "
                "generate_series(1, 20) AS i");
            return false;
        } catch (const SqlError& error) {
            return error.sqlstate() == "54000";
        }
    };
    REQUIRE(eventually(full));

    // An entry that is new is no change: nothing could be too old.
    cache->put("new", numbered(1), 1h);
    for (const auto& failure :
         {failure_of([&] { cache->put("key", numbered(2), 1h); }),
          failure_of([&] { cache->remove("key"); }), failure_of([&] {
              cache->put_many({{"newer", numbered(2), 1h}, {"key", numbered(2), 1h}});
          })}) {
        CHECK(failure.code() == sqlstate_code("54000"));
        CHECK_THAT(failure.what(), Catch::Contains("queue of notifications is full"));
    }
    CHECK(cache->get("key") == numbered(1));
    // Without a notification that comes back nothing is known.
    CHECK(eventually([&] { return cache->peek("key") == nullptr; }));
    CHECK(*cache->get_shared("key") == numbered(1));

    deaf.exec("COMMIT");
    CHECK(eventually([&] { return !failure_of([&] { cache->put("key", numbered(3), 1h); }); }));
    CHECK(*cache->get_shared("key") == numbered(3));
    CHECK(eventually(kept));
    writer.exec("UPDATE psycache SET value = '{\"n\": 4}' WHERE key = 'key'");
    CHECK(eventually([&] { return *cache->get_shared("key") == numbered(4); }));
    CHECK(eventually(kept));
}
