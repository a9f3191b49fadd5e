// What goes in comes out: values, keys and times to live, and what is refused before it is sent.

#include <bit>
#include <boost/json/monotonic_resource.hpp>
#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

json::object single(json::value value) {
    json::object result;
    result["v"] = std::move(value);
    return result;
}

/// An object nested @p depth deep, itself included; every other level is an array.
json::object nested(int depth, json::storage_ptr storage = {}) {
    json::value inner(storage);
    for (int level = 1; level < depth; ++level) {
        if (level % 2 == 0) {
            json::object outer(storage);
            outer.emplace("a", std::move(inner));
            inner = std::move(outer);
        } else {
            json::array outer(storage);
            outer.push_back(std::move(inner));
            inner = std::move(outer);
        }
    }
    json::object outermost(storage);
    outermost.emplace("a", std::move(inner));
    return outermost;
}

std::string utf8(char32_t c) {
    std::string text;
    const auto byte = [&](char32_t b) { text += static_cast<char>(static_cast<unsigned char>(b)); };
    if (c < 0x80) {
        byte(c);
    } else if (c < 0x800) {
        byte(0xC0 | c >> 6);
        byte(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        byte(0xE0 | c >> 12);
        byte(0x80 | (c >> 6 & 0x3F));
        byte(0x80 | (c & 0x3F));
    } else {
        byte(0xF0 | c >> 18);
        byte(0x80 | (c >> 12 & 0x3F));
        byte(0x80 | (c >> 6 & 0x3F));
        byte(0x80 | (c & 0x3F));
    }
    return text;
}

/// Random valid UTF-8 of exactly @p size bytes, without NUL.
std::string random_text(std::size_t size, unsigned seed) {
    std::mt19937 random(seed);
    std::string text;
    while (text.size() < size) {
        const char32_t c = static_cast<char32_t>(1 + random() % 0x10FFFF);
        const auto bytes = c >= 0xD800 && c < 0xE000 ? std::string("x") : utf8(c);
        if (text.size() + bytes.size() <= size) {
            text += bytes;
        } else {
            text += static_cast<char>('a' + random() % 26);
        }
    }
    return text;
}

/// What is not UTF-8, each on its own.
std::vector<std::string> invalid_utf8() {
    return {
        "\x80",                      // a continuation without a start
        "\xC3",                      // cut short
        "\xC3(",                     // no continuation
        "\xC0\x80",                  // overlong NUL
        "\xC1\xBF",                  // overlong
        "\xE0\x80\xAF",              // overlong
        "\xE0\x9F\xBF",              // overlong
        "\xF0\x80\x80\x80",          // overlong
        "\xF0\x8F\xBF\xBF",          // overlong
        "\xED\xA0\x80",              // a high surrogate
        "\xED\xBF\xBF",              // a low surrogate
        "\xED\xA0\xBD\xED\xB8\x80",  // a pair of them
        "\xF4\x90\x80\x80",          // beyond U+10FFFF
        "\xF5\x80\x80\x80",
        "\xFE",
        "\xFF",
        "\xE2\x82",
        "\xF0\x9F\x98",
        "abc\xE2\x28\xA1xyz",
    };
}

void check_round_trip(AnyCache& cache, const json::object& value) {
    CAPTURE(json::serialize(value).substr(0, 200));
    cache.put("key", value, 1h);
    const auto back = cache.get("key");
    REQUIRE(back);
    CHECK(*back == value);
}

}  // namespace

TEST_CASE("JSON of every kind comes back equal") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    for (const auto text : {
             R"({})",
             R"({"": ""})",
             R"({"null": null, "true": true, "false": false})",
             R"({"a": {}, "b": [], "c": [[]], "d": [{}], "e": {"f": {}}})",
             R"({"a": [1, "two", 3.5, null, [4, [5, [6]]], {"seven": [8]}]})",
             R"({"z": 1, "a": 2, "m": 3, "aa": 4, "": 5})",
             R"({"quote\"": "\" \\ \/ \b \f \n \r \t", "\u0001": "\u0001\u001f\u007f\u0080"})",
             R"({"\u00e9\u4e2d\ud83d\ude00": "\u00e9\u4e2d\ud83d\ude00\uffff\udbff\udfff"})",
             R"({"$1": "%s", "';": "--", "{}": "\\u0000", "key": "value"})",
             R"({"text": "NaN", "number": "1e400"})",
         }) {
        check_round_trip(*cache, object(text));
        CHECK(schema.rows("value = " + quote_literal(text) + "::jsonb") == 1);
    }
}

TEST_CASE("Every control character and every plane of Unicode comes back equal") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    std::string text;
    for (char32_t c = 1; c < 0x300; ++c) {
        text += utf8(c);
    }
    for (char32_t plane = 0; plane <= 0x10; ++plane) {
        text += utf8(plane * 0x10000 + 0x1234) + utf8(plane * 0x10000 + 0xFFFD) +
                utf8(plane * 0x10000 + 0xFFFF);
    }
    json::object value;
    value["text"] = text;
    value[text] = "name";
    check_round_trip(*cache, value);
}

