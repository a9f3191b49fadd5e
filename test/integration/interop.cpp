// One table for two languages: rows as Python's psycache writes and reads them.

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>

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

    schema.insert("tiny", R"({"n": 1e-400})");

    for (const std::string key : {"huge", "negative", "tiny"}) {
        CHECK(failure_of([&] { cache->get(key); }).code() == Errc::unreadable_value);
    }
    CHECK(cache->get("good") == numbered(1));
}

// The README's table of differences, row by row: what Python's psycache does with the table, and
// what this library does.

TEST_CASE("Difference: the expiry is the server's here, and the client's there") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    // A client whose clock is an hour slow puts for ten minutes.
    python_put(schema, "python", R"({"n": 1})", 10min - 1h);
    CHECK(python_get(schema, "python").empty());
    CHECK(cache->get("python") == std::nullopt);
    cache->put("ours", numbered(1), 10min);
    CHECK(schema.expires_in("ours") == Approx(600).margin(60));
    // What never expires can be put here only, and is read there too.
    cache->put("ever", numbered(2), no_expiry);
    CHECK(python_get(schema, "ever") == R"({"n": 2})");
}

TEST_CASE("Difference: values that are no object are typed ones here, and no objects") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    for (const std::string text : {"[1, 2]", "\"text\"", "5", "1.5", "null", "true"}) {
        CAPTURE(text);
        python_put(schema, "key", text, 1h);
        CHECK(python_get(schema, "key") == text);
        CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::unreadable_value);
        CHECK(cache->get_text("key") == text);
        CHECK(failure_of([&] { cache->put_text("key", text, 1h); }).code() == Errc::invalid_value);
        const auto value = cache->get_value("key");
        CHECK(value == json::parse(text));
        cache->put_value("key", *value, 1h);
        CHECK(python_get(schema, "key") == text);
        CHECK(cache->remove("key"));
    }
}

TEST_CASE(
    "Difference: numbers that no double gives back are exact or rounded there, and text here") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    for (const std::string number :
         {"18446744073709551617", "-9223372036854775809", "123456789012345678901234567890",
          "0.33333333333333333333", "0.12345678901234567890"}) {
        const auto text = "{\"n\": " + number + "}";
        CAPTURE(text);
        python_put(schema, "key", text, 1h);
        CHECK(python_get(schema, "key") == text);
        const auto failure = failure_of([&] { cache->get("key"); });
        CHECK(failure.code() == Errc::unreadable_value);
        CHECK_THAT(failure.what(), Catch::Contains("number") && Catch::Contains("get_text"));
        CHECK(cache->get_text("key") == text);
    }
    python_put(schema, "key", R"({"long": 0.1000000000000000055511151231257827021181583404541015625,
                                  "max": 18446744073709551615, "min": -9223372036854775808,
                                  "power": 18446744073709551616, "float": 1e23,
                                  "17 digits": 0.10000000000000001, "one": 1.0})",
               1h);
    const auto value = cache->get("key");
    REQUIRE(value);
    CHECK(value->at("long").as_double() == 0.1);
    CHECK(value->at("max").as_uint64() == UINT64_MAX);
    CHECK(value->at("min").as_int64() == INT64_MIN);
    CHECK(value->at("power").as_double() == 18446744073709551616.0);
    CHECK(value->at("float").as_double() == 1e23);
    CHECK(value->at("17 digits").as_double() == 0.1);
    CHECK(value->at("one").as_double() == 1.0);
}

TEST_CASE("Difference: whole doubles come back as integers from 1e16 there, and from 1e20 here") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    // As json.dumps writes them: JSONB keeps the digits and no exponent.
    python_put(schema, "key", R"({"a": 1000000000000000.0, "b": 1e+16, "c": 1.2345678901234568e+18,
                                  "d": 1e+19, "e": 1e+20})",
               1h);
    CHECK(python_get(schema, "key") ==
          R"({"a": 1000000000000000.0, "b": 10000000000000000, "c": 1234567890123456800, )"
          R"("d": 10000000000000000000, "e": 100000000000000000000})");
    auto value = cache->get("key").value();
    CHECK(value["a"].as_double() == 1e15);
    CHECK(value["b"].as_int64() == 10000000000000000);
    CHECK(value["c"].to_number<double>() == 1.2345678901234568e+18);
    CHECK(value["d"].as_uint64() == 10000000000000000000u);
    CHECK(value["e"].as_double() == 1e20);

    const json::object ours{{"b", 1e16}, {"c", 1.2345678901234568e+18}, {"d", 1e19}, {"e", 1e20}};
    cache->put("key", ours, 1h);
    CHECK(python_get(schema, "key") ==
          R"({"b": 10000000000000000.0, "c": 1234567890123456768.0, "d": 10000000000000000000.0, )"
          R"("e": 100000000000000000000})");
    CHECK(cache->get("key") == ours);
}

TEST_CASE("No difference: minus zero becomes zero") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    python_put(schema, "python", R"({"n": -0.0})", 1h);
    cache->put("ours", json::object{{"n", -0.0}}, 1h);
    for (const std::string key : {"python", "ours"}) {
        CHECK(python_get(schema, key) == R"({"n": 0.0})");
        const auto value = cache->get(key).value();
        CHECK(value.at("n").as_double() == 0);
        CHECK_FALSE(std::signbit(value.at("n").as_double()));
    }
}

