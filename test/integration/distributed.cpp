// A server that distributes tables, as Citus does: a relation of the name of its catalog stands in.

#include <catch2/catch.hpp>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// A schema in the search path of its callers, whose table remembers the statements that have
/// changed its rows.
class WatchedSchema {
  public:
    WatchedSchema() {
        schema.sql().exec("CREATE TABLE " + schema.quoted() + ".changes (statement text); " +
                          "CREATE FUNCTION " + schema.quoted() +
                          ".remember() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO " +
                          schema.quoted() +
                          ".changes VALUES (current_query()); RETURN NULL; END $$; "
                          "CREATE TRIGGER remember AFTER INSERT OR UPDATE OR DELETE ON " +
                          schema.table() + " FOR EACH ROW EXECUTE FUNCTION " + schema.quoted() +
                          ".remember()");
    }

    void distribute() {
        schema.sql().exec("CREATE TABLE " + schema.quoted() + ".pg_dist_partition ()");
    }
    PoolOptions pool() const {
        PoolOptions options;
        options.dsn = schema.default_schema_dsn();
        return options;
    }
    /// How many changes were made by statements in which this text is found.
    std::int64_t changes(const std::string& text) {
        return schema.sql().number("SELECT count(*) FROM " + schema.quoted() +
                                   ".changes WHERE strpos(statement, " + quote_literal(text) +
                                   ") > 0");
    }
    void forget() { schema.sql().exec("TRUNCATE " + schema.quoted() + ".changes"); }

    TestSchema schema;
};

std::vector<Entry> some_entries(int count) {
    std::vector<Entry> entries;
    for (int i = 0; i < count; ++i) {
        entries.emplace_back("key" + std::to_string(i), numbered(i), 1h);
    }
    return entries;
}

std::vector<std::string> some_keys(int count) {
    std::vector<std::string> keys;
    for (int i = 0; i < count; ++i) {
        keys.push_back("key" + std::to_string(i));
    }
    return keys;
}

}  // namespace

TEST_CASE("Where tables are distributed each write is a simple statement of one key") {
    const auto flavour = EVERY_FLAVOUR();
    const bool many_first = GENERATE(true, false);
    const bool sizes = GENERATE(true, false);
    CAPTURE(flavour, many_first, sizes);
    WatchedSchema watched;
    watched.distribute();
    CacheOptions options;
    if (sizes) {
        options.instrumentations.push_back(std::make_shared<CacheInstrumentation>());
    }
    const auto cache = make_cache(flavour, options, watched.pool());
    if (many_first) {
        cache->put_many(some_entries(200));
    }
    cache->put("lone", numbered(1), 1h);
    cache->put("lone", numbered(2), no_expiry);
    cache->put_many(some_entries(200));
    CHECK(watched.schema.rows() == 201);
    CHECK(cache->get("lone") == numbered(2));
    CHECK(cache->get_many(some_keys(200))[199] == numbered(199));
    CHECK(cache->touch("lone", 1h));
    CHECK_FALSE(cache->touch("absent", 1h));
    CHECK(watched.schema.expires_in("lone") == Approx(3600).margin(60));
    CHECK(cache->remove("lone"));
    CHECK_FALSE(cache->remove("lone"));
    CHECK(cache->remove_many(some_keys(200)) == 200);
    CHECK(watched.schema.rows() == 0);

    CHECK(watched.changes("INSERT") == (many_first ? 402 : 202));
    CHECK(watched.changes("VALUES") == (many_first ? 402 : 202));
    CHECK(watched.changes("DELETE") == 201);
    CHECK(watched.changes("UPDATE") >= 1);
    for (const char* wrong : {"SELECT", "set_config", "unnest", "FOR UPDATE", "RETURNING"}) {
        CAPTURE(wrong);
        CHECK(watched.changes(wrong) == 0);
    }
}

TEST_CASE("A cache finds out that its server distributes tables from now on") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    WatchedSchema watched;
    const auto cache = make_cache(flavour, CacheOptions(), watched.pool());
    cache->put_many(some_entries(100));
    CHECK(watched.changes("unnest") == 100);
    watched.forget();
    watched.distribute();
    cache->put_many(some_entries(100));
    CHECK(watched.changes("VALUES") == 100);
    CHECK(watched.changes("unnest") == 0);
    CHECK(cache->statistics().puts == 200);
}
