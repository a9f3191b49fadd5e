#pragma once

#include <string>
#include <vector>

#include <psycache/create.hpp>

#include "blocking/blocking_core.hpp"

namespace psycache::detail {

/// See PostgresCache::get_or_create; as the functions of cache/get_or_create.hpp, in the calling
/// thread.
bool get_or_create_value(BlockingCore& core, std::string key, const CreateOptions& options,
                         const Loader& loader, ValueReader reader, bool must_have);
std::vector<bool> get_or_create_values(BlockingCore& core, const std::vector<std::string>& keys,
                                       const CreateOptions& options, const Loader& loader,
                                       ValueReader reader, bool must_have);

}  // namespace psycache::detail
