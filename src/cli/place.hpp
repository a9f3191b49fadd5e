#pragma once

#include <optional>
#include <string>

namespace psycache::cli {

/// Which table a command is about.
struct Place {
    std::string dsn;
    std::optional<std::string> schema;  ///< none: the connection's default
};

}  // namespace psycache::cli
