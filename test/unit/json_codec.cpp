#include "values/json_codec.hpp"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

using namespace psycache;
namespace json = boost::json;

namespace {

json::value nested(std::size_t depth) {
    json::value value = 1;
    for (std::size_t i = 0; i < depth; ++i) {
        json::array around;
        around.push_back(std::move(value));
        value = std::move(around);
    }
    return value;
}

json::object round_trip(const json::object& object) {
    const auto bytes = encode_jsonb(object);
    REQUIRE(bytes.has_value());
    const auto back = decode_jsonb(*bytes);
    REQUIRE(back.has_value());
    return *back;
}

bool refused(json::value value) {
    json::object object;
    object["v"] = std::move(value);
    const auto bytes = encode_jsonb(object);
    return !bytes && bytes.error().code == Errc::invalid_value;
}

}  // namespace

TEST_CASE("a value begins with the version of JSONB", "[json]") {
    const auto bytes = encode_jsonb(json::object());
    REQUIRE(bytes.has_value());
    CHECK(*bytes == "\x01{}");
}

TEST_CASE("all kinds of JSON come back equal", "[json]") {
    const json::object object =
        json::parse(R"({"null":null,"t":true,"f":false,"i":-9223372036854775808,
        "u":18446744073709551615,"s":"a\"b\\c\u0001\n\u00e4\ud83d\ude00","a":[1,[],{}],"o":{"":""}})")
            .as_object();
    CHECK(round_trip(object) == object);
}

TEST_CASE("doubles come back as the same doubles", "[json]") {
    std::mt19937_64 random(42);
    json::object object;
    json::array& doubles = object["d"].emplace_array();
    for (const double special :
         {0.0, 1.0, -1.0, 0.1, 1e5, 1e15, 1e19, 1e20, 1e21, 1e300, 1e-5, 1e-6, 5e-324,
          std::numeric_limits<double>::max(), std::numeric_limits<double>::min(), 123456.75}) {
        doubles.push_back(special);
    }
    while (doubles.size() < 20000) {
        std::uint64_t bits = random();
        double number = 0;
        std::memcpy(&number, &bits, sizeof number);
        if (std::isfinite(number)) {
            doubles.push_back(number);
        }
    }
    const json::object back = round_trip(object);
    const json::array& read = back.at("d").as_array();
    REQUIRE(read.size() == doubles.size());
    int different = 0;
    for (std::size_t i = 0; i < doubles.size(); ++i) {
        different += read[i].is_double() && read[i].as_double() == doubles[i].as_double() ? 0 : 1;
    }
    CHECK(different == 0);
}

TEST_CASE("what JSONB cannot hold is refused", "[json]") {
    CHECK(refused(json::string(std::string("a\0b", 3))));
    CHECK(refused("\xff"));
    CHECK(refused("\xc0\x80"));          // overlong
    CHECK(refused("\xed\xa0\x80"));      // a surrogate
    CHECK(refused("\xf4\x90\x80\x80"));  // above U+10FFFF
    CHECK(refused("\xe2\x82"));          // cut off
    CHECK(refused(std::nan("")));
    CHECK(refused(std::numeric_limits<double>::infinity()));
    CHECK(refused(-std::numeric_limits<double>::infinity()));
    json::object name;
    name[std::string("a\0b", 3)] = 1;
    CHECK(encode_jsonb(name).has_error());
}

TEST_CASE("nesting is bounded on the way in and on the way out", "[json]") {
    // The object itself is the first level.
    CHECK_FALSE(refused(nested(max_stored_depth - 1)));
    CHECK(refused(nested(max_stored_depth)));
    const std::string deep = "\x01{\"a\":" + std::string(5000, '[') + std::string(5000, ']') + "}";
    const auto read = decode_jsonb(deep);
    REQUIRE(read.has_error());
    CHECK(read.error().code == Errc::unreadable_value);
}

TEST_CASE("what was stored by others is read if it is an object", "[json]") {
    for (const char* text :
         {"\x01[1]", "\x01 1", "\x01\"x\"", "\x01null", "\x01{\"a\":1", "\x01{\"a\":1e999}"}) {
        INFO(text + 1);
        const auto read = decode_jsonb(text);
        REQUIRE(read.has_error());
        CHECK(read.error().code == Errc::unreadable_value);
    }
    CHECK(decode_jsonb("").error().code == Errc::protocol_error);
    CHECK(decode_jsonb("\x02{}").error().code == Errc::protocol_error);
    const auto rounded = decode_jsonb("\x01{\"a\": 123456789012345678901234567890}");
    REQUIRE(rounded.has_value());
    CHECK(rounded->at("a").as_double() == 123456789012345678901234567890.0);
    const std::string huge = "\x01{\"a\": 1" + std::string(400, '0') + "}";
    CHECK(decode_jsonb(huge).error().code == Errc::unreadable_value);
    const auto tiny = decode_jsonb("\x01{\"a\": 0." + std::string(400, '0') + "1}");
    REQUIRE(tiny.has_value());
    CHECK(tiny->at("a").as_double() == 0.0);
}
