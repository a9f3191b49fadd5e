#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <string>

#include "cache/cache_core.hpp"

namespace psycache::detail {

/// The calls that work on the whole table, on a connection lent for each statement. See
/// AsyncPostgresCache for what they promise.
asio::awaitable<std::uint64_t> flush(CacheCore::Self core, CallOptions options);
asio::awaitable<std::uint64_t> cleanup_expired(CacheCore::Self core, CallOptions options);

/// The cleanup loop; @p interval is checked already.
asio::awaitable<void> run_cleanup(CacheCore::Self core, Duration interval);

/// Counts and logs the failure of one run of a cleanup loop.
void cleanup_failed(const CacheCore& core, const Failure& failure) noexcept;

}  // namespace psycache::detail
