#pragma once

/// @file
/// JSON as people type it, with all digits of its numbers.

#include <boost/json/value.hpp>
#include <string_view>

namespace psycache::cli {

/// Reads JSON text. Boost.JSON alone may be off in the last digit of a double.
///
/// @throws std::invalid_argument for what is no JSON, and for numbers that a double would round. It
///         holds nothing of the text.
boost::json::value parse_exactly(std::string_view text);

}  // namespace psycache::cli