TEST_CASE("Difference: what JSONB cannot hold is refused by the server there, and before here") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const auto python_failure = [&](const std::string& text) {
        try {
            python_put(schema, "key", text, 1h);
        } catch (const SqlError& error) {
            return std::string(error.sqlstate());
        }
        return std::string();
    };
    CHECK(python_failure(R"({"n": NaN})") == "22P02");
    CHECK(python_failure(R"({"n": Infinity})") == "22P02");
    CHECK(python_failure(R"({"s": "\u0000"})") == "22P05");
    CHECK(python_failure(R"({"s": "\ud800"})") == "22P02");
    for (const json::value& bad :
         {json::value(std::nan("")), json::value(std::numeric_limits<double>::infinity()),
          json::value(json::string(1, '\0')), json::value("\xED\xA0\x80")}) {
        const auto failure = failure_of([&] { cache->put("key", json::object{{"v", bad}}, 1h); });
        CHECK(failure.code() == Errc::invalid_value);
    }
    CHECK(cache->statistics().statements == 0);
}

TEST_CASE("Difference: nesting has other limits") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const auto nested = [](std::size_t depth) {
        std::string text;
        for (std::size_t i = 1; i < depth; ++i) {
            text += "{\"a\": ";
        }
        return text + "{}" + std::string(depth - 1, '}');
    };
    python_put(schema, "key", nested(980), 1h);  // about as deep as json.dumps goes
    const auto value = cache->get("key");
    REQUIRE(value);
    CHECK(failure_of([&] { cache->put("key", *value, 1h); }).code() == Errc::invalid_value);
    CHECK(cache->get_text("key") == nested(980));
    json::parse_options deep;
    deep.max_depth = 1000;
    cache->put("key", json::parse(nested(512), {}, deep).as_object(), 1h);
    CHECK(python_get(schema, "key") == nested(512));
    schema.insert("deeper", nested(2001));
    const auto failure = failure_of([&] { cache->get("deeper"); });
    CHECK(failure.code() == Errc::unreadable_value);
    CHECK_THAT(failure.what(), Catch::Contains("nested") && Catch::Contains("get_text"));
    CHECK(cache->get_text("deeper") == nested(2001));
}

TEST_CASE("Difference: long keys are stored there if they compress, and found and removed here") {
    const auto flavour = EVERY_FLAVOUR();
    const auto table = EVERY_TABLE();
    CAPTURE(flavour, static_cast<int>(table));
    TestSchema schema(table);
    const auto cache = make_cache(flavour, schema);
    for (const std::size_t size :
         {std::size_t{max_key_size + 1}, std::size_t{5000}, std::size_t{200'000}}) {
        CAPTURE(size);
        const std::string key(size, 'k');
        python_put(schema, key, R"({"n": 1})", 1h);
        CHECK(cache->get(key) == numbered(1));
        CHECK(cache->get_text(key) == R"({"n": 1})");
        CHECK(cache->get_many({"absent", key}) ==
              std::vector<std::optional<json::object>>{std::nullopt, numbered(1)});
        CHECK(failure_of([&] { cache->put(key, numbered(2), 1h); }).code() == Errc::invalid_key);
        CHECK(failure_of([&] { cache->put_text(key, "{}", 1h); }).code() == Errc::invalid_key);
        CHECK(cache->get(key) == numbered(1));
        CHECK(cache->remove(key));
        CHECK_FALSE(cache->remove(key));
        python_put(schema, key, R"({"n": 1})", 1h);
        CHECK(cache->remove_many({"absent", key}) == 1);
        CHECK(schema.rows() == 0);
    }
    // What does not compress is in no table.
    const auto random =
        schema.sql().value("SELECT string_agg(md5(i::text), '') FROM generate_series(1, 200) AS i");
    CHECK_THROWS_AS(python_put(schema, random, R"({"n": 1})", 1h), SqlError);
    CHECK(cache->get(random) == std::nullopt);
    CHECK_FALSE(cache->remove(random));
}

TEST_CASE("Difference: a cleanup waits for locked rows there, and skips them here") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    schema.insert_many("expired", 5, "'-infinity'");
    Psql other;
    other.exec("BEGIN; SELECT * FROM " + schema.table() + " WHERE key = 'expired3' FOR UPDATE");
    schema.sql().exec("SET lock_timeout = '100ms'");
    const auto python_cleanup =
        "DELETE FROM " + schema.table() + " WHERE expires_at < statement_timestamp()";
    CHECK_THROWS_AS(schema.sql().exec(python_cleanup), SqlError);
    CHECK(cache->cleanup() == 4);
    other.exec("COMMIT");
    CHECK(cache->cleanup() == 1);
}

TEST_CASE("Python's json writes and reads what the tests above take for it") {
    if (std::system("command -v python3 >/dev/null") != 0) {
        WARN("skipped: there is no python3");
        return;
    }
    const char* const script = R"(python3 -c '
import json
assert json.dumps([1e15, 1e16, 1e20, 1.2345678901234568e18, 0.1, -0.0, float("nan"), float("inf")]) == (
    "[1000000000000000.0, 1e+16, 1e+20, 1.2345678901234568e+18, 0.1, -0.0, NaN, Infinity]")
assert json.dumps("\0\ud800") == "\"\\u0000\\ud800\""
assert json.dumps(2**64 + 1) == "18446744073709551617"
assert type(json.loads("10000000000000000")) is int
assert type(json.loads("10000000000000000.0")) is float
assert json.loads("18446744073709551617") == 2**64 + 1
assert json.loads("0.33333333333333333333") == 1 / 3
value = {}
for _ in range(900):
    value = {"a": value}
assert json.loads(json.dumps(value)) == value
')";
    CHECK(std::system(script) == 0);
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
