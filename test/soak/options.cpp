#include "soak/options.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string_view>

#include "soak/sabotage.hpp"

namespace psycache::soak {

namespace {

constexpr const char* usage =
    "Usage: psycache_soak [--seconds N] [--callers N] [--seed N] [--quiet] [--sabotage NAME]\n"
    "\n"
    "Calls caches of every kind on a private server from many callers, while faults of the "
    "server,\n"
    "the network and the table happen, and judges every answer. Exits with 1 when anything was\n"
    "wrong, and with 77 when no server can be started.\n"
    "\n"
    "  --seconds N      how long it goes on; PSYCACHE_SOAK_SECONDS, or 60, by default\n"
    "  --callers N      how many coroutines call; 1000 by default\n"
    "  --seed N         of all that is random; it is printed when not given\n"
    "  --quiet          does not print each fault\n"
    "  --sabotage NAME  does harm behind the caches' back instead, which must be found: ";

/// @returns -1 for what is no number, or a very large one.
int number(std::string_view text) {
    int value = 0;
    const auto end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, value);
    return read.ec == std::errc() && read.ptr == end ? value : -1;
}

}  // namespace

std::optional<Options> read_options(int argc, char** argv, int& status) {
    Options options;
    options.seed = std::random_device()() & 0xffffffU;
    if (const char* text = std::getenv("PSYCACHE_SOAK_SECONDS")) {
        options.length = std::chrono::seconds(std::max(number(text), 1));
    }
    for (int i = 1; i < argc; ++i) {
        const std::string_view name = argv[i];
        const bool has_value = i + 1 < argc;
        const int value = has_value ? number(argv[i + 1]) : -1;
        if (name == "--quiet") {
            options.quiet = true;
            continue;
        }
        if (name == "--sabotage" && has_value && Sabotage::known(argv[i + 1])) {
            options.sabotage = argv[i + 1];
        } else if (name == "--seconds" && value > 0) {
            options.length = std::chrono::seconds(value);
        } else if (name == "--callers" && value > 0) {
            options.callers = static_cast<std::size_t>(value);
        } else if (name == "--seed" && value >= 0) {
            options.seed = static_cast<std::uint32_t>(value);
        } else {
            status = name == "--help" || name == "-h" ? 0 : 2;
            std::fprintf(status == 0 ? stdout : stderr, "%s\n%21s%s\n", usage, "",
                         Sabotage::names().c_str());
            return std::nullopt;
        }
        ++i;
    }
    return options;
}

}  // namespace psycache::soak
