#pragma once

/// @file
/// What JSONB can hold, worked out without the library's code.

#include <boost/json/value.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace psycache::test {

namespace json = boost::json;

/// How deep arrays and objects may be nested in a value that is put.
inline constexpr std::size_t deepest_storable = 512;

/// Whether the bytes are text for PostgreSQL: decodes each character and looks at its code point.
inline bool storable_text(std::string_view bytes) {
    for (std::size_t at = 0; at < bytes.size();) {
        const auto unit = [&](std::size_t i) { return static_cast<unsigned char>(bytes[at + i]); };
        const unsigned first = unit(0);
        std::size_t length = 1;
        std::uint32_t code = first;
        if (first >= 0x80) {
            length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
            code = first & (0x7Fu >> length);
            if (first < 0xC0 || first >= 0xF8 || at + length > bytes.size()) {
                return false;
            }
            for (std::size_t i = 1; i < length; ++i) {
                if (unit(i) >> 6 != 2) {
                    return false;
                }
                code = code << 6 | (unit(i) & 0x3Fu);
            }
        }
        static constexpr std::uint32_t least[] = {0, 1, 0x80, 0x800, 0x10000};
        if (code < least[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
            return false;
        }
        at += length;
    }
    return true;
}

/// Whether a value can be put, when it lies inside of @p depth arrays and objects.
inline bool storable(const json::value& value, std::size_t depth = 0) {
    const auto text = [](json::string_view it) { return storable_text({it.data(), it.size()}); };
    switch (value.kind()) {
        case json::kind::string:
            return text(value.get_string());
        case json::kind::double_:
            return std::isfinite(value.get_double());
        case json::kind::array:
            for (const json::value& element : value.get_array()) {
                if (!storable(element, depth + 1)) {
                    return false;
                }
            }
            return depth < deepest_storable;
        case json::kind::object:
            for (const auto& [name, member] : value.get_object()) {
                if (!text(name) || !storable(member, depth + 1)) {
                    return false;
                }
            }
            return depth < deepest_storable;
        default:
            return true;
    }
}

}  // namespace psycache::test
