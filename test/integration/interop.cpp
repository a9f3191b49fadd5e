// One table for two languages: rows as Python's psycache writes and reads them.

#include <catch2/catch.hpp>
#include <chrono>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// What psycache's put sends: the expiry as a timestamp of the client's clock.
void python_put(TestSchema& schema, const std::string& key, const std::string& value,
                std::chrono::seconds ttl) {
    const auto expires =
        std::chrono::system_clock::to_time_t(std::chrono::system_clock::now() + ttl);
    char text[64];
    std::tm parts{};
    gmtime_r(&expires, &parts);
    std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S.000001+00:00", &parts);
    schema.sql().exec("INSERT INTO " + schema.table() + " (key, value, expires_at) VALUES (" +
                      quote_literal(key) + "," + quote_literal(value) + "::jsonb, '" + text +
                      "'::timestamptz) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, "
                      "expires_at = EXCLUDED.expires_at");
}

/// What psycache's get sends. @returns the value's text, "" for a miss.
std::string python_get(TestSchema& schema, const std::string& key) {
    const auto rows = schema.sql().exec("SELECT value, pg_column_size(value) FROM " +
                                        schema.table() + " WHERE key = " + quote_literal(key) +
                                        " AND expires_at > statement_timestamp()");
    return rows.empty() ? "" : rows.front().front();
}

#define EVERY_TABLE() GENERATE(Table::ours, Table::python, Table::python_without_index)

}  // namespace

TEST_CASE("Rows that psycache wrote are read") {
    const auto flavour = EVERY_FLAVOUR();
    const auto table = EVERY_TABLE();
    CAPTURE(flavour, static_cast<int>(table));
    TestSchema schema(table);
    const auto cache = make_cache(flavour, schema);

    const std::string text = R"({"a": [1, 2.5, "x", null, true], "\u00e9": {"b": "\ud83d\ude00"}})";
    python_put(schema, "live", text, 1h);
    python_put(schema, "expired", text, -1h);
    schema.insert("for ever", text, "'infinity'");

    CHECK(cache->get("live") == object(text));
    CHECK(cache->get("for ever") == object(text));
    CHECK(cache->get("expired") == std::nullopt);
    CHECK(cache->cleanup() == 1);
    CHECK(cache->remove("live"));
    CHECK(cache->flush() == 1);
}

TEST_CASE("Our rows are read by psycache's statements") {
    const auto flavour = EVERY_FLAVOUR();
    const auto table = EVERY_TABLE();
    CAPTURE(flavour, static_cast<int>(table));
    TestSchema schema(table);
    const auto cache = make_cache(flavour, schema);

    cache->put("live", object(R"({"a": [1, 2.5, "x", null], "b": {"c": false}})"), 1h);
    cache->put("expired", numbered(1), -1s);
    cache->put("for ever", numbered(2), no_expiry);

    CHECK(python_get(schema, "live") == R"({"a": [1, 2.5, "x", null], "b": {"c": false}})");
    CHECK(python_get(schema, "expired").empty());
    CHECK(python_get(schema, "for ever") == R"({"n": 2})");
    CHECK(schema.sql().exec("SELECT * FROM " + schema.table() + " WHERE key = 'for ever'") ==
          Rows{{"for ever", R"({"n": 2})", "infinity"}});
    CHECK(schema.sql().number("DELETE FROM " + schema.table() +
                              " WHERE expires_at < statement_timestamp() RETURNING 1") == 1);
}

TEST_CASE("Both write the same key in turn and the last one is read") {
    const auto flavour = EVERY_FLAVOUR();
    const auto table = EVERY_TABLE();
    CAPTURE(flavour, static_cast<int>(table));
    TestSchema schema(table);
    const auto cache = make_cache(flavour, schema);

    cache->put("key", numbered(1), 1h);
    python_put(schema, "key", R"({"n": 2})", 2h);
    CHECK(cache->get("key") == numbered(2));
    cache->put("key", numbered(3), 3h);
    CHECK(python_get(schema, "key") == R"({"n": 3})");
    CHECK(schema.expires_in("key") == Approx(3 * 3600).margin(60));
    python_put(schema, "key", R"({"n": 4})", -10s);
    CHECK(cache->get("key") == std::nullopt);
    CHECK(schema.rows() == 1);
}

