#include "loading/freshness.hpp"

#include <cmath>

namespace psycache::detail {

Freshness freshness(Duration left, Duration stale_for, Duration took, double early, double random) {
    if (left == no_expiry) {
        return Freshness::fresh;
    }
    if (left <= stale_for) {
        return Freshness::stale;
    }
    const double fresh_for = static_cast<double>((left - stale_for).count());
    return static_cast<double>(took.count()) * early * -std::log(random) >= fresh_for
               ? Freshness::early
               : Freshness::fresh;
}

Duration stored_ttl(Duration ttl, Duration stale_for) {
    if (ttl == no_expiry) {
        return no_expiry;
    }
    return stale_for < max_ttl - ttl ? ttl + stale_for : max_ttl;
}

}  // namespace psycache::detail
