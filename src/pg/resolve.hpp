#pragma once

#include <boost/asio/awaitable.hpp>
#include <vector>

#include "async/watch.hpp"
#include "failure.hpp"
#include "pg/conninfo.hpp"

namespace psycache::pg {

/// Replaces every host name by the host once per address, as libpq would try them; a name that is
/// unknown is left out, since another host may answer.
///
/// @returns at least one host, or connect_failed when none is left or the watch fired.
boost::asio::awaitable<Result<std::vector<Host>>> resolve(const std::vector<Host>& hosts,
                                                          Watch& watch);

}  // namespace psycache::pg
