#pragma once

/// @file
/// `psycache stats`: how large the table is, by the server's own statistics.

#include "cli/place.hpp"

namespace psycache::cli {

/// @returns the exit code.
int stats(const Place& place, bool as_json);

}  // namespace psycache::cli
