#pragma once

/// @file
/// The command line of the soak.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace psycache::soak {

struct Options {
    std::chrono::seconds length{60};
    std::size_t callers = 1000;
    std::uint32_t seed = 0;
    bool quiet = false;
    std::string sabotage;  ///< instead of faults; "" for none
};

/// @returns nothing when the program is to end at once with @p status.
std::optional<Options> read_options(int argc, char** argv, int& status);

}  // namespace psycache::soak
