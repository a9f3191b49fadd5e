#pragma once

/// @file
/// `psycache watch`: prints changes of entries as the triggers tell of them.

#include <optional>
#include <string>
#include <vector>

#include <psycache/duration.hpp>

#include "cli/place.hpp"

namespace psycache::cli {

/// @param keys     which are told of, by name; none: all changes, without names.
/// @param duration when it ends; without, it goes on until it is killed or the connection breaks.
/// @returns the exit code.
int watch(const Place& place, const std::vector<std::string>& keys,
          std::optional<Duration> duration, bool as_json);

}  // namespace psycache::cli
