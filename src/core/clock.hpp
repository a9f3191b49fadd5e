#pragma once

#include <chrono>

namespace psycache::detail {

/// The clock of all deadlines and pauses.
using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;

}  // namespace psycache::detail
