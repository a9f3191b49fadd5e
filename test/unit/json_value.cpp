#include "cli/json_value.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>
#include <stdexcept>
#include <string>

using psycache::cli::parse_exactly;
namespace json = boost::json;

TEST_CASE("JSON that is typed keeps all digits", "[json_value]") {
    CHECK(parse_exactly("5") == 5);
    CHECK(parse_exactly("\"\\\" 1.5 \\\\\"") == "\" 1.5 \\");
    CHECK(parse_exactly("null").is_null());
    CHECK(parse_exactly("0.1") == 0.1);
    CHECK(parse_exactly("18446744073709551615") == UINT64_MAX);
    CHECK(parse_exactly("-9223372036854775808") == INT64_MIN);
    CHECK(parse_exactly("100000000000000000000") == 1e20);
    const json::value list = {1,    0.30000000000000004, {{"a", -2.2250738585072014e-308}}, "x",
                              true, json::array()};
    CHECK(parse_exactly(
              R"([1, 0.30000000000000004, {"a": -2.2250738585072014e-308}, "x", true, []])") ==
          list);
    for (const double number :
         {1.7976931348623157e308, 5e-324, 4.35, 8.41, 1e23, 9007199254740993.5}) {
        char text[64];
        std::snprintf(text, sizeof text, "[%.17g]", number);
        CHECK(parse_exactly(text).at(0).to_number<double>() == number);
    }
}

TEST_CASE("JSON that would be rounded is refused, and so is what is none", "[json_value]") {
    for (const char* text : {"", " ", "{", "[1,]", "nonsense", "'a'", "1 2", "01", "\"", "[1.2",
                             "NaN", "1e999", "[-1e999]", "0.123456789012345678",
                             "18446744073709551617", R"([{"a": 1.5, "a": 2.5}])"}) {
        CAPTURE(text);
        CHECK_THROWS_AS(parse_exactly(text), std::invalid_argument);
    }
    CHECK_THROWS_AS(parse_exactly(std::string(600, '[') + std::string(600, ']')),
                    std::invalid_argument);
    CHECK_NOTHROW(parse_exactly(std::string(500, '[') + std::string(500, ']')));
}
