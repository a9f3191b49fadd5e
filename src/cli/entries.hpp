#pragma once

/// @file
/// The commands that read and change entries, each a call of the blocking cache.

#include <optional>
#include <string>

namespace psycache::cli {

/// Which table a command is about.
struct Place {
    std::string dsn;
    std::optional<std::string> schema;  ///< none: the connection's default
};

/// `psycache clear`. @returns the exit code.
int clear(const Place& place);

}  // namespace psycache::cli
