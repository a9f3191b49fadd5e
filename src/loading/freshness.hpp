#pragma once

#include <psycache/duration.hpp>

namespace psycache::detail {

/// How an entry that was found is to be treated.
enum class Freshness {
    fresh,  ///< answered
    early,  ///< answered, and renewed before it is stale
    stale   ///< past its ttl, within stale_for: answered while it is renewed
};

/// @param left      until the entry expires; no_expiry for one without end.
/// @param stale_for how much of that is the time in which it is stale.
/// @param took      how long its value took to be loaded; 0 if that is not known.
/// @param early     XFetch's beta.
/// @param random    evenly from ]0, 1]: of many callers one, at some time before the entry is
/// stale,
///                  renews it, the earlier the longer that takes.
Freshness freshness(Duration left, Duration stale_for, Duration took, double early, double random);

/// @returns the time to live of an entry that is fresh for @p ttl and then stale for @p stale_for.
Duration stored_ttl(Duration ttl, Duration stale_for);

}  // namespace psycache::detail
