// remove_prefix: the entries whose keys begin alike.

#include <catch2/catch.hpp>
#include <thread>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

std::string keys_of(TestSchema& schema) {
    return schema.sql().value(
        "SELECT coalesce(string_agg(key, ' ' ORDER BY key COLLATE \"C\"), '') FROM " +
        schema.table());
}

}  // namespace

TEST_CASE("remove_prefix removes what begins so, byte by byte, live and expired") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::ours, nasty);
    const auto cache = make_cache(flavour, schema);
    for (const std::string key :
         {"user:1", "user:2", "user:", "user", "USER:1", "xuser:1", "\xC3\xA9t\xC3\xA9", "e"}) {
        cache->put(key, numbered(1), 1h);
    }
    cache->put("user:3", numbered(1), -1s);

    CHECK(cache->remove_prefix("user:") == 4);
    CHECK(keys_of(schema) == "USER:1 e user xuser:1 \xC3\xA9t\xC3\xA9");
    CHECK(cache->remove_prefix("user:") == 0);
    CHECK(cache->remove_prefix("\xC3\xA9") == 1);
    CHECK(cache->remove_prefix("U") == 1);
    CHECK(keys_of(schema) == "e user xuser:1");
    CHECK(cache->statistics().removes == 6);
}

TEST_CASE("Wildcards of LIKE are letters in a prefix") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    for (const std::string key : {"a%b", "aXb", "a_c", "aYc", "a\\d", "a\\\\e", "\\", "%", "_x"}) {
        cache->put(key, numbered(1), 1h);
    }
    CHECK(cache->remove_prefix("a%") == 1);
    CHECK(cache->remove_prefix("a_") == 1);
    CHECK(cache->remove_prefix("a\\\\") == 1);
    CHECK(cache->remove_prefix("a\\") == 1);
    CHECK(cache->remove_prefix("\\") == 1);
    CHECK(cache->remove_prefix("_") == 1);
    CHECK(cache->remove_prefix("%") == 1);
    CHECK(keys_of(schema) == "aXb aYc");
}

TEST_CASE("A prefix is compared byte by byte under every collation, with and without an index") {
    TestSchema schema;
    const auto cache = make_cache(Flavour::blocking, schema);
    const bool icu =
        schema.sql().truth("SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'de-x-icu')");
    for (const std::string collation : {"C", icu ? "de-x-icu" : "C", icu ? "da-x-icu" : "C"}) {
        CAPTURE(collation);
        schema.sql().exec("ALTER TABLE " + schema.table() + " ALTER key TYPE text COLLATE \"" +
                          collation + "\"");
        for (const bool index : {false, true}) {
            if (index) {
                schema.sql().exec("CREATE INDEX by_prefix ON " + schema.table() +
                                  " (key text_pattern_ops)");
            }
            // "aa" is one letter in Danish, and hyphens count last in ICU.
            for (const std::string key : {"aa", "aab", "a", "a-b", "ab", "Aa", "\xC3\xA5"}) {
                cache->put(key, numbered(1), 1h);
            }
            schema.insert_many("aa", 1500, "'infinity'");
            schema.insert_many("b", 3000, "'infinity'");
            schema.sql().exec("ANALYZE " + schema.table());
            CHECK(cache->remove_prefix("aa") == 1502);
            CHECK(cache->remove_prefix("a-") == 1);
            CHECK(cache->remove_prefix("b") == 3000);
            CHECK(keys_of(schema) == "Aa a ab \xC3\xA5");
        }
        schema.sql().exec("DROP INDEX " + schema.quoted() + ".by_prefix");
    }
}

TEST_CASE("A prefix is checked before anything is sent") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put("key", numbered(1), 1h);
    const auto empty = failure_of([&] { cache->remove_prefix(""); });
    CHECK(empty.code() == Errc::invalid_key);
    CHECK_THAT(empty.what(), Catch::Contains("clear") && Catch::Contains("flush"));
    CHECK(failure_of([&] { cache->remove_prefix(std::string("a\0", 2)); }).code() ==
          Errc::invalid_key);
    CHECK(failure_of([&] { cache->remove_prefix("\xff"); }).code() == Errc::invalid_key);
    CHECK_THROWS_AS(cache->remove_prefix("k", CallOptions(Duration(0))), std::invalid_argument);
    CHECK(schema.rows() == 1);
    CHECK(cache->remove_prefix(std::string(100'000, 'k')) == 0);
}

TEST_CASE("remove_prefix waits for rows that others have locked, without a lock of its own") {
    const auto flavour = EVERY_FLAVOUR();
    const bool all = GENERATE(false, true);
    CAPTURE(flavour, all);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    schema.insert_many("k", 2500, "'infinity'");
    Psql other;
    other.exec("BEGIN; UPDATE " + schema.table() + " SET value = '[]'" +
               (all ? "" : " WHERE key IN ('k7', 'k1200')"));
    const auto failure = failure_of([&] { cache->remove_prefix("k", CallOptions(250ms)); });
    CHECK(failure.code() == Errc::timed_out);
    CHECK_THAT(failure.what(), Catch::Contains("locked"));
    // What is free goes nevertheless, as far as there was time.
    CHECK(eventually([&] {
        failure_of([&] { cache->remove_prefix("k", CallOptions(100ms)); });
        return schema.rows() == (all ? 2500 : 2);
    }));
    std::thread release([&] {
        std::this_thread::sleep_for(60ms);
        other.exec("COMMIT");
    });
    CHECK(cache->remove_prefix("k") == (all ? 2500u : 2u));
    release.join();
    CHECK(schema.rows() == 0);
}

TEST_CASE("remove_prefix comes to its end while others go on to put") {
    TestSchema schema;
    const auto cache = make_cache(Flavour::async, schema);
    std::atomic<bool> stop{false};
    std::vector<std::thread> writers;
    for (int writer = 0; writer < 3; ++writer) {
        writers.emplace_back([&] {
            const auto own = make_cache(Flavour::blocking, schema);
            for (int i = 0; !stop; ++i) {
                own->put("k" + std::to_string(i % 10), numbered(i), 1h);
            }
        });
    }
    for (int i = 0; i < 20; ++i) {
        CHECK_NOTHROW(cache->remove_prefix("k", CallOptions(10s)));
    }
    stop = true;
    for (auto& writer : writers) {
        writer.join();
    }
}

TEST_CASE("On a view, whose rows have no place, a prefix is removed too") {
    TestSchema schema;
    schema.sql().exec("ALTER TABLE " + schema.table() + " RENAME TO kept; CREATE VIEW " +
                      schema.table() + " AS SELECT * FROM " + schema.quoted() + ".kept");
    schema.insert_many("k", 1500, "'infinity'");
    schema.insert_many("x", 2, "'infinity'");
    CHECK(make_cache(Flavour::blocking, schema)->remove_prefix("k") == 1500);
    CHECK(schema.rows() == 2);
}
