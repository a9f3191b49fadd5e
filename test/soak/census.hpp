#pragma once

/// @file
/// What this process holds, so that the end can be compared with the beginning.

#include <cstddef>
#include <cstdint>
#include <string>

#include "soak/report.hpp"
#include "soak/site.hpp"
#include "soak/spans.hpp"

namespace psycache::soak {

struct Census {
    static Census take(const Site& site);

    bool operator==(const Census&) const = default;
    std::string text() const;

    std::size_t descriptors = 0;
    std::size_t threads = 0;
    std::int64_t connections = 0;  ///< of the role of the caches, at the server
};

/// Reports what there is more than @p before, once there has been time for it to go.
void report_leaks(const Census& before, const Site& site, const OpenSpans& spans,
                  Violations& violations);

/// The memory of this process in bytes, without what it could give back; the least of several
/// looks.
std::size_t settled_memory();

/// Reports memory that has grown without a limit. Nothing under sanitizers, which keep what is
/// freed.
void report_growth(std::size_t before, std::size_t after, Violations& violations);

}  // namespace psycache::soak
