#include "soak/report.hpp"

#include <algorithm>
#include <cstdio>

namespace psycache::soak {

namespace {

constexpr std::uint64_t most_printed = 20;

void print_lines(const char* title, const char* longest, const Tally& tally) {
    std::printf("\n%-18s %-52s %10s %14s\n", title, "", "count", longest);
    for (const auto& [names, line] : tally.lines()) {
        std::printf("%-18s %-52s %10llu %12.3f s\n", names.first.c_str(), names.second.c_str(),
                    static_cast<unsigned long long>(line.count), seconds(line.longest));
    }
}

}  // namespace

void Violations::report(const std::string& what, const std::string& details) {
    const std::lock_guard lock(mutex_);
    if (++count_ <= most_printed) {
        std::printf("VIOLATION after %.3f s: %s\n%s", seconds(Clock::now() - begun_), what.c_str(),
                    details.c_str());
        std::fflush(stdout);
    }
}

void Tally::count(std::string_view kind, std::string_view ending, Clock::duration took) {
    const std::lock_guard lock(mutex_);
    Line& line = lines_[{std::string(kind), std::string(ending)}];
    ++line.count;
    line.longest = std::max(line.longest, took);
}

Tally::Lines Tally::lines() const {
    const std::lock_guard lock(mutex_);
    return lines_;
}

void print_summary(const Report& report) {
    print_lines("call", "slowest", report.calls);
    print_lines("fault", "longest to heal", report.faults);
    std::printf("\nviolations: %llu\n", static_cast<unsigned long long>(report.violations.count()));
    std::fflush(stdout);
}

}  // namespace psycache::soak
