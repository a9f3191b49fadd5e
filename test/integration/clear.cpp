// clear: the table is emptied, whatever its size.

#include <catch2/catch.hpp>
#include <thread>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

TEST_CASE("clear empties the table, and all else goes on to work") {
    const auto flavour = EVERY_FLAVOUR();
    const auto table = GENERATE(Table::ours, Table::tagged);
    CAPTURE(flavour, static_cast<int>(table));
    TestSchema schema(table, nasty);
    const auto cache = make_cache(flavour, schema);
    schema.insert_many("k", 100, "'infinity'");
    if (table == Table::tagged) {
        PutOptions options;
        options.tags = {"t"};
        cache->put_with("tagged", numbered(1), 1h, options);
    }

    cache->clear();

    CHECK(schema.rows() == 0);
    if (table == Table::tagged) {
        CHECK(schema.tag_rows() == 0);
        CHECK(cache->remove_tag("t") == 0);
    }
    CHECK(cache->get("k1") == std::nullopt);
    cache->put("k1", numbered(1), 1h);
    CHECK(cache->get("k1") == numbered(1));
    cache->put("expired", numbered(1), -1s);
    CHECK(cache->cleanup() == 1);
    CHECK(cache->flush() == 1);
    cache->clear();
    CHECK(schema.rows() == 0);
}

TEST_CASE("clear that waits for a transaction lets others by, and ends at its deadline") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const auto others = make_cache(Flavour::blocking, schema);
    schema.insert_many("k", 10, "'infinity'");
    Psql reader;
    reader.exec("BEGIN; SELECT count(*) FROM " + schema.table());
    const auto failure = failure_of([&] { cache->clear(CallOptions(280ms * slowness)); });
    CHECK(failure.code() == Errc::timed_out);
    CHECK_THAT(failure.what(), Catch::Contains("use the table"));
    CHECK(schema.rows() == 10);

    std::atomic<bool> cleared{false};
    std::thread clearing([&] {
        cache->clear();
        cleared = true;
    });
    Clock::duration longest{};
    for (const auto end = Clock::now() + 400ms; Clock::now() < end;) {
        const auto begun = Clock::now();
        others->get("k1");
        longest = std::max(longest, Clock::now() - begun);
        std::this_thread::sleep_for(1ms);
    }
    CHECK_FALSE(cleared);
    CHECK(longest <
          1s);  // much less than the reader's transaction takes, on a machine that is busy
    reader.exec("COMMIT");
    clearing.join();
    CHECK(schema.rows() == 0);
}

TEST_CASE("clear leaves no setting of the session behind") {
    TestSchema schema;
    asio::io_context context;
    const auto connections = std::make_shared<AppConnections>(dsn(), 1);
    AsyncPostgresCache cache(connections->pool(context.get_executor()), schema.cache_options());
    run_coro(context, cache.clear());
    PostgresCache blocking(connections->pool(), schema.cache_options());
    blocking.clear();
    PGconn* const own = connections->try_take();
    PGresult* const result = PQexec(own, "SHOW lock_timeout");
    CHECK(std::string(PQgetvalue(result, 0, 0)) == "0");
    PQclear(result);
    connections->give_back(own);
}

TEST_CASE("clear says which privilege the role lacks, and what does without it") {
    TestSchema schema(Table::tagged);
    const auto role = unique_name("role");
    schema.sql().exec("CREATE ROLE " + role + " LOGIN; GRANT USAGE ON SCHEMA " + schema.quoted() +
                      " TO " + role + "; GRANT SELECT, INSERT, UPDATE, DELETE ON " +
                      schema.table() + ", " + schema.tags() + " TO " + role);
    PoolOptions pool;
    pool.dsn = dsn_with({{"user", role}});
    {
        const auto cache = make_cache(Flavour::blocking, schema.cache_options(), pool);
        const auto failure = failure_of([&] { cache->clear(); });
        CHECK(failure.code() == Errc::permission_denied);
        CHECK_THAT(failure.what(), Catch::Contains("TRUNCATE") && Catch::Contains("flush"));
        PutOptions options;
        options.tags = {"t"};
        cache->put_with("key", numbered(1), 1h, options);
        CHECK(cache->remove_tag("t") == 1);
        // A role that may not write the tags leaves them to others.
        schema.sql().exec("REVOKE ALL ON " + schema.tags() + " FROM " + role);
        CHECK(cache->cleanup() == 0);
        const auto refused = failure_of([&] { cache->put_with("key", numbered(1), 1h, options); });
        CHECK(refused.code() == Errc::permission_denied);
        CHECK_THAT(refused.what(), Catch::Contains("psycache_tags"));
    }
    schema.sql().exec("DROP OWNED BY " + role + "; DROP ROLE " + role);
}
