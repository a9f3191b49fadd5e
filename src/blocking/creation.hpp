#pragma once

#include <string>

#include <psycache/create.hpp>

#include "blocking/blocking_core.hpp"

namespace psycache::detail {

/// See PostgresCache::get_or_create; as get_or_create_value() of cache/creation.hpp, in the calling
/// thread.
bool get_or_create_value(BlockingCore& core, std::string key, const CreateOptions& options,
                         Loader loader, ValueReader reader, bool must_have);

}  // namespace psycache::detail
