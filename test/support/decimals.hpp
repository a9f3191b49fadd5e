#pragma once

/// @file
/// Which decimals a double gives back, worked out by the C library.

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>
#include <system_error>

namespace psycache::test {

namespace detail {

/// The digits of a decimal, without sign, point, exponent and zeros at the ends.
inline std::string significant_digits(const std::string& decimal) {
    std::string digits;
    for (const char c : decimal.substr(0, decimal.find_first_of("eE"))) {
        if (c >= '0' && c <= '9' && !(digits.empty() && c == '0')) {
            digits += c;
        }
    }
    return digits.substr(0, digits.find_last_not_of('0') + 1);
}

inline std::string written_with_digits(double number, std::size_t digits) {
    std::string text(1000, '\0');
    const int size =
        std::snprintf(text.data(), text.size(), "%.*e", static_cast<int>(digits) - 1, number);
    return text.substr(0, static_cast<std::size_t>(size));
}

}  // namespace detail

/// Whether the double next to a decimal is written as this decimal again: in its shortest form,
/// with 17 digits or fewer, or in full.
inline bool double_gives_back(const std::string& decimal) {
    const auto digits = detail::significant_digits(decimal);
    const double number = std::strtod(decimal.c_str(), nullptr);
    if (!std::isfinite(number) || (number == 0) != digits.empty()) {
        return false;
    }
    char shortest[32];
    const auto end = std::to_chars(std::begin(shortest), std::end(shortest), number).ptr;
    const auto equal = [&](const std::string& written) {
        return detail::significant_digits(written) == digits;
    };
    return digits.empty() || equal(std::string(shortest, end)) ||
           equal(detail::written_with_digits(number, digits.size() <= 17 ? digits.size() : 800));
}

/// Whether a number of JSON can be read: as an integer of 64 bits, or as a double that holds it.
inline bool readable_number(const std::string& decimal) {
    const auto* const end = decimal.data() + decimal.size();
    const auto is_whole = [&](auto integer) {
        const auto read = std::from_chars(decimal.data(), end, integer);
        return read.ec == std::errc() && read.ptr == end;
    };
    return is_whole(std::int64_t{}) || is_whole(std::uint64_t{}) || double_gives_back(decimal);
}

}  // namespace psycache::test
