#pragma once

/// @file
/// Random texts, keys, JSON values and JSON texts, the hostile ones included.

#include <rapidcheck.h>

#include <algorithm>
#include <bit>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/server.hpp"

namespace psycache::test::random {

namespace json = boost::json;

/// A table that would be there if any input had been executed.
inline constexpr const char* marker = "psycache_was_injected";

/// Whether any input has been executed.
inline bool injected(Psql& sql) {
    return sql.number(std::string("SELECT count(*) FROM pg_class WHERE relname = '") + marker +
                      "'") != 0;
}

/// A code point as UTF-8; also one that has no UTF-8, as if it had.
inline std::string utf8(std::uint32_t code) {
    std::string text;
    const auto byte = [&](std::uint32_t b) {
        text += static_cast<char>(static_cast<unsigned char>(b));
    };
    if (code < 0x80) {
        byte(code);
    } else if (code < 0x800) {
        byte(0xC0 | code >> 6);
        byte(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        byte(0xE0 | code >> 12);
        byte(0x80 | (code >> 6 & 0x3F));
        byte(0x80 | (code & 0x3F));
    } else {
        byte(0xF0 | code >> 18);
        byte(0x80 | (code >> 12 & 0x3F));
        byte(0x80 | (code >> 6 & 0x3F));
        byte(0x80 | (code & 0x3F));
    }
    return text;
}

/// A piece of text that some layer below could take for more than text.
inline rc::Gen<std::string> fragment() {
    const std::string create = std::string("CREATE TABLE ") + marker + "()";
    return rc::gen::element<std::string>(
        "'); " + create + "; --", "\"; " + create + "; --", "$$; " + create + "; $$",
        "'; " + create, "\\'; " + create + "; --", "/* " + create + " */", "\"", "\"\"", "'", "''",
        "\\", "\\\\", "\\u0000", "\\ud800", "$1", "%s", "{}", "{a,b}", "NULL", ",", ";", "\n", "\t",
        "\x01", "\x1f", "\x7f", "\xEF\xBB\xBF");
}

/// A character of any plane; small ones are the most.
inline rc::Gen<std::string> character() {
    const auto code = rc::gen::weightedOneOf<std::uint32_t>(
        {{6, rc::gen::inRange<std::uint32_t>(0x20, 0x7F)},
         {2, rc::gen::inRange<std::uint32_t>(1, 0x800)},
         {2, rc::gen::inRange<std::uint32_t>(0x800, 0xD800)},
         {1, rc::gen::inRange<std::uint32_t>(0xE000, 0x10000)},
         {2, rc::gen::inRange<std::uint32_t>(0x10000, 0x110000)}});
    return rc::gen::map(code, utf8);
}

/// What is not text for PostgreSQL: NUL, surrogates, overlong forms, what is cut off.
inline rc::Gen<std::string> broken_character() {
    const auto surrogate = rc::gen::map(rc::gen::inRange<std::uint32_t>(0xD800, 0xE000), utf8);
    return rc::gen::oneOf(
        rc::gen::element<std::string>(std::string(1, '\0'), "\x80", "\xBF", "\xC3", "\xC0\x80",
                                      "\xE0\x80\xAF", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80", "\xFF", "\xE2\x82", "\xF0\x9F\x98"),
        surrogate);
}

namespace detail {

inline std::string joined(const std::vector<std::string>& parts) {
    std::string whole;
    for (const auto& part : parts) {
        whole += part;
    }
    return whole;
}

}  // namespace detail

/// Text that PostgreSQL can hold.
inline rc::Gen<std::string> text() {
    return rc::gen::map(
        rc::gen::container<std::vector<std::string>>(
            rc::gen::weightedOneOf<std::string>({{5, character()}, {1, fragment()}})),
        detail::joined);
}

/// Text that PostgreSQL cannot hold, as a rule.
inline rc::Gen<std::string> broken_text() {
    return rc::gen::map(rc::gen::tuple(text(), broken_character(), text()), [](const auto& parts) {
        return std::get<0>(parts) + std::get<1>(parts) + std::get<2>(parts);
    });
}

/// Text of exactly @p size bytes; long ones repeat themselves.
inline rc::Gen<std::string> text_of_size(std::size_t size) {
    const auto parts = rc::gen::container<std::vector<std::string>>(
        40, rc::gen::weightedOneOf<std::string>({{5, character()}, {1, fragment()}}));
    return rc::gen::noShrink(rc::gen::map(parts, [size](const std::vector<std::string>& all) {
        std::string whole;
        for (std::size_t i = 0; whole.size() + all[i].size() <= size; i = (i + 1) % all.size()) {
            whole += all[i];
        }
        return whole + std::string(size - whole.size(), 'x');
    }));
}

/// A double of any bits, the special ones more often; never NaN or infinite.
inline rc::Gen<double> finite() {
    const auto any_bits = rc::gen::map(
        rc::gen::arbitrary<std::pair<std::uint64_t, std::uint64_t>>(),
        [](const std::pair<std::uint64_t, std::uint64_t>& halves) {
            const std::uint64_t bits = halves.first * 0x9E3779B97F4A7C15u ^ halves.second;
            const auto number = std::bit_cast<double>(bits);
            return std::isfinite(number) ? number : 0.5;
        });
    const auto subnormal =
        rc::gen::map(rc::gen::inRange<std::uint64_t>(1, std::uint64_t{1} << 52),
                     [](std::uint64_t bits) { return std::bit_cast<double>(bits); });
    const auto special = rc::gen::element(
        0.0, -0.0, 1.0, -1.0, 0.1, 1e5, 1e15, 9007199254740993.0, 1e19, 1e20, 1e21, 1e22, 1e23,
        9.2233720368547758e18, 1.8446744073709552e19, 1e300, 1e-5, 9.999999999999999e-6, 1e-6,
        5e-324, -5e-324, std::numeric_limits<double>::max(), std::numeric_limits<double>::lowest(),
        std::numeric_limits<double>::min());
    const auto whole = rc::gen::map(rc::gen::arbitrary<std::int32_t>(), [](std::int32_t number) {
        return static_cast<double>(number);
    });
    return rc::gen::oneOf(any_bits, subnormal, special, whole);
}

inline rc::Gen<std::int64_t> int64() {
    return rc::gen::oneOf(rc::gen::arbitrary<std::int64_t>(),
                          rc::gen::element(std::numeric_limits<std::int64_t>::min(),
                                           std::numeric_limits<std::int64_t>::max(),
                                           std::int64_t{1} << 53, std::int64_t{-1}));
}

inline rc::Gen<std::uint64_t> uint64() {
    return rc::gen::oneOf(rc::gen::arbitrary<std::uint64_t>(),
                          rc::gen::element(std::numeric_limits<std::uint64_t>::max(),
                                           std::uint64_t{1} << 63, std::uint64_t{1} << 53));
}

namespace detail {

template <class T>
rc::Gen<json::value> as_value(rc::Gen<T> gen) {
    return rc::gen::map(std::move(gen), [](const T& it) { return json::value(it); });
}

inline rc::Gen<json::value> as_string(rc::Gen<std::string> gen) {
    return rc::gen::map(std::move(gen), [](const std::string& it) {
        return json::value(json::string_view(it.data(), it.size()));
    });
}

/// Names that a careless comparison takes for one.
inline rc::Gen<std::string> name() {
    return rc::gen::oneOf(text(), rc::gen::element<std::string>("", " ", "a", "A", "a ", "\u00e9",
                                                                "e\u0301", "\u00df", "ss", "\ufb01",
                                                                "fi", "a\u200b", "1", "01"));
}

}  // namespace detail

/// A decimal as PostgreSQL's numeric holds it: of any length, its point anywhere, many of them near
/// a double.
inline rc::Gen<std::string> decimal() {
    const auto digits = rc::gen::mapcat(rc::gen::inRange<std::size_t>(1, 40), [](std::size_t size) {
        return rc::gen::container<std::string>(size, rc::gen::inRange('0', static_cast<char>(':')));
    });
    const auto any = rc::gen::map(
        rc::gen::tuple(digits, digits, rc::gen::arbitrary<bool>(), rc::gen::inRange(0, 3)),
        [](const auto& all) {
            const auto& [whole, fraction, negative, kind] = all;
            const auto first = whole.find_first_not_of('0');
            return (negative ? "-" : "") +
                   (first == std::string::npos ? "0" : whole.substr(first)) +
                   (kind == 0 ? "" : "." + fraction);
        });
    // The same double by 15 to 19 digits, the last of which may be off.
    const auto near = rc::gen::map(
        rc::gen::tuple(finite(), rc::gen::inRange(14, 19), rc::gen::inRange(-2, 3)),
        [](const auto& all) {
            const auto& [number, precision, off] = all;
            char text[64];
            const auto size = std::snprintf(text, sizeof text, "%.*e", precision, number);
            char& last = text[std::string_view(text, static_cast<std::size_t>(size)).find('e') - 1];
            last = static_cast<char>(std::clamp<int>(last + off, '0', '9'));
            return std::string(text);
        });
    return rc::gen::oneOf(any, near);
}

/// A value nested at most @p levels deep.
inline rc::Gen<json::value> value(int levels);

/// An object nested at most @p levels deep, itself included.
inline rc::Gen<json::object> object(int levels = 4) {
    using Members = std::vector<std::pair<std::string, json::value>>;
    const auto members = rc::gen::scale(
        0.3, rc::gen::container<Members>(rc::gen::pair(detail::name(), value(levels - 1))));
    return rc::gen::map(members, [](const Members& all) {
        json::object object;
        for (const auto& [name, value] : all) {
            object[name] = value;
        }
        return object;
    });
}

inline rc::Gen<json::value> value(int levels) {
    const auto leaf = rc::gen::oneOf(rc::gen::just(json::value(nullptr)),
                                     detail::as_value(rc::gen::arbitrary<bool>()),
                                     detail::as_value(int64()), detail::as_value(uint64()),
                                     detail::as_value(finite()), detail::as_string(text()));
    if (levels <= 0) {
        return leaf;
    }
    const auto array = rc::gen::map(
        rc::gen::scale(0.3, rc::gen::container<std::vector<json::value>>(value(levels - 1))),
        [](const std::vector<json::value>& all) {
            return json::value(json::array(all.begin(), all.end()));
        });
    return rc::gen::weightedOneOf<json::value>(
        {{4, leaf}, {1, array}, {1, detail::as_value(object(levels))}});
}

/// A value that JSONB cannot hold.
inline rc::Gen<json::value> unstorable() {
    return rc::gen::oneOf(detail::as_string(broken_text()),
                          rc::gen::map(broken_text(),
                                       [](const std::string& name) {
                                           json::object object;
                                           object[name] = 1;
                                           return json::value(std::move(object));
                                       }),
                          rc::gen::element<json::value>(std::numeric_limits<double>::infinity(),
                                                        -std::numeric_limits<double>::infinity(),
                                                        std::numeric_limits<double>::quiet_NaN()));
}

/// @p inner inside of so many arrays and objects.
inline json::value nested(json::value inner, std::size_t levels) {
    for (std::size_t level = 0; level < levels; ++level) {
        if (level % 2 == 0) {
            json::array outer;
            outer.push_back(std::move(inner));
            inner = std::move(outer);
        } else {
            json::object outer;
            outer.emplace("a", std::move(inner));
            inner = std::move(outer);
        }
    }
    return inner;
}

/// JSON text, or nearly.
inline rc::Gen<std::string> json_text() {
    const auto token = rc::gen::weightedOneOf<std::string>(
        {{6, rc::gen::element<std::string>("{", "}", "[", "]", ",", ":", "\"a\"", "\"b\"", "1", "0",
                                           "-0", "1.0", "true", "null", " ", "\n")},
         {1, rc::gen::element<std::string>(
                 "1e400", "-1e400", "1e-400", "1e131071", "1e131072", "1e200000", "1e-20000",
                 "123456789012345678901234567890", "18446744073709551616", "0.1e1", "1E+2", "01",
                 "+1", ".5", "5.", "0x1", "NaN", "Infinity", "nul", "\"", "'", "\\", "\"\\u0000\"",
                 "\"\\ud800\"", "\"\\ud83d\\ude00\"", "\"\\udc00\\ud800\"", "\"\\x\"", "\"\\u12\"",
                 "\"\n\"", "//", "/**/", "\f", "\v", "\xC2\xA0", "\xEF\xBB\xBF",
                 "\"a\":1,\"a\":2")},
         {1, broken_character()},
         {1, fragment()}});
    const auto soup =
        rc::gen::map(rc::gen::container<std::vector<std::string>>(token), detail::joined);
    const auto object_of_soup =
        rc::gen::map(rc::gen::scale(0.1, soup),
                     [](const std::string& inner) { return "{\"a\": " + inner + "}"; });
    const auto good = rc::gen::map(
        object(), [](const json::object& it) { return std::string(json::serialize(it)); });
    const auto spoilt = rc::gen::map(
        rc::gen::tuple(good, rc::gen::arbitrary<std::uint16_t>(), rc::gen::inRange(0, 3), token),
        [](const auto& all) {
            auto [whole, where, cut, put] = all;
            const std::size_t at = where % (whole.size() + 1);
            whole.replace(at, static_cast<std::size_t>(cut), put);
            return whole;
        });
    // What can be read, what can be stored only, and what PostgreSQL refuses.
    const auto depth = rc::gen::oneOf(rc::gen::inRange<std::size_t>(1, 1900),
                                      rc::gen::inRange<std::size_t>(2100, 3000),
                                      rc::gen::just<std::size_t>(100000));
    const auto deep = rc::gen::map(depth, [](std::size_t levels) {
        return "{\"a\":" + std::string(levels, '[') + std::string(levels, ']') + "}";
    });
    return rc::gen::weightedOneOf<std::string>(
        {{3, good}, {3, spoilt}, {3, object_of_soup}, {2, soup}, {1, deep}});
}

}  // namespace psycache::test::random
