#pragma once

#include <string_view>

namespace psycache::detail {

/// Whether a decimal number is the same after it was read as a double.
///
/// A double gives back up to 15 digits, and every decimal that is written for a double: the
/// shortest one, as Python and this library write it, the one of 16 or 17 digits that is next to
/// it, or all of its digits. Any other decimal has digits that the double has lost.
///
/// @param number  the double next to the decimal; finite.
/// @param decimal a number of JSON.
bool holds(double number, std::string_view decimal) noexcept;

}  // namespace psycache::detail
