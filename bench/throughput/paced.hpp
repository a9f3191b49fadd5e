// Calls at a given rate, whether the answers keep up or not.
#pragma once

#include "throughput/contender.hpp"
#include "throughput/contenders.hpp"
#include "throughput/data.hpp"

namespace bench {

/// Latencies are counted from the moment a call was due, so that a pause counts for all calls that
/// had to wait for its end.
struct PacedSample {
    double offered = 0;  // calls per second
    double answered = 0;
    Percentiles psycache{};
    Percentiles one_by_one{};
};

inline constexpr std::size_t paced_callers = 64;
inline constexpr std::size_t paced_threads = 8;

/// Gets, of 64 coroutines on one AsyncPostgresCache, then of 8 threads with a plain libpq
/// connection each. Both take their calls from the same schedule.
PacedSample run_paced(const Arena& arena, const Data& data, double rate, Seconds time);

}  // namespace bench
