// What is measured of calls that run in this process.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>

namespace bench {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

/// What one run gave, by name: calls, calls_per_second, p50_us ...
using Figures = std::map<std::string, double>;

/// What cannot be measured here: a library is missing, say.
class Unavailable : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

inline void check(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("a wrong answer: " + what);
    }
}

inline Clock::time_point after(Seconds time) {
    return Clock::now() + std::chrono::duration_cast<Clock::duration>(time);
}

/// Latencies up to 18 minutes, in a fixed 34 KiB however many are recorded. A percentile is off by
/// 0.8 % at most: every power of two is divided into 128 buckets.
class Histogram {
  public:
    void record(std::chrono::nanoseconds latency) {
        const auto value = static_cast<std::uint64_t>(std::max<std::int64_t>(latency.count(), 0));
        ++counts_[index_of(std::min(value, largest))];
        ++total_;
    }
    void add(const Histogram& other) {
        for (std::size_t i = 0; i < counts_.size(); ++i) {
            counts_[i] += other.counts_[i];
        }
        total_ += other.total_;
    }
    std::uint64_t total() const { return total_; }

    /// The latency that the given part of the recorded ones does not exceed; 0 of none.
    double microseconds(double part) const {
        const auto wanted = static_cast<std::uint64_t>(part * static_cast<double>(total_));
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < counts_.size(); ++i) {
            seen += counts_[i];
            if (seen > wanted || (seen == total_ && seen > 0)) {
                return middle_of(i) / 1000;
            }
        }
        return 0;
    }

  private:
    static constexpr int bits = 7;
    static constexpr int width = 40;
    static constexpr std::uint64_t largest = (std::uint64_t{1} << width) - 1;

    static constexpr std::size_t index_of(std::uint64_t value) {
        const int shift = std::max(static_cast<int>(std::bit_width(value)) - bits - 1, 0);
        return (static_cast<std::size_t>(shift) << bits) + static_cast<std::size_t>(value >> shift);
    }
    static constexpr double middle_of(std::size_t index) {
        if (index < (std::size_t{2} << bits)) {
            return static_cast<double>(index);
        }
        const std::size_t shift = (index >> bits) - 1;
        const std::uint64_t lowest = (index - (shift << bits)) << shift;
        return static_cast<double>(lowest) + static_cast<double>(std::uint64_t{1} << shift) / 2;
    }

    std::array<std::uint64_t, static_cast<std::size_t>(width - bits + 1) << bits> counts_{};
    std::uint64_t total_ = 0;
};

/// User and system time of this process, all threads, in seconds.
double own_cpu_seconds();

/// Runs work(histogram), which records the latency of each call.
template <class Work>
Figures measured(std::size_t keys_per_call, Work work) {
    Histogram histogram;
    const double cpu_before = own_cpu_seconds();
    const auto start = Clock::now();
    work(histogram);
    const double seconds = Seconds(Clock::now() - start).count();
    const double cpu = own_cpu_seconds() - cpu_before;
    const auto calls = static_cast<double>(histogram.total() * keys_per_call);
    check(calls > 0, "no call was made");
    return {{"calls", calls},
            {"calls_per_second", calls / seconds},
            {"p50_us", histogram.microseconds(0.5)},
            {"p99_us", histogram.microseconds(0.99)},
            {"p999_us", histogram.microseconds(0.999)},
            {"client_cpu_us", cpu * 1e6 / calls}};
}

}  // namespace bench
