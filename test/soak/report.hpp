#pragma once

/// @file
/// What has happened: violations, calls by kind and ending, faults by kind.

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "soak/intervals.hpp"

namespace psycache::soak {

/// What must not have happened. Each is printed at once, with the time since the start; after a
/// number of them they are only counted. Safe for threads.
class Violations {
  public:
    void report(const std::string& what, const std::string& details = {});
    std::uint64_t count() const { return count_; }

  private:
    std::mutex mutex_;
    std::atomic<std::uint64_t> count_ = 0;
    const Time begun_ = Clock::now();
};

/// Counts by two names, with the longest time of each. Safe for threads.
class Tally {
  public:
    struct Line {
        std::uint64_t count = 0;
        Clock::duration longest{};
    };
    using Lines = std::map<std::pair<std::string, std::string>, Line>;

    void count(std::string_view kind, std::string_view ending, Clock::duration took);
    Lines lines() const;

  private:
    mutable std::mutex mutex_;
    Lines lines_;
};

struct Report {
    explicit Report(bool is_quiet) : quiet(is_quiet) {}

    const bool quiet;
    Violations violations;
    Tally calls;   ///< by kind and ending
    Tally faults;  ///< by kind; the longest time is that of healing
};

/// Prints what was counted.
void print_summary(const Report& report);

}  // namespace psycache::soak
