// Whether memory grows with the number of calls.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "throughput/contender.hpp"
#include "throughput/contenders.hpp"
#include "throughput/data.hpp"

namespace bench {

struct MemorySample {
    std::uint64_t first_calls = 0;
    std::uint64_t all_calls = 0;
    double first_bytes = 0;
    double all_bytes = 0;
};

/// Resident memory after the first and after all calls of one caller on one AsyncPostgresCache:
/// gets and a put now and then. Stops early when the time is over. nullopt where it cannot be told.
/// @param between is called now and then, and may throw to end it.
std::optional<MemorySample> run_memory(const Arena& arena, const Data& data,
                                       std::uint64_t first_calls, std::uint64_t all_calls,
                                       Seconds limit, const std::function<void()>& between);

}  // namespace bench