TEST_CASE("Every call works on a table without the index of expires_at") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::python_without_index);
    const auto cache = make_cache(flavour, schema);

    cache->put("key", numbered(1), 1h);
    cache->put("expired", numbered(1), -1h);
    CHECK(cache->get("key") == numbered(1));
    CHECK(cache->cleanup() == 1);
    CHECK(cache->remove("key"));
    cache->put("key", numbered(2), 1h);
    CHECK(cache->flush() == 1);
}

TEST_CASE("A stored value that is no object is an error, and the next call works") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const std::string stored(GENERATE(as<std::string>(), "[1, 2]", "[]", "\"text\"", "5", "1.5",
                                      "null", "true", "[{\"a\": 1}]"));
    CAPTURE(stored);
    schema.insert("odd", stored);
    schema.insert("good", R"({"n": 1})");

    const auto failure = failure_of([&] { cache->get("odd"); });

    CHECK(failure.code() == Errc::unreadable_value);
    CHECK(failure.typed());
    CHECK(cache->get("good") == numbered(1));
    cache->put("odd", numbered(2), 1h);
    CHECK(cache->get("odd") == numbered(2));
}

TEST_CASE("A stored number that no double can hold is an error, and the next call works") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    schema.insert("huge", R"({"n": 1e400})");
    schema.insert("negative", R"({"deep": [{"n": -1e309}]})");
    schema.insert("good", R"({"n": 1})");

    CHECK(failure_of([&] { cache->get("huge"); }).code() == Errc::unreadable_value);
    CHECK(failure_of([&] { cache->get("negative"); }).code() == Errc::unreadable_value);
    CHECK(cache->get("good") == numbered(1));
}

TEST_CASE("Stored numbers keep the digits that fit and round the others") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    schema.insert("key", R"({"long": 0.1000000000000000055511151231257827021181583404541015625,
                             "wide": 123456789012345678901234567890,
                             "tiny": 1e-400, "max": 18446744073709551615,
                             "over": 18446744073709551616, "min": -9223372036854775808,
                             "under": -9223372036854775809, "one": 1.0, "exp": 1e3})");

    const auto value = cache->get("key");
    REQUIRE(value);
    CHECK(value->at("long").as_double() == 0.1);
    CHECK(value->at("wide").as_double() == 123456789012345678901234567890.0);
    CHECK(value->at("tiny").as_double() == 0.0);
    CHECK(value->at("max").as_uint64() == UINT64_MAX);
    CHECK(value->at("over").as_double() == 18446744073709551616.0);
    CHECK(value->at("min").as_int64() == INT64_MIN);
    CHECK(value->at("under").as_double() == -9223372036854775809.0);
    CHECK(value->at("one").as_double() == 1.0);
    CHECK(value->at("exp").to_number<int>() == 1000);
}

TEST_CASE("A very deep stored value is read or refused, and the next call works") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const int depth = 3000;
    schema.sql().exec("INSERT INTO " + schema.table() + " VALUES ('deep', (repeat('{\"a\":', " +
                      std::to_string(depth) + ") || '1' || repeat('}', " + std::to_string(depth) +
                      "))::jsonb, 'infinity')");
    schema.insert("good", R"({"n": 1})");

    bool hit = false;
    const auto failure = failure_of([&] { hit = cache->get("deep").has_value(); });
    CHECK((hit || failure.code() == Errc::unreadable_value));
    CHECK(cache->get("good") == numbered(1));
}

TEST_CASE("An unreadable value hurts no other get that shares its statement") {
    TestSchema schema;
    schema.insert_many("good", 30, "'infinity'");
    schema.insert("odd", "[]");
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(1), schema.cache_options());

    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto executor = context.get_executor();
        std::vector<Started<std::optional<json::object>>> gets;
        for (int i = 1; i <= 15; ++i) {
            gets.push_back(start(executor, cache.get_raw("good" + std::to_string(i))));
        }
        auto odd = start(executor, cache.get_raw("odd"));
        for (int i = 16; i <= 30; ++i) {
            gets.push_back(start(executor, cache.get_raw("good" + std::to_string(i))));
        }
        const auto failure = co_await odd.failure();
        CHECK(failure.code() == Errc::unreadable_value);
        for (auto& get : gets) {
            const auto value = co_await get.get();
            CHECK(value == object(R"({"a": 1})"));
        }
    });
}
