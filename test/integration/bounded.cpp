// A table that is to hold no more than so much: what goes, how much of it, and who does it.

#include <catch2/catch.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/both.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// Stores entries "1" to @p count, each of which expires a second after the one before it, and
/// waits until the server's statistics know of them, which no vacuum changes then.
void fill(TestSchema& schema, int count, const std::string& value = "'{}'") {
    schema.sql().exec("ALTER TABLE " + schema.table() + " SET (autovacuum_enabled = off)");
    Psql(dsn()).exec("INSERT INTO " + schema.table() + " SELECT i::text, " + value +
                     ", now() + interval '1 hour' + i * interval '1 second'"
                     " FROM generate_series(1, " +
                     std::to_string(count) + ") AS i");
    REQUIRE(eventually([&] {
        return Psql(dsn()).number("SELECT pg_stat_get_live_tuples(" +
                                  quote_literal(schema.table()) + "::regclass)") == count;
    }));
}

CacheOptions bounded(const TestSchema& schema, std::uint64_t entries) {
    CacheOptions options = schema.cache_options();
    options.max_entries = entries;
    return options;
}

}  // namespace

TEST_CASE("A cleanup leaves as many entries as there may be, those that expire last") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    fill(schema, 3500);
    schema.insert_many("dead", 10, "'-infinity'");
    schema.insert_many("endless", 2, "'infinity'");
    const auto cache = make_cache(flavour, bounded(schema, 1000), server_pool());
    const auto gone = cache->cleanup();
    CHECK(schema.rows("key LIKE 'dead%'") == 0);
    CHECK(schema.rows("key LIKE 'endless%'") == 2);
    // The last few may have been put after the statistics were read.
    const auto left = schema.rows();
    CHECK(left >= 1000);
    CHECK(left <= 1012);
    CHECK(gone == 3512 - static_cast<std::uint64_t>(left));
    CHECK(cache->statistics().evictions == gone - 10);
    CHECK(schema.rows("key NOT LIKE 'endless%' AND key::int <= " +
                      std::to_string(3500 - left + 2)) == 0);

    // It knows what it has deleted itself.
    CHECK(cache->cleanup() <= static_cast<std::uint64_t>(left) - 1000);
    CHECK(schema.rows() >= 1000);
    cache->put("new", numbered(1), 1s);
    CHECK(cache->get("new") == numbered(1));
}

TEST_CASE("A cleanup leaves as many bytes as there may be") {
    TestSchema schema;
    // 960 bytes that cannot be compressed, and 19 kB that are stored out of line.
    fill(schema, 1000,
         "jsonb_build_object('t', (SELECT string_agg(md5(random()::text || i || j), '')"
         " FROM generate_series(1, CASE WHEN i % 100 = 0 THEN 600 ELSE 30 END) AS j))");
    const auto stored = [&] {
        return schema.sql().number(
            "SELECT sum(44 + pg_column_size(key) + pg_column_size(value)) FROM " + schema.table());
    };
    const auto before = stored();
    auto options = schema.cache_options();
    options.max_bytes = static_cast<std::uint64_t>(before / 2);
    PostgresCache cache(server_pool(), options);
    CHECK(cache.cleanup_expired() > 0);
    const auto after = stored();
    CHECK(after <= before * 6 / 10);
    CHECK(after >= before * 4 / 10);
    CHECK(schema.rows("key = '1000'") == 1);
    CHECK(schema.rows("key = '1'") == 0);
}

TEST_CASE("Nothing is deleted where there is room, or no limit") {
    TestSchema schema;
    fill(schema, 50);
    PostgresCache roomy(server_pool(), bounded(schema, 60));
    CHECK(roomy.cleanup_expired() == 0);
    PostgresCache endless(server_pool(), schema.cache_options());
    CHECK(endless.cleanup_expired() == 0);
    CHECK(schema.rows() == 50);
    CHECK(roomy.statistics().evictions == 0);
}

