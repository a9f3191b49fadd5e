#pragma once

#include <boost/asio/awaitable.hpp>
#include <string>
#include <vector>

#include <psycache/create.hpp>

#include "cache/cache_core.hpp"

namespace psycache::detail {

/// See AsyncPostgresCache::get_or_create. @returns whether there is a value.
asio::awaitable<bool> get_or_create_value(CacheCore::Self core, std::string key,
                                          CreateOptions options, AsyncLoader loader,
                                          ValueReader reader, bool must_have);

/// See AsyncPostgresCache::get_or_create_many. @returns whether each key has a value.
asio::awaitable<std::vector<bool>> get_or_create_values(CacheCore::Self core,
                                                        std::vector<std::string> keys,
                                                        CreateOptions options, AsyncLoader loader,
                                                        ValueReader reader, bool must_have);

}  // namespace psycache::detail
