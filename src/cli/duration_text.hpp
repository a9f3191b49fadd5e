#pragma once

/// @file
/// Spans of time as people type and read them.

#include <optional>
#include <string>
#include <string_view>

#include <psycache/duration.hpp>

namespace psycache::cli {

/// @param text numbers with a unit each, the larger unit first: "1h30m", "90s", "250ms", "7d".
/// Units
///             are w, d, h, m (also min), s, ms, us. "forever" is no_expiry.
/// @returns nothing for all else, for what is not positive and for what no ttl can be.
std::optional<Duration> parse_duration(std::string_view text);

/// @returns the two largest units of it, rounded down: "1 h 30 min", "250 ms", "0 s".
std::string duration_text(Duration duration);

}  // namespace psycache::cli
