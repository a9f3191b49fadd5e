#pragma once

#include <boost/asio/awaitable.hpp>
#include <vector>

#include "core/clock.hpp"
#include "core/failure.hpp"
#include "pg/conninfo.hpp"
#include "pg/watch.hpp"

namespace psycache::detail::pg {

/// Replaces every host name by the host once per address, as libpq would try them; a name that is
/// unknown, or of which the name servers say nothing in its share of the time, is left out, since
/// another host may answer.
///
/// @param watch is armed here.
/// @returns at least one host, or connect_failed when none is left.
boost::asio::awaitable<Result<std::vector<Host>>> resolve(const std::vector<Host>& hosts,
                                                          Watch& watch, TimePoint deadline);

}  // namespace psycache::detail::pg
