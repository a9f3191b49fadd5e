// What every call does, over every way to have a cache.

#include <catch2/catch.hpp>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

TEST_CASE("A value that was put is found again") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const auto value = object(R"({"name": "Ada", "tags": ["a", null, true], "deep": {"n": 1.5}})");

    cache->put("key", value, 1h);

    CHECK(cache->get("key") == value);
    CHECK(schema.rows() == 1);
    CHECK(schema.rows("key = 'key'") == 1);
}

TEST_CASE("A key that was never put is a miss") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put("other", numbered(1), 1h);

    CHECK(cache->get("key") == std::nullopt);
    CHECK(cache->get("Other") == std::nullopt);
    CHECK(cache->get("other ") == std::nullopt);
}

TEST_CASE("An expired entry is a miss, although its row is still there") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put("key", numbered(1), 1h);
    REQUIRE(cache->get("key") == numbered(1));

    schema.expire("key");

    CHECK(cache->get("key") == std::nullopt);
    CHECK(schema.has("key"));
}

TEST_CASE("An entry expires by itself when its ttl has passed, and not before") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put("key", numbered(1), 400ms);

    int misses = 0;
    int early = 0;
    const auto expired = [&] {
        const bool live_after = [&] {
            const bool hit = cache->get("key").has_value();
            const bool live = schema.expires_in("key") > 0;
            misses += hit ? 0 : 1;
            early += !hit && live ? 1 : 0;
            return hit || live;
        }();
        return !live_after;
    };
    CHECK(eventually(expired));
    CHECK(early == 0);
    CHECK(misses == 1);
    CHECK(schema.has("key"));
}

TEST_CASE("A second put replaces the value and the expiry") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);

    cache->put("key", object(R"({"a": 1, "b": 2})"), 1h);
    cache->put("key", object(R"({"c": 3})"), 3h);
    CHECK(cache->get("key") == object(R"({"c": 3})"));
    CHECK(schema.expires_in("key") == Approx(3 * 3600).margin(60));

    cache->put("key", numbered(4), 2h);
    CHECK(schema.expires_in("key") == Approx(2 * 3600).margin(60));

    cache->put("key", numbered(5), -1s);
    CHECK(cache->get("key") == std::nullopt);

    cache->put("key", numbered(6), 1h);
    CHECK(cache->get("key") == numbered(6));
    CHECK(schema.rows() == 1);
}

TEST_CASE("A put replaces an expired entry") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    schema.insert("key", R"({"old": true})", "now() - interval '1 day'");

    cache->put("key", numbered(1), 1h);

    CHECK(cache->get("key") == numbered(1));
    CHECK(schema.expires_in("key") == Approx(3600).margin(60));
}

TEST_CASE("A ttl of zero or less stores an entry that is expired already") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const auto ttl = GENERATE(Duration(0), Duration(-1), Duration(-1s), Duration(-100 * 24h));
    CAPTURE(ttl.count());

    cache->put("key", numbered(1), ttl);

    CHECK(schema.has("key"));
    CHECK(schema.expires_in("key") <= 0);
    CHECK(schema.expires_in("key") == Approx(static_cast<double>(ttl.count()) / 1e6).margin(60));
    CHECK(cache->get("key") == std::nullopt);
}

TEST_CASE("An entry without expiry is stored as infinity") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);

    cache->put("key", numbered(1), no_expiry);

    CHECK(schema.rows("expires_at = 'infinity'") == 1);
    CHECK(cache->get("key") == numbered(1));
    CHECK(cache->cleanup() == 0);
    cache->put("key", numbered(2), 1h);
    CHECK(schema.rows("expires_at < 'infinity'") == 1);
    cache->put("key", numbered(3), no_expiry);
    CHECK(schema.rows("expires_at = 'infinity'") == 1);
}

TEST_CASE("Expiry is the ttl counted from the statement by the server's clock") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const auto ttl = GENERATE(Duration(1), Duration(1ms), Duration(123456789), Duration(1h),
                              Duration(365 * 24h));
    CAPTURE(ttl.count());

    const auto before = schema.sql().value("SELECT clock_timestamp()");
    cache->put("key", numbered(1), ttl);
    const auto after = schema.sql().value("SELECT clock_timestamp()");

    const auto start =
        "expires_at - " + std::to_string(ttl.count()) + " * interval '1 microsecond'";
    INFO(before << " .. " << schema.sql().value("SELECT " + start + " FROM " + schema.table())
                << " .. " << after);
    CHECK(schema.rows(start + " BETWEEN '" + before + "' AND '" + after + "'") == 1);
}