TEST_CASE("Integers come back as they were, to the ends of 64 bits") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    json::object value;
    value["min"] = INT64_MIN;
    value["max"] = INT64_MAX;
    value["umax"] = UINT64_MAX;
    value["over"] = static_cast<std::uint64_t>(INT64_MAX) + 1;
    value["zero"] = 0;
    value["minus"] = -1;
    value["exact"] = (std::int64_t{1} << 53) + 1;
    cache->put("key", value, 1h);

    const auto back = cache->get("key");
    REQUIRE(back);
    CHECK(*back == value);
    CHECK(back->at("min").as_int64() == INT64_MIN);
    CHECK(back->at("max").as_int64() == INT64_MAX);
    CHECK(back->at("umax").as_uint64() == UINT64_MAX);
    CHECK(schema.rows("value->>'umax' = '18446744073709551615'") == 1);
    CHECK(schema.rows("value->>'exact' = '9007199254740993'") == 1);
}

TEST_CASE("Doubles come back as the same doubles") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    json::array numbers;
    for (const double number : {0.1,
                                1.0 / 3,
                                1e300,
                                5e-324,
                                2.2250738585072014e-308,
                                1.7976931348623157e308,
                                -1.5,
                                1.0,
                                -1.0,
                                0.0,
                                100.0,
                                1e10,
                                1e15,
                                123456789012345680.0,
                                1e16,
                                1e17,
                                1e18,
                                9.2233720368547758e18,
                                1.8446744073709552e19,
                                1e19,
                                1e21,
                                1e22,
                                1e23,
                                9007199254740993.0,
                                0.3,
                                2.5e-5,
                                1e-7}) {
        numbers.emplace_back(number);
        numbers.emplace_back(-number);
    }
    std::mt19937_64 random(26);
    while (numbers.size() < 1000) {
        const auto number = std::bit_cast<double>(random());
        if (std::isfinite(number)) {
            numbers.emplace_back(number);
        }
    }
    cache->put("key", single(numbers), 1h);

    const auto back = cache->get("key");
    REQUIRE(back);
    const auto& array = back->at("v").as_array();
    REQUIRE(array.size() == numbers.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        CAPTURE(numbers[i].as_double());
        REQUIRE(array[i].is_double());
        REQUIRE(array[i].as_double() == numbers[i].as_double());
    }
}

TEST_CASE("A value of a mebibyte comes back equal") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    json::object value;
    value["random"] = random_text(1 << 20, 1);
    value["same"] = std::string(1 << 20, 'x');
    cache->put("key", value, 1h);
    CHECK((cache->get("key") == value));

    json::array array;
    for (int i = 0; i < 100000; ++i) {
        array.emplace_back(i);
    }
    cache->put("key", single(array), 1h);
    CHECK((cache->get("key") == single(array)));
}

TEST_CASE("A deep value comes back equal, and one that is too deep is refused") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    for (const int depth : {100, 511, 512}) {
        CAPTURE(depth);
        cache->put("key", nested(depth), 1h);
        CHECK((cache->get("key") == nested(depth)));
    }
    for (const int depth : {513, 514, 1000}) {
        CAPTURE(depth);
        CHECK(failure_of([&] { cache->put("key", nested(depth), 1h); }).code() ==
              Errc::invalid_value);
    }
    CHECK((cache->get("key") == nested(512)));
}

TEST_CASE("A value nested a hundred thousand deep is refused without a crash") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    json::monotonic_resource memory;  // the test itself destroys nothing recursively
    auto value = nested(100000, &memory);

    // Both by value into the coroutine and by reference into the blocking call.
    CHECK(failure_of([&] { cache->put("key", std::move(value), 1h); }).code() ==
          Errc::invalid_value);
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
}

TEST_CASE("A value that JSONB cannot hold is refused, and the next call works") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put("key", numbered(1), 1h);
    const auto refused = [&](const json::object& value) {
        const auto failure = failure_of([&] { cache->put("key", value, 1h); });
        CHECK(failure.code() == Errc::invalid_value);
        CHECK(failure.code() == Condition::caller_mistake);
        CHECK(failure.typed());
    };
    const auto statements = cache->statistics().statements;

    auto texts = invalid_utf8();
    texts.emplace_back(1, '\0');
    texts.emplace_back("a\0b", 3);
    for (const auto& text : texts) {
        CAPTURE(text);
        refused(single(json::string(text)));
        json::object named;
        named[text] = 1;
        refused(named);
        json::array array;
        array.emplace_back(named);
        refused(single(array));
    }
    for (const double number :
         {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
          std::numeric_limits<double>::quiet_NaN()}) {
        CAPTURE(number);
        refused(single(number));
        json::array array;
        array.emplace_back(1);
        array.emplace_back(number);
        refused(single(array));
    }

    CHECK(cache->statistics().statements == statements);
    CHECK(cache->get("key") == numbered(1));
    cache->put("key", numbered(2), 1h);
    CHECK(cache->get("key") == numbered(2));
}

