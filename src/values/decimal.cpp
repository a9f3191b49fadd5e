#include "values/decimal.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace psycache::detail {

namespace {

using Limits = std::numeric_limits<double>;

/// How many digits any double has at most when it is written out, zeros at both ends left out.
constexpr std::size_t most_digits = 767;

/// The powers of ten that are doubles.
constexpr auto powers_of_ten = [] {
    std::array<double, 23> powers{};
    double power = 1;
    for (double& it : powers) {
        it = power;
        power *= 10;
    }
    return powers;
}();

/// A decimal without sign, point, exponent and zeros at its ends.
struct Digits {
    explicit Digits(std::string_view decimal) noexcept {
        std::size_t end = 0;
        bool started = false;
        bool point = false;
        for (; end < decimal.size(); ++end) {
            const unsigned digit = static_cast<unsigned char>(decimal[end]) - '0';
            if (digit <= 9) {
                // No branch here, since what comes next cannot be guessed.
                number = number * 10 + digit;
                started |= digit != 0;
                count += started ? 1 : 0;
                places += point ? 1 : 0;
            } else if (decimal[end] == '.') {
                point = true;
            } else if (decimal[end] != '-') {
                break;
            }
        }
        decimal = decimal.substr(0, end);
        if (count > std::numeric_limits<std::uint64_t>::digits10) {
            number = 0;
        }
        for (; count > 0 && (decimal.back() == '0' || decimal.back() == '.');
             decimal.remove_suffix(1)) {
            if (decimal.back() == '0') {
                number /= 10;
                places -= places > 0 ? 1 : 0;
                --count;
            }
        }
    }

    std::uint64_t number = 0;  // 0 where there are too many
    std::size_t count = 0;
    std::size_t places = 0;  // how many stand behind the point
};

/// Compares without sign, point, exponent and zeros at the ends.
bool same_digits(std::string_view one, std::string_view other) noexcept {
    const auto start = [](std::string_view& text) {
        text = text.substr(0, text.find_first_of("eE"));
        const auto first = text.find_first_of("123456789");
        text.remove_prefix(first == std::string_view::npos ? text.size() : first);
    };
    const auto next = [](std::string_view& text) {
        if (text.starts_with('.')) {
            text.remove_prefix(1);
        }
        if (text.empty()) {
            return '0';
        }
        const char digit = text.front();
        text.remove_prefix(1);
        return digit;
    };
    start(one);
    start(other);
    while (!one.empty() || !other.empty()) {
        if (next(one) != next(other)) {
            return false;
        }
    }
    return true;
}

/// Compares with the decimals that are written for a double.
bool is_written_for(double number, std::string_view decimal, std::size_t digits) noexcept {
    if (digits > most_digits) {
        return false;
    }
    std::array<char, most_digits + 16> text;
    char* const end = text.data() + text.size();
    const auto same = [&](std::to_chars_result written) {
        const auto size = static_cast<std::size_t>(written.ptr - text.data());
        // The double is the one next to the decimal: no exponent can make a difference.
        return same_digits({text.data(), size}, decimal);
    };
    const auto precision = static_cast<int>(digits <= Limits::max_digits10 ? digits : most_digits);
    constexpr auto format = std::chars_format::scientific;
    return same(std::to_chars(text.data(), end, number, format)) ||
           same(std::to_chars(text.data(), end, number, format, precision - 1));
}

}  // namespace

bool holds(double number, std::string_view decimal) noexcept {
    const bool normal = std::fabs(number) > Limits::min();
    if (normal && decimal.size() <= Limits::digits10) {
        return true;
    }
    const Digits digits(decimal);
    if (digits.count == 0 || number == 0) {
        return digits.count == 0 && number == 0;
    }
    if (normal && digits.count <= Limits::digits10) {
        return true;
    }
    if (digits.count <= Limits::max_digits10 && digits.places < powers_of_ten.size()) {
        // Its distance from the decimal, in units of the last digit: below one half no decimal of
        // as many digits is nearer. This spares writing the number, which takes ten times as long.
        const auto rounded = static_cast<double>(digits.number);
        const auto rest =
            static_cast<std::int64_t>(digits.number) - static_cast<std::int64_t>(rounded);
        const double distance =
            std::fma(std::fabs(number), powers_of_ten[digits.places], -rounded) -
            static_cast<double>(rest);
        if (std::fabs(distance) < 0.499) {
            return true;
        }
    }
    return is_written_for(number, decimal, digits.count);
}

}  // namespace psycache::detail
