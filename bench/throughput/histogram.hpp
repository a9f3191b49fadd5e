// Latencies, counted in buckets whose width grows with the value.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace bench {

/// Nanoseconds up to 18 minutes, in a fixed 34 KiB however many are recorded. A percentile is off
/// by 0.8 % at most: every power of two is divided into 128 buckets.
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

    /// The latency that the given part of the recorded ones does not exceed, in microseconds; 0
    /// when nothing was recorded.
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

}  // namespace bench
