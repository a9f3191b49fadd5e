#pragma once

/// @file
/// `psycache doctor`: prints what is found.

#include "cli/place.hpp"

namespace psycache::cli {

/// @returns the exit code: a failure where something is wrong.
int doctor(const Place& place, bool as_json);

}  // namespace psycache::cli
