#include "values/json_codec.hpp"

#include <array>
#include <bit>
#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/decimals.hpp"
#include "support/slowness.hpp"
#include "values/decimal.hpp"

using namespace psycache;
using namespace psycache::detail;
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
    REQUIRE(back->is_object());
    return back->get_object();
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

TEST_CASE("any JSON is read, and written so that it is read as the same", "[json]") {
    for (const char* text : {"[1]", "1", "-1.5", "\"x\"", "\"\"", "null", "true", "[]", "[{}]"}) {
        INFO(text);
        const std::string bytes = std::string("\x01") + text;
        const auto read = decode_jsonb(bytes);
        REQUIRE(read.has_value());
        CHECK(*read == json::parse(text));
        const auto written = encode_jsonb(*read);
        REQUIRE(written.has_value());
        CHECK(*written == bytes);
    }
    CHECK(encode_jsonb(nested(max_stored_depth)).has_value());
    CHECK(encode_jsonb(nested(max_stored_depth + 1)).has_error());
    CHECK(encode_jsonb(json::value(std::nan(""))).has_error());
}

TEST_CASE("what is no JSON, or a number too large, is not read", "[json]") {
    for (const char* text :
         {"\x01", "\x01 ", "\x01nul", "\x01[1", "\x01{\"a\":1", "\x01{\"a\":1e999}", "\x01 1 2"}) {
        INFO(text + 1);
        const auto read = decode_jsonb(text);
        REQUIRE(read.has_error());
        CHECK(read.error().code == Errc::unreadable_value);
    }
    CHECK(decode_jsonb("").error().code == Errc::protocol_error);
    CHECK(decode_jsonb("\x02{}").error().code == Errc::protocol_error);
}

TEST_CASE("a number is read if a double gives it back", "[json]") {
    const auto read = [](const std::string& number) {
        return decode_jsonb("\x01{\"n\": " + number + "}");
    };
    const std::string zeros(400, '0');
    SECTION("as it was stored") {
        const std::vector<std::pair<std::string, double>> table{
            {"0.0", 0.0},
            {"0.00000", 0.0},
            {"-0.0", 0.0},
            {"1.0", 1.0},
            {"-1.50", -1.5},
            {"0.1", 0.1},
            {"0.10000000000000000", 0.1},
            {"0.10000000000000001", 0.1},  // as printf("%.17g") writes it
            {"0.1000000000000000055511151231257827021181583404541015625", 0.1},  // in full
            {"123456789012345.0", 123456789012345.0},
            {"9007199254740991.0", 9007199254740991.0},
            {"9007199254740992.0", 9007199254740992.0},
            {"0.3333333333333333", 1.0 / 3},
            {"0.33333333333333331", 1.0 / 3},
            {"10000000000000000.0", 1e16},
            {"18446744073709551616", 18446744073709551616.0},  // 2^64
            {"100000000000000000000", 1e20},
            {"-100000000000000000000", -1e20},
            {"100000000000000000000000", 1e23},  // no double exactly, but 1e23 to Python and C++
            {"99999999999999990000000", 99999999999999990000000.0},
            {"99999999999999991611392", 1e23},  // in full
            {"123456789012345670000", 123456789012345670000.0},
            {"0.00000000000005684341886080802", 0x1p-44},  // shortest, though ..801 is nearer
            {"0.00000000000005684341886080801486968994140625", 0x1p-44},
            {"0." + zeros.substr(0, 323) + "5", 5e-324},
            {"4.9406564584124654e-324", 5e-324},
            {"1.7976931348623157e308", 1.7976931348623157e308},
            {"1" + zeros.substr(0, 300), 1e300},
        };
        for (const auto& [text, number] : table) {
            CAPTURE(text);
            const auto value = read(text);
            REQUIRE(value.has_value());
            REQUIRE(value->at("n").is_double());
            CHECK(value->at("n").as_double() == number);
        }
    }
    SECTION("or not at all") {
        for (const std::string& text : {
                 std::string("18446744073709551617"),
                 std::string("-9223372036854775809"),
                 std::string("123456789012345678901234567890"),
                 std::string("100000000000000000001"),
                 std::string("99999999999999991611393"),
                 std::string("9007199254740993.0"),
                 std::string("0.33333333333333333333"),  // as a division of numeric gives it
                 std::string("0.33333333333333332"),
                 std::string("0.100000000000000006"),
                 std::string("0.12345678901234567890"),
                 std::string("0.10000000000000000555111512312578270211815834045410156251"),
                 std::string("1.2e-323"),
                 "0." + zeros + "1",
                 "1" + zeros,
                 "0.1" + zeros + zeros + "1",
             }) {
            CAPTURE(text);
            const auto value = read(text);
            REQUIRE(value.has_error());
            CHECK(value.error().code == Errc::unreadable_value);
            CHECK_THAT(value.error().cause,
                       Catch::Contains("number") && Catch::Contains("get_text"));
        }
    }
}

TEST_CASE("whatever is written for a double is read as that double", "[json]") {
    std::mt19937_64 random(7);
    std::array<char, 1200> text;
    char* const end = text.data() + text.size();
    int different = 0;
    for (int i = 0; i < 200000 / (test::slowness * test::slowness); ++i) {
        auto number = std::bit_cast<double>(random());
        if (i % 2 == 0) {
            number = static_cast<double>(random() >> 11) * 0x1p-53 * std::pow(10, i % 21);
        }
        if (!std::isfinite(number)) {
            continue;
        }
        const auto precision = static_cast<int>(random() % 3);
        std::to_chars_result written{};
        switch (random() % 4) {
            case 0:
                written = std::to_chars(text.data(), end, number);
                break;
            case 1:  // as JSONB gives it back
                written = std::to_chars(text.data(), end, number, std::chars_format::fixed);
                break;
            case 2:
                written =
                    std::to_chars(text.data(), end, number, std::chars_format::scientific, 16);
                break;
            default:
                written = std::to_chars(text.data(), end, number, std::chars_format::scientific,
                                        766 + precision);
        }
        const std::string digits(text.data(), written.ptr);
        const auto value = decode_jsonb("\x01{\"n\":" + digits + "}");
        different += value && value->at("n").to_number<double>() == number ? 0 : 1;
    }
    CHECK(different == 0);
}

TEST_CASE("a decimal is held if and only if its double is written as it again", "[json]") {
    std::mt19937_64 random(11);
    int held = 0;
    int lost = 0;
    constexpr int samples = 200000 / (test::slowness * test::slowness);
    for (int i = 0; i < samples; ++i) {
        const auto near = std::bit_cast<double>((random() >> 12) | (1000 + random() % 60) << 52);
        std::array<char, 64> text;
        const int size =
            std::snprintf(text.data(), text.size(), "%.*f", static_cast<int>(random() % 24), near);
        std::string decimal(text.data(), static_cast<std::size_t>(size));
        decimal.back() = static_cast<char>('0' + random() % 10);
        const double number = std::strtod(decimal.c_str(), nullptr);
        const bool expected = test::double_gives_back(decimal);
        ++(expected ? held : lost);
        if (holds(number, decimal) != expected) {
            FAIL_CHECK(decimal);
        }
    }
    CHECK(held > samples / 20);
    CHECK(lost > samples / 20);
}
