// The picture: throughput against callers.
#pragma once

#include <string>

#include "throughput/summary.hpp"

namespace bench {

/// An SVG document, to be read on light and on dark grounds.
/// @param subtitle where and with what it was measured.
std::string throughput_picture(const Group& gets, const std::string& subtitle);

}  // namespace bench
