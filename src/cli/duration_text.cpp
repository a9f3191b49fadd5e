#include "cli/duration_text.hpp"

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>

namespace psycache::cli {

namespace {

struct Unit {
    std::string_view typed;
    std::string_view shown;
    std::int64_t microseconds;
};

constexpr std::array<Unit, 7> units{{{"w", "w", 604'800'000'000},
                                     {"d", "d", 86'400'000'000},
                                     {"h", "h", 3'600'000'000},
                                     {"m", "min", 60'000'000},
                                     {"s", "s", 1'000'000},
                                     {"ms", "ms", 1'000},
                                     {"us", "us", 1}}};

/// @returns its place among the units, their number if it is none.
std::size_t unit_of(std::string_view word) {
    if (word == "min") {
        word = "m";
    }
    std::size_t i = 0;
    while (i < units.size() && units[i].typed != word) {
        ++i;
    }
    return i;
}

}  // namespace

std::optional<Duration> parse_duration(std::string_view text) {
    if (text == "forever") {
        return no_expiry;
    }
    std::int64_t sum = 0;
    std::size_t next_unit = 0;
    while (!text.empty()) {
        std::int64_t number = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
        // A sign is no part of a number here.
        if (error != std::errc() || text[0] == '-') {
            return std::nullopt;
        }
        text.remove_prefix(static_cast<std::size_t>(end - text.data()));
        const std::string_view word = text.substr(0, text.find_first_of("0123456789-"));
        const std::size_t unit = unit_of(word);
        if (unit < next_unit || unit == units.size()) {
            return std::nullopt;
        }
        text.remove_prefix(word.size());
        next_unit = unit + 1;
        if (number > (max_ttl.count() - sum) / units[unit].microseconds) {
            return std::nullopt;
        }
        sum += number * units[unit].microseconds;
    }
    return sum > 0 ? std::optional<Duration>(sum) : std::nullopt;
}

std::string duration_text(Duration duration) {
    if (duration == no_expiry) {
        return "forever";
    }
    std::int64_t rest = duration.count();
    std::string text;
    if (rest < 0) {
        text = "-";
        // Not -rest, which the smallest number does not have.
        rest = rest == INT64_MIN ? INT64_MAX : -rest;
    }
    int parts = 0;
    // Weeks are typed, but days are what is read.
    for (std::size_t i = 1; i < units.size() && parts < 2; ++i) {
        const std::int64_t count = rest / units[i].microseconds;
        rest %= units[i].microseconds;
        if (count > 0) {
            text +=
                (parts > 0 ? " " : "") + std::to_string(count) + " " + std::string(units[i].shown);
            ++parts;
        } else if (parts > 0) {
            break;
        }
    }
    return parts > 0 ? text : "0 s";
}

}  // namespace psycache::cli
