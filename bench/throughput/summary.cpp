#include "throughput/summary.hpp"

#include <algorithm>
#include <iomanip>
#include <sstream>
#include <utility>

namespace bench {

namespace {

constexpr std::size_t many = 64;
constexpr std::size_t redis_connections = 16;

enum class Want { at_most, at_least, more_than, less_than };

Bar bar(std::string text, Want want, double limit, std::optional<Spread> measured) {
    Bar result;
    result.text = std::move(text);
    result.measured = measured;
    std::ostringstream wanted;
    const auto median = measured ? measured->median : 0;
    switch (want) {
        case Want::at_most:
            wanted << "<= ";
            result.kept = measured && median <= limit;
            break;
        case Want::at_least:
            wanted << ">= ";
            result.kept = measured && median >= limit;
            break;
        case Want::more_than:
            wanted << "> ";
            result.kept = measured && median > limit;
            break;
        case Want::less_than:
            wanted << "< ";
            result.kept = measured && median < limit;
            break;
    }
    wanted << std::fixed << std::setprecision(2) << limit;
    result.wanted = wanted.str();
    return result;
}

Bar shown(std::string text, std::optional<Spread> measured) {
    Bar result;
    result.text = std::move(text);
    result.measured = measured;
    return result;
}

std::string connections(std::size_t count) {
    return std::to_string(count) + " connections";
}

}  // namespace

std::optional<Spread> spread_of(std::vector<double> numbers) {
    if (numbers.empty()) {
        return std::nullopt;
    }
    std::sort(numbers.begin(), numbers.end());
    const std::size_t middle = numbers.size() / 2;
    Spread spread;
    spread.min = numbers.front();
    spread.median =
        numbers.size() % 2 == 1 ? numbers[middle] : (numbers[middle - 1] + numbers[middle]) / 2;
    spread.max = numbers.back();
    return spread;
}

std::optional<double> rate_of(const Sample& sample) {
    return sample.rate();
}
std::optional<double> p50_of(const Sample& sample) {
    return sample.latency ? std::optional<double>(sample.latency->p50) : std::nullopt;
}
std::optional<double> p99_of(const Sample& sample) {
    return sample.latency ? std::optional<double>(sample.latency->p99) : std::nullopt;
}
std::optional<double> p999_of(const Sample& sample) {
    return sample.latency ? sample.latency->p999 : std::nullopt;
}
std::optional<double> client_cpu_of(const Sample& sample) {
    return sample.client_microseconds();
}
std::optional<double> server_cpu_of(const Sample& sample) {
    return sample.server_microseconds();
}

std::optional<Spread> over_rounds(const Case& measured, const Figure& figure) {
    std::vector<double> numbers;
    for (const std::optional<Sample>& sample : measured.rounds) {
        if (const auto number = sample ? figure(*sample) : std::nullopt) {
            numbers.push_back(*number);
        }
    }
    return spread_of(std::move(numbers));
}

std::optional<Spread> ratio(const Case* measured, const Case* reference, const Figure& figure) {
    if (measured == nullptr || reference == nullptr) {
        return std::nullopt;
    }
    std::vector<double> ratios;
    const std::size_t rounds = std::min(measured->rounds.size(), reference->rounds.size());
    for (std::size_t round = 0; round < rounds; ++round) {
        const auto& ours = measured->rounds[round];
        const auto& theirs = reference->rounds[round];
        const auto number = ours ? figure(*ours) : std::nullopt;
        const auto base = theirs ? figure(*theirs) : std::nullopt;
        if (number && base && *base > 0) {
            ratios.push_back(*number / *base);
        }
    }
    return spread_of(std::move(ratios));
}

References references_of(const Group& group) {
    const bool batch = group.workload.keys_per_call() > 1;
    References references;
    references.libpq = find_case(group, libpq_name, 1);
    references.pgbench =
        find_case(group, batch ? pgbench_batch_name : pgbench_name, default_pool_size());
    references.redis = batch ? find_case(group, redis_batch_name, 1)
                             : find_case(group, redis_name, redis_connections);
    return references;
}

std::vector<Bar> bars(const Results& results, std::size_t value_size) {
    const std::size_t pool = default_pool_size();
    const auto get = [&](const char* contender, std::size_t callers) {
        return find_case(results.groups, get_name, value_size, contender, callers);
    };
    const auto put = [&](const char* contender, std::size_t callers) {
        return find_case(results.groups, put_name, value_size, contender, callers);
    };
    const auto apart = [&](const char* contender) {
        return find_case(results.groups, get_apart_name, value_size, contender, 1);
    };
    const Case* const async = get(async_name, many);
    const Case* const async_put = put(async_name, many);

    std::vector<Bar> all;
    all.push_back(bar("1 caller: p50 of an async get / libpq + JSON", Want::at_most, 1.15,
                      ratio(get(async_name, 1), get(libpq_name, 1), p50_of)));
    all.push_back(bar("1 caller, on two cores: the same", Want::at_most, 1.15,
                      ratio(apart(async_name), apart(libpq_name), p50_of)));
    all.push_back(bar("1 caller: p50 of a blocking get / libpq + JSON", Want::at_most, 1.10,
                      ratio(get(blocking_name, 1), get(libpq_name, 1), p50_of)));
    all.push_back(bar("1 caller, on two cores: the same", Want::at_most, 1.10,
                      ratio(apart(blocking_name), apart(libpq_name), p50_of)));
    all.push_back(bar("64 callers: gets / pgbench prepared, " + connections(pool), Want::at_least,
                      3.5, ratio(async, get(pgbench_name, pool), rate_of)));
    for (const std::size_t other : {std::size_t{8}, many}) {
        all.push_back(shown("64 callers: gets / pgbench prepared, " + connections(other),
                            ratio(async, get(pgbench_name, other), rate_of)));
    }
    all.push_back(bar("64 callers: gets / Redis GET, 16 connections, no pipelining",
                      Want::more_than, 1,
                      ratio(async, get(redis_name, redis_connections), rate_of)));
    all.push_back(bar("64 callers: puts / pgbench prepared, " + connections(pool), Want::at_least,
                      2, ratio(async_put, put(pgbench_name, pool), rate_of)));
    for (const std::size_t other : {std::size_t{8}, many}) {
        all.push_back(shown("64 callers: puts / pgbench prepared, " + connections(other),
                            ratio(async_put, put(pgbench_name, other), rate_of)));
    }
    const auto busy = [&](const char* contender) {
        return find_case(results.groups, get_busy_name, value_size, contender, many);
    };
    all.push_back(shown("64 callers that work 20 us: gets of 2 threads / of 1",
                        ratio(busy(threads_name), busy(async_name), rate_of)));
    all.push_back(shown("64 callers that work 20 us: gets of 2 contexts / of 1",
                        ratio(busy(contexts_name), busy(async_name), rate_of)));
    all.push_back(bar("64 callers: client CPU of a get / that of libpq + JSON", Want::at_most, 0.30,
                      ratio(async, get(libpq_name, 1), client_cpu_of)));
    all.push_back(shown("64 callers: the same, with 8 threads of libpq",
                        ratio(async, get(libpq_name, 8), client_cpu_of)));

    std::vector<double> tails;
    for (const PacedSample& sample : results.paced) {
        tails.push_back(sample.psycache.p99 / sample.one_by_one.p99);
    }
    all.push_back(bar("64 callers at a given rate: p99 / that of 8 libpq threads", Want::at_most, 1,
                      spread_of(std::move(tails))));

    std::optional<Spread> growth;
    std::string calls;
    if (results.memory) {
        constexpr double mebibyte = 1024 * 1024;
        growth = spread_of({(results.memory->all_bytes - results.memory->first_bytes) / mebibyte});
        calls = ", from " + std::to_string(results.memory->first_calls) + " calls to " +
                std::to_string(results.memory->all_calls);
    }
    all.push_back(bar("growth of memory in MiB" + calls, Want::less_than, 1, growth));
    return all;
}

}  // namespace bench
