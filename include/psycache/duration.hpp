#pragma once

#include <chrono>

namespace psycache {

/// Every span of time in this library: PostgreSQL's own resolution, signed, 64 bits.
///
/// All `std::chrono` durations of whole microseconds convert to it, so `60s`, `5min` and `250ms`
/// can be passed wherever a Duration is asked for.
using Duration = std::chrono::microseconds;

/// As a ttl: the entry never expires (the server stores `'infinity'`). As a time-out or a maximum
/// age in an options type: no limit, where the field says that it allows that.
inline constexpr Duration no_expiry = Duration::max();

/// The shortest ttl that is accepted. A ttl that is not positive stores an entry that is already
/// expired; 6,000 years back is as far as a timestamp of PostgreSQL safely reaches.
inline constexpr Duration min_ttl = -std::chrono::duration_cast<Duration>(std::chrono::years(6000));

/// The longest finite ttl that is accepted: 290,000 years, the reach of a timestamp of PostgreSQL.
inline constexpr Duration max_ttl =
    std::chrono::duration_cast<Duration>(std::chrono::years(290000));

}  // namespace psycache
