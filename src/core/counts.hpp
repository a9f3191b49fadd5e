#pragma once

#include <atomic>
#include <cstdint>

namespace psycache::detail {

/// What one cache counts, and CacheStatistics shows.
struct Counts {
    using Count = std::atomic<std::uint64_t>;

    Count hits{0};
    Count misses{0};
    Count puts{0};
    Count removes{0};
    Count touches{0};
    Count errors{0};
    Count timeouts{0};
    Count cancelled{0};
    Count outage_misses{0};
    Count dropped_writes{0};
    Count loads{0};
    Count load_joins{0};
    Count load_waits{0};
    Count load_failures{0};
    Count late_loads{0};
    Count stale_hits{0};
    Count statements{0};
    Count retries{0};
    Count evictions{0};
    Count cleanup_failures{0};
};

}  // namespace psycache::detail
