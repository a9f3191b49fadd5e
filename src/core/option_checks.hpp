#pragma once

#include <optional>
#include <string>

#include <psycache/options.hpp>

/// Every check of an option or argument that is the caller's mistake; all throw
/// std::invalid_argument naming the field.
namespace psycache::detail {

void check_pool_options(const PoolOptions& options);
void check_cache_options(const CacheOptions& options);
void check_schema(const std::optional<std::string>& schema);
void check_call_options(const CallOptions& options);
void check_interval(Duration interval);
void check_stop_timeout(const std::optional<Duration>& timeout);

/// @param name how the message calls the duration.
void check_positive_finite(const std::string& name, Duration duration);
void check_not_negative_finite(const std::string& name, Duration duration);

}  // namespace psycache::detail
