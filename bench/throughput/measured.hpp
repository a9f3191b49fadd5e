// Measures what runs in this process.
#pragma once

#include <algorithm>
#include <utility>

#include "throughput/contender.hpp"
#include "throughput/cpu_time.hpp"
#include "throughput/histogram.hpp"

namespace bench {

inline Percentiles percentiles(const Histogram& histogram) {
    Percentiles result;
    result.p50 = histogram.microseconds(0.5);
    result.p99 = histogram.microseconds(0.99);
    result.p999 = histogram.microseconds(0.999);
    return result;
}

/// Keeps this core busy for so long. @returns the time at its end.
inline Clock::time_point work_for(std::chrono::microseconds time) {
    const auto start = Clock::now();
    auto now = start;
    while (now - start < time) {
        now = Clock::now();
    }
    return now;
}

/// Runs work(histogram), which records the latency of each call.
template <class Work>
Sample measured(const ServerCpu& server, const Workload& workload, Work&& work) {
    Histogram histogram;
    const std::optional<double> server_before = server();
    const double cpu_before = own_cpu_seconds();
    const auto start = Clock::now();
    std::forward<Work>(work)(histogram);
    Sample sample;
    sample.seconds = Seconds(Clock::now() - start).count();
    sample.client_cpu = own_cpu_seconds() - cpu_before;
    const std::optional<double> server_after = server();
    if (server_before && server_after) {
        sample.server_cpu = std::max(*server_after - *server_before, 0.0);
    }
    sample.calls = histogram.total() * workload.keys_per_call();
    sample.latency = percentiles(histogram);
    return sample;
}

}  // namespace bench