TEST_CASE("Remove tells whether there was an entry, live or expired") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put("live", numbered(1), 1h);
    cache->put("expired", numbered(2), -1s);
    cache->put("other", numbered(3), 1h);

    CHECK_FALSE(cache->remove("absent"));
    CHECK(cache->remove("live"));
    CHECK_FALSE(cache->remove("live"));
    CHECK(cache->get("live") == std::nullopt);
    CHECK(cache->remove("expired"));
    CHECK_FALSE(cache->remove("expired"));

    CHECK(schema.rows() == 1);
    CHECK(cache->get("other") == numbered(3));
}

TEST_CASE("Cleanup deletes what has expired, tells how many, and leaves live entries") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    CHECK(cache->cleanup() == 0);
    cache->put("live", numbered(1), 1h);
    cache->put("for ever", numbered(2), no_expiry);
    cache->put("expired 1", numbered(3), -1s);
    cache->put("expired 2", numbered(4), 0s);
    schema.insert("expired 3", "{}", "'-infinity'");

    CHECK(cache->cleanup() == 3);
    CHECK(cache->cleanup() == 0);
    CHECK(schema.rows() == 2);
    CHECK(cache->get("live") == numbered(1));
    CHECK(cache->get("for ever") == numbered(2));
}

TEST_CASE("Cleanup of more than one batch deletes everything that has expired") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(GENERATE(Table::ours, Table::python, Table::python_without_index));
    const auto cache = make_cache(flavour, schema);
    schema.insert_many("live", 50, "now() + interval '1 hour'");
    schema.insert_many("expired", 3500, "now() - interval '1 hour'");

    CHECK(cache->cleanup() == 3500);
    CHECK(schema.rows() == 50);
    CHECK(schema.rows("starts_with(key, 'live')") == 50);
}

TEST_CASE("Cleanup skips rows that another session holds, and does not wait for them") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    schema.insert_many("expired", 1200, "now() - interval '1 hour'");
    schema.insert_many("held", 5, "now() - interval '1 hour'");
    Psql other;
    other.exec("BEGIN; SELECT FROM " + schema.table() +
               " WHERE starts_with(key, 'held') FOR UPDATE");

    const auto started = Clock::now();
    CHECK(cache->cleanup() == 1200);
    CHECK(Clock::now() - started < 4s);
    CHECK(schema.rows() == 5);

    other.exec("COMMIT");
    CHECK(cache->cleanup() == 5);
}

TEST_CASE("Cleanup leaves a row that is being renewed") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    schema.insert("renewed", R"({"n": 1})", "now() - interval '1 hour'");
    Psql other;
    other.exec("BEGIN; UPDATE " + schema.table() + " SET expires_at = now() + interval '1 hour'");

    CHECK(cache->cleanup() == 0);
    other.exec("COMMIT");
    CHECK(cache->cleanup() == 0);
    CHECK(cache->get("renewed") == numbered(1));
}

TEST_CASE("Two cleaners at once delete every expired row once") {
    TestSchema schema;
    schema.insert_many("expired", 6000, "now() - interval '1 hour'");
    schema.insert_many("live", 10, "now() + interval '1 hour'");
    PostgresCache first(server_pool(), schema.cache_options());
    std::uint64_t deleted_by_first = 0;
    Failure failure_of_first;
    std::thread thread([&] {
        failure_of_first = failure_of([&] { deleted_by_first = first.cleanup_expired(); });
    });
    std::uint64_t deleted_by_second = 0;
    const auto failure_of_second =
        failure_of([&] { deleted_by_second = make_cache(Flavour::async, schema)->cleanup(); });
    thread.join();

    CHECK_FALSE(failure_of_first);
    CHECK_FALSE(failure_of_second);
    const auto left = static_cast<std::uint64_t>(schema.rows("expires_at < now()"));
    CHECK(deleted_by_first + deleted_by_second + left == 6000);
    CHECK(left + first.cleanup_expired() == 2 * left);
    CHECK(schema.rows() == 10);
}