TEST_CASE("What others hold is not waited for, and one cleaner works at a time") {
    TestSchema schema;
    fill(schema, 100);
    PostgresCache cache(server_pool(), bounded(schema, 50));
    Psql other(dsn());
    const std::string lock = "pg_advisory_xact_lock(1886615905, " + quote_literal(schema.table()) +
                             "::regclass::oid::int)";
    other.exec("BEGIN; SELECT " + lock);
    CHECK(cache.cleanup_expired() == 0);
    other.exec("ROLLBACK; BEGIN; SELECT FROM " + schema.table() +
               " WHERE key::int <= 20 FOR UPDATE");
    CHECK(cache.cleanup_expired() == 50);
    CHECK(schema.rows("key::int <= 20") == 20);
    CHECK(schema.rows("key::int BETWEEN 21 AND 70") == 0);
    other.exec("ROLLBACK");
}

TEST_CASE("What several cleaners delete at once is not more than what is too much") {
    TestSchema schema;
    fill(schema, 6000);
    std::vector<std::unique_ptr<PostgresCache>> caches;
    for (int i = 0; i < 4; ++i) {
        caches.push_back(std::make_unique<PostgresCache>(server_pool(), bounded(schema, 1000)));
    }
    std::vector<std::thread> threads;
    for (const auto& cache : caches) {
        threads.emplace_back([&] {
            for (int i = 0; i < 5; ++i) {
                cache->cleanup_expired();
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    // Should one be so slow to show what it did that another deletes as much.
    CHECK(schema.rows() >= 600);
    std::uint64_t evicted = 0;
    for (const auto& cache : caches) {
        evicted += cache->statistics().evictions;
    }
    CHECK(schema.rows() == 6000 - static_cast<std::int64_t>(evicted));
}

TEST_CASE("A near cache knows what its own cleanup has deleted") {
    TestSchema schema;
    fill(schema, 20);
    auto options = bounded(schema, 10);
    options.near_cache.emplace();
    options.near_cache->invalidation = Invalidation::none;
    PostgresCache cache(server_pool(), options);
    CHECK(cache.get_shared("1") != nullptr);
    CHECK(cache.get_shared("1") != nullptr);
    CHECK(cache.cleanup_expired() == 10);
    CHECK(cache.get_shared("1") == nullptr);
    CHECK(cache.get_shared("20") != nullptr);
}

TEST_CASE("A table that cannot be bounded is complained of once") {
    const bool view = GENERATE(false, true);
    CAPTURE(view);
    TestSchema schema(view ? Table::ours : Table::none);
    auto& sql = schema.sql();
    if (view) {
        sql.exec("ALTER TABLE " + schema.table() + " RENAME TO stored");
        sql.exec("CREATE VIEW " + schema.table() + " AS SELECT key, value, expires_at FROM " +
                 schema.quoted() + ".stored");
    } else {
        sql.exec("CREATE TABLE " + schema.table() +
                 " (key text PRIMARY KEY, value jsonb NOT NULL, expires_at timestamptz NOT NULL)"
                 " PARTITION BY HASH (key)");
        sql.exec("CREATE TABLE " + schema.quoted() + ".part PARTITION OF " + schema.table() +
                 " FOR VALUES WITH (MODULUS 1, REMAINDER 0)");
    }
    schema.insert_many("alive", 10, "now() + interval '1 hour'");
    schema.insert_many("dead", 10, "'-infinity'");
    auto options = bounded(schema, 5);
    options.max_bytes = 100;
    LogCapture log;
    options.log = log.sink();
    PostgresCache cache(server_pool(), options);
    CHECK(cache.cleanup_expired() == 10);
    CHECK(cache.cleanup_expired() == 0);
    CHECK(schema.rows() == 10);
    CHECK(log.journal().count("max_entries and max_bytes are not kept") == 1);
}

TEST_CASE("A cleanup loop keeps a table small while it is written to") {
    TestSchema schema;
    auto options = bounded(schema, 200);
    PostgresCache cache(server_pool(1), options);
    CleanupService service = cache.start_cleanup_thread(20ms);
    int puts = 0;
    CHECK(eventually([&] {
        // Before PostgreSQL 15 what a session has put shows when it does something more, and a
        // cleaner deletes some hundreds a second.
        std::vector<Entry> entries{{"last", numbered(1), 1h}};
        for (int i = 0; i < 100 && schema.rows() < 1500; ++i) {
            ++puts;
            entries.push_back({"key " + std::to_string(puts), numbered(puts), 1h});
        }
        cache.put_raw_many(entries);
        return cache.statistics().evictions > 1000;
    }));
    CHECK(eventually([&] {
        cache.put_raw("last", numbered(1), 1h);
        return schema.rows() <= 300;
    }));
    service.stop();
}
