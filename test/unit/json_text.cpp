// What PostgreSQL takes for a JSON object, told without it.

#include "values/json_text.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "operations/checks.hpp"

using namespace psycache;
using namespace psycache::detail;

namespace {

/// The byte at which a text is wrong; -1 where nothing is.
int wrong_at(const std::string& text) {
    const auto mistake = mistake_in_text(text);
    return mistake ? static_cast<int>(mistake->at) : -1;
}

std::string nested_text(std::size_t depth) {
    return "{\"a\":" + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
}

std::string with_number(const std::string& number) {
    return "{\"a\":" + number + "}";
}

}  // namespace

TEST_CASE("texts that PostgreSQL takes for a JSON object", "[json_text]") {
    for (const std::string text : {
             "{}",
             " \t\r\n{ } \n",
             R"({"a":1,"a":2})",
             R"({"":{},"b":[],"c":[[],{}],"d":[1,{"e":null}]})",
             R"({"a" : true , "b" : false , "c" : null })",
             R"({"a":"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00"})",
             "{\"a\":\"\x7f \xc3\xa9 \xf0\x9f\x98\x80\"}",
         }) {
        CAPTURE(text);
        CHECK(wrong_at(text) == -1);
        const auto jsonb = jsonb_of_text(text);
        REQUIRE(jsonb.has_value());
        CHECK(*jsonb == "\x01" + text);
    }
}

TEST_CASE("numbers that PostgreSQL's numeric holds", "[json_text]") {
    for (const std::string& number : {
             std::string("0"),
             std::string("-0"),
             std::string("-0.0e-0"),
             std::string("12.5E+3"),
             std::string("0e1000000000"),
             std::string("1e131071"),
             std::string("99e131070"),
             std::string("0.00010e131075"),
             "1" + std::string(131071, '0'),
             "1" + std::string(131072, '0') + "e-1",
             std::string("1e-16383"),
             "0." + std::string(16383, '0'),
             "0." + std::string(16390, '0') + "e7",
             std::string("1e0000000000000000000000005"),
         }) {
        CAPTURE(number.substr(0, 40));
        CHECK(wrong_at(with_number(number)) == -1);
    }
}

TEST_CASE("numbers that it does not hold", "[json_text]") {
    for (const std::string& number : {
             std::string("1e131072"),
             std::string("10e131071"),
             std::string("-1e1000000000000000000000"),
             "1" + std::string(131072, '0'),
             std::string("1e-16384"),
             std::string("0e-16384"),
             "0." + std::string(16384, '0'),
             std::string("0e1073741823"),
             std::string("0.001e131075"),
         }) {
        CAPTURE(number.substr(0, 40));
        CHECK(wrong_at(with_number(number)) == 5);
    }
}

TEST_CASE("texts that PostgreSQL refuses, and the byte at which they are wrong", "[json_text]") {
    const std::pair<std::string, int> texts[] = {
        {"", 0},
        {"  ", 2},
        {"[1]", 0},
        {" 1", 1},
        {"\xef\xbb\xbf{}", 0},
        {"{", 1},
        {"{} {}", 3},
        {"{}]", 2},
        {R"({"a"})", 4},
        {R"({"a":})", 5},
        {R"({"a":1,})", 7},
        {R"({,})", 1},
        {R"({a:1})", 1},
        {R"({"a":[1,]})", 8},
        {R"({"a":[1 2]})", 8},
        {R"({"a":[1})", 7},
        {R"({"a":{"b":1]})", 11},
        {R"({"a":NaN})", 5},
        {R"({"a":-Infinity})", 6},
        {R"({"a":nul})", 5},
        {R"({"a":truex})", 9},
        {R"({"a":01})", 6},
        {R"({"a":1.})", 7},
        {R"({"a":.5})", 5},
        {R"({"a":1e})", 7},
        {R"({"a":+1})", 5},
        {R"({"a":0x1})", 6},
        {R"({"a":1)", 6},
        {R"({"a":"b)", 7},
        {R"({"a":"b\)", 8},
        {R"({"a":"\x"})", 7},
        {R"({"a":"\u12"})", 10},
        {R"({"a":"\u0000"})", 6},
        {R"({"a":"\ud800"})", 6},
        {R"({"a":"\udc00\ud800"})", 6},
        {R"({"a":"\ud800\ud800"})", 6},
        {R"({"a":"\ud800x"})", 6},
        {"{\"a\":\"\n\"}", 6},
        {"{\"a\":\"\xff\"}", 6},
        {"{\"a\":\"\xed\xa0\x80\"}", 6},
        {std::string("{\0}", 3), 1},
        {"{}\f", 2},
        {"{}//", 2},
    };
    for (const auto& [text, at] : texts) {
        CAPTURE(text);
        CHECK(wrong_at(text) == at);
    }
}

TEST_CASE("depth costs no stack, and is bounded", "[json_text]") {
    CHECK(wrong_at(nested_text(max_text_depth)) == -1);
    CHECK(wrong_at(nested_text(max_text_depth + 1)) == static_cast<int>(max_text_depth) + 4);
    CHECK(wrong_at("{\"a\":" + std::string(10'000'000, '[')) ==
          static_cast<int>(max_text_depth) + 4);
}

TEST_CASE("a text that is refused is not shown", "[json_text]") {
    const auto refused = jsonb_of_text(R"({"secret":"word", "secret2":01})");
    REQUIRE(refused.has_error());
    CHECK(refused.error().code == Errc::invalid_value);
    CHECK(refused.error().cause ==
          "the value cannot be stored as JSONB: the text is wrong at byte 29: a comma or an end is "
          "missing");
    CHECK(jsonb_of_text("").error().cause ==
          "the value cannot be stored as JSONB: the text is wrong at byte 0: it ends too early");
}