TEST_CASE("Flush deletes all entries, live and expired, and tells how many") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    CHECK(cache->flush() == 0);
    cache->put("live", numbered(1), 1h);
    cache->put("expired", numbered(2), -1s);
    cache->put("for ever", numbered(3), no_expiry);
    schema.insert_many("more", 2500, "now() + interval '1 hour'");

    CHECK(cache->flush() == 2503);
    CHECK(schema.rows() == 0);
    CHECK(cache->get("live") == std::nullopt);
    CHECK(cache->flush() == 0);
    cache->put("live", numbered(4), 1h);
    CHECK(cache->get("live") == numbered(4));
}

TEST_CASE("Caches of different schemas do not see each other") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema_a;
    TestSchema schema_b(Table::ours, nasty);
    const auto a = make_cache(flavour, schema_a);
    const auto b = make_cache(flavour, schema_b);

    a->put("key", numbered(1), 1h);
    CHECK(b->get("key") == std::nullopt);
    b->put("key", numbered(2), 1h);
    CHECK(a->get("key") == numbered(1));
    CHECK(b->get("key") == numbered(2));
    CHECK(a->flush() == 1);
    CHECK_FALSE(a->remove("key"));
    CHECK(b->cleanup() == 0);
    CHECK(b->get("key") == numbered(2));
    CHECK(b->remove("key"));
}

TEST_CASE("Without a schema a cache uses the default schema of its connections") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::ours, GENERATE(std::string_view(), nasty));
    PoolOptions pool;
    pool.dsn = schema.default_schema_dsn();
    const auto cache = make_cache(flavour, CacheOptions(), pool);

    cache->put("key", numbered(1), 1h);
    CHECK(schema.has("key"));
    CHECK(cache->get("key") == numbered(1));
    CHECK(cache->cleanup() == 0);
    CHECK(cache->remove("key"));
    CHECK(cache->flush() == 0);
    CHECK(schema.rows() == 0);
}

TEST_CASE("A cache counts what it did") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put("key", numbered(1), 1h);
    cache->put("key", numbered(2), 1h);
    cache->get("key");
    cache->get("key");
    cache->get("key");
    cache->get("absent");
    cache->remove("key");
    CHECK(failure_of([&] { cache->get(std::string(1, '\0')); }).code() == Errc::invalid_key);

    const auto statistics = cache->statistics();
    CHECK(statistics.puts == 2);
    CHECK(statistics.hits == 3);
    CHECK(statistics.misses == 1);
    CHECK(statistics.removes == 1);
    CHECK(statistics.errors == 1);
    CHECK(statistics.timeouts == 0);
    CHECK(statistics.cancelled == 0);
    CHECK(statistics.outage_misses == 0);
    CHECK(statistics.dropped_writes == 0);
    CHECK(statistics.retries == 0);
    CHECK(statistics.queued == 0);
    CHECK(statistics.statements == 7);
}

TEST_CASE("Calls that wait for locked rows do not hold up those for other rows") {
    TestSchema schema;
    asio::io_context context;
    auto options = schema.cache_options();
    options.timeout = 20s;
    AsyncPostgresCache cache(context.get_executor(), server_pool(4), options);
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.put_raw("locked1", numbered(1), 1h);
        co_await cache.put_raw("locked2", numbered(1), 1h);
        co_await cache.put_raw("free", numbered(1), 1h);
        Psql holder;
        holder.exec("BEGIN; SELECT 1 FROM " + schema.table() +
                    " WHERE key LIKE 'locked%' FOR UPDATE");
        auto first = start(context.get_executor(), cache.put_raw("locked1", numbered(2), 1h));
        auto second = start(context.get_executor(), cache.put_raw("locked2", numbered(2), 1h));
        const auto both_wait = [&] { return cache.statistics().queued == 2; };
        const bool as_expected = co_await until(both_wait);
        REQUIRE(as_expected);
        const auto begin = Clock::now();
        for (int i = 0; i < 10; ++i) {
            co_await cache.put_raw("free", numbered(i), 1h);
            const auto value = co_await cache.get_raw("free");
            CHECK(value == numbered(i));
        }
        CHECK(Clock::now() - begin < 5s);
        holder.exec("COMMIT");
        co_await first.get();
        co_await second.get();
    });
}
