#include "cli/json_value.hpp"

#include <algorithm>
#include <boost/json/parser.hpp>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace psycache::cli {

namespace json = boost::json;

namespace {

/// As many significant digits as a double can need to be told from its neighbours.
constexpr std::ptrdiff_t digits_of_a_double = 17;

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

bool is_64_bits(const std::string& number) {
    const char* const end = number.data() + number.size();
    std::int64_t with_sign = 0;
    std::uint64_t without_sign = 0;
    const auto first = std::from_chars(number.data(), end, with_sign);
    const auto second = std::from_chars(number.data(), end, without_sign);
    return (first.ec == std::errc() && first.ptr == end) ||
           (second.ec == std::errc() && second.ptr == end);
}

std::ptrdiff_t significant_digits(const std::string& number) {
    std::string digits = number.substr(0, number.find_first_of("eE"));
    std::erase_if(digits, [](char c) { return !is_digit(c); });
    digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size()));
    digits.erase(digits.find_last_not_of('0') + 1);
    return static_cast<std::ptrdiff_t>(digits.size());
}

/// @returns the numbers in valid JSON text, in their order, that do not fit 64 bits.
std::vector<std::string> long_numbers(std::string_view text) {
    std::vector<std::string> numbers;
    for (std::size_t i = 0; i < text.size();) {
        if (text[i] == '"') {
            for (++i; text[i] != '"'; ++i) {
                i += text[i] == '\\' ? 1 : 0;
            }
            ++i;
        } else if (text[i] == '-' || is_digit(text[i])) {
            const std::size_t end =
                std::min(text.find_first_not_of("+-.0123456789eE", i), text.size());
            const std::string number(text.substr(i, end - i));
            if (!is_64_bits(number)) {
                numbers.push_back(number);
            }
            i = end;
        } else {
            ++i;
        }
    }
    return numbers;
}

void collect_doubles(json::value& value, std::vector<double*>& doubles) {
    if (value.is_double()) {
        doubles.push_back(&value.get_double());
    } else if (value.is_array()) {
        for (json::value& element : value.get_array()) {
            collect_doubles(element, doubles);
        }
    } else if (value.is_object()) {
        for (auto& member : value.get_object()) {
            collect_doubles(member.value(), doubles);
        }
    }
}

}  // namespace

json::value parse_exactly(std::string_view text) {
    json::parse_options options;
    options.max_depth = 512;
    json::parser parser({}, options);
    json::error_code error;
    const std::size_t read = parser.write(text.data(), text.size(), error);
    if (error) {
        throw std::invalid_argument(
            "the value is no JSON text, or nested too deep; it is wrong at byte " +
            std::to_string(read));
    }
    json::value value = parser.release();
    std::vector<double*> doubles;
    collect_doubles(value, doubles);
    const std::vector<std::string> numbers = long_numbers(text);
    // Not equal where an object names a member twice.
    bool exact = doubles.size() == numbers.size();
    for (std::size_t i = 0; exact && i < numbers.size(); ++i) {
        *doubles[i] = std::strtod(numbers[i].c_str(), nullptr);
        exact = std::isfinite(*doubles[i]) && significant_digits(numbers[i]) <= digits_of_a_double;
    }
    if (!exact) {
        throw std::invalid_argument(
            "the value holds a number that would be rounded: put it into an object");
    }
    return value;
}

}  // namespace psycache::cli
