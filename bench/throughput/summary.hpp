// What the rounds say together.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "throughput/matrix.hpp"
#include "throughput/memory.hpp"
#include "throughput/paced.hpp"

namespace bench {

struct Spread {
    double min = 0;
    double median = 0;
    double max = 0;
};

/// nullopt of nothing.
std::optional<Spread> spread_of(std::vector<double> numbers);

/// What a sample says, or nothing where the contender does not tell.
using Figure = std::function<std::optional<double>(const Sample&)>;

std::optional<double> rate_of(const Sample& sample);
std::optional<double> p50_of(const Sample& sample);
std::optional<double> p99_of(const Sample& sample);
std::optional<double> p999_of(const Sample& sample);
std::optional<double> client_cpu_of(const Sample& sample);
std::optional<double> server_cpu_of(const Sample& sample);

/// Over all rounds of a case.
std::optional<Spread> over_rounds(const Case& measured, const Figure& figure);

/// Round by round, so that a busy minute of the machine falls on both sides.
std::optional<Spread> ratio(const Case* measured, const Case* reference, const Figure& figure);

/// What the cases of a group are compared with; null where it was not measured.
struct References {
    const Case* libpq = nullptr;    // one caller
    const Case* pgbench = nullptr;  // as many connections as psycache's pool has
    const Case* redis = nullptr;    // redis-benchmark, 16 connections
};
References references_of(const Group& group);

/// All that was measured.
struct Results {
    std::vector<Group> groups{};
    std::vector<PacedSample> paced{};
    std::optional<MemorySample> memory{};
    /// What others took of the machine's CPU time while a round ran, from 0 to 1.
    std::vector<double> others{};
};

/// A promise, and whether it was kept.
struct Bar {
    std::string text;
    std::string wanted;  // "<= 1.15"; empty for a figure that is only shown
    std::optional<Spread> measured{};
    bool kept = false;
};
std::vector<Bar> bars(const Results& results, std::size_t value_size);

}  // namespace bench