TEST_CASE("Any UTF-8 text without NUL is a key") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    std::vector<std::string> keys{"",       " ",      "a",       "A",       "a ",  "'",     "\"",
                                  "\\",     "$1",     "%",       "{a,b}",   "{}",  "NULL",  "null",
                                  ",",      "\n\t\r", "\x01",    "\x7F",    "\\N", "\\x00", "é",
                                  "日本語", "😀",      "e\u0301", "\u00e9x", "ß",   "ﬁ"};
    for (std::size_t i = 0; i < keys.size(); ++i) {
        cache->put(keys[i], numbered(static_cast<std::int64_t>(i)), 1h);
    }
    CHECK(schema.rows() == static_cast<std::int64_t>(keys.size()));
    for (std::size_t i = 0; i < keys.size(); ++i) {
        CAPTURE(keys[i]);
        CHECK(cache->get(keys[i]) == numbered(static_cast<std::int64_t>(i)));
        CHECK(schema.has(keys[i]));
    }
    for (const auto& key : keys) {
        CAPTURE(key);
        CHECK(cache->remove(key));
        CHECK(cache->get(key) == std::nullopt);
    }
    CHECK(schema.rows() == 0);
}

TEST_CASE("A key of the greatest size fits the index, and one byte more is refused") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    static_assert(max_key_size == 2690);
    for (unsigned seed = 0; seed < 20; ++seed) {
        const auto key = random_text(max_key_size, seed);
        REQUIRE(key.size() == max_key_size);
        cache->put(key, numbered(seed), 1h);
        CHECK((cache->get(key) == numbered(seed)));
    }
    const auto longer = random_text(max_key_size + 1, 99);
    const auto huge = std::string(1 << 20, 'k');
    for (const auto& key : {longer, huge, std::string(max_key_size + 1, 'a')}) {
        CHECK(failure_of([&] { cache->put(key, numbered(1), 1h); }).code() == Errc::invalid_key);
        // Others may have stored it, or one like it that PostgreSQL can compress.
        CHECK(cache->get(key) == std::nullopt);
        CHECK_FALSE(cache->remove(key));
    }
    CHECK(schema.rows() == 20);
    CHECK(cache->get("key") == std::nullopt);
}

TEST_CASE("A key with NUL or invalid UTF-8 is refused, and the next call works") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    const auto statements = cache->statistics().statements;
    auto keys = invalid_utf8();
    keys.emplace_back(1, '\0');
    keys.emplace_back("a\0b", 3);
    keys.emplace_back("a\0", 2);
    for (const auto& key : keys) {
        CAPTURE(key);
        for (const auto& failure :
             {failure_of([&] { cache->put(key, numbered(1), 1h); }),
              failure_of([&] { cache->get(key); }), failure_of([&] { cache->remove(key); })}) {
            CHECK(failure.code() == Errc::invalid_key);
            CHECK(failure.code() == Condition::caller_mistake);
            CHECK(failure.typed());
        }
    }
    CHECK(cache->statistics().statements == statements);
    cache->put("a", numbered(1), 1h);
    CHECK(cache->get("a") == numbered(1));
}

TEST_CASE("The shortest and the longest ttl are accepted by the server, and nothing beyond") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);

    cache->put("longest", numbered(1), max_ttl);
    cache->put("shortest", numbered(2), min_ttl);
    CHECK(cache->get("longest") == numbered(1));
    CHECK(cache->get("shortest") == std::nullopt);
    CHECK(schema.rows("key = 'longest' AND expires_at > now() + interval '280000 years' AND "
                      "expires_at < 'infinity'") == 1);
    CHECK(schema.rows("key = 'shortest' AND expires_at < now() - interval '5900 years' AND "
                      "expires_at > '-infinity'") == 1);

    for (const auto ttl :
         {max_ttl + 1us, min_ttl - 1us, no_expiry - 1us, Duration::min(), Duration::min() + 1us}) {
        CAPTURE(ttl.count());
        const auto failure = failure_of([&] { cache->put("key", numbered(3), ttl); });
        CHECK(failure.code() == Errc::invalid_ttl);
        CHECK(failure.code() == Condition::caller_mistake);
    }
    CHECK_FALSE(schema.has("key"));
    CHECK(cache->cleanup() == 1);
    cache->put("key", numbered(4), 1us);
    CHECK(schema.has("key"));
}

TEST_CASE("A refused call does not disturb what is stored under its key") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put("key", numbered(1), 1h);
    CHECK(failure_of([&] { cache->put("key", numbered(2), max_ttl + 1us); }).code() ==
          Errc::invalid_ttl);
    CHECK(failure_of([&] { cache->put("key", single(std::nan("")), 1h); }).code() ==
          Errc::invalid_value);
    CHECK(cache->get("key") == numbered(1));
}
