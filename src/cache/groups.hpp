#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <string>

#include "cache/cache_core.hpp"

namespace psycache::detail {

/// The calls on groups of entries. See AsyncPostgresCache for what they promise.
asio::awaitable<std::uint64_t> remove_prefix(CacheCore::Self core, std::string prefix,
                                             CallOptions options);
asio::awaitable<std::uint64_t> remove_tag(CacheCore::Self core, std::string tag,
                                          CallOptions options);
/// @returns 0.
asio::awaitable<std::uint64_t> clear(CacheCore::Self core, CallOptions options);

}  // namespace psycache::detail
