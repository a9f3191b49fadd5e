#include "throughput/report.hpp"

#include <boost/json/array.hpp>
#include <cmath>
#include <iomanip>
#include <ostream>
#include <sstream>
#include <utility>

namespace bench {

namespace {

std::string fixed(double number, int precision) {
    std::ostringstream text;
    text << std::fixed << std::setprecision(precision) << number;
    return text.str();
}

/// Fits a column whatever the unit's size: 0.52, 31.4, 1204.
std::string short_number(const std::optional<Spread>& spread) {
    if (!spread) {
        return "-";
    }
    const double number = spread->median;
    return fixed(number, number < 10 ? 2 : (number < 1000 ? 1 : 0));
}

std::string whole_number(const std::optional<Spread>& spread) {
    if (!spread) {
        return "-";
    }
    const std::string digits = fixed(spread->median, 0);
    std::string text;
    for (std::size_t i = 0; i < digits.size(); ++i) {
        if (i > 0 && (digits.size() - i) % 3 == 0) {
            text += ',';
        }
        text += digits[i];
    }
    return text;
}

std::string with_range(const std::optional<Spread>& spread) {
    if (!spread) {
        return "-";
    }
    return fixed(spread->median, 2) + " (" + fixed(spread->min, 2) + "-" + fixed(spread->max, 2) +
           ")";
}

/// A tenth of a per cent is more than any of this is good for.
json::value rounded(double number) {
    if (number == 0 || !std::isfinite(number)) {
        return 0;
    }
    const double unit = std::pow(10, std::floor(std::log10(std::abs(number))) - 4);
    return unit >= 1 ? std::round(number) : std::round(number / unit) / std::round(1 / unit);
}

json::value maybe(const std::optional<double>& number) {
    return number ? rounded(*number) : json::value();
}

json::value maybe(const std::optional<Spread>& spread) {
    if (!spread) {
        return {};
    }
    json::object object;
    object["median"] = rounded(spread->median);
    object["min"] = rounded(spread->min);
    object["max"] = rounded(spread->max);
    return object;
}

json::object to_json(const Sample& sample) {
    json::object object;
    object["calls"] = sample.calls;
    object["seconds"] = rounded(sample.seconds);
    object["calls_per_second"] = rounded(sample.rate());
    object["p50_us"] = maybe(p50_of(sample));
    object["p99_us"] = maybe(p99_of(sample));
    object["p999_us"] = maybe(p999_of(sample));
    object["client_cpu_us"] = maybe(client_cpu_of(sample));
    object["server_cpu_us"] = maybe(server_cpu_of(sample));
    return object;
}

json::object to_json(const Percentiles& percentiles) {
    json::object object;
    object["p50_us"] = rounded(percentiles.p50);
    object["p99_us"] = rounded(percentiles.p99);
    object["p999_us"] = maybe(percentiles.p999);
    return object;
}

json::object to_json(const Group& group, const Case& one) {
    json::object object;
    object["workload"] = group.workload.name;
    object["value_bytes"] = group.workload.value_size;
    object["contender"] = one.contender;
    object["callers"] = one.callers;
    if (!one.skipped.empty()) {
        object["skipped"] = one.skipped;
        return object;
    }
    json::array rounds;
    for (const std::optional<Sample>& sample : one.rounds) {
        rounds.push_back(sample ? json::value(to_json(*sample)) : json::value());
    }
    object["rounds"] = std::move(rounds);

    json::object summary;
    summary["calls_per_second"] = maybe(over_rounds(one, rate_of));
    summary["p50_us"] = maybe(over_rounds(one, p50_of));
    summary["p99_us"] = maybe(over_rounds(one, p99_of));
    summary["p999_us"] = maybe(over_rounds(one, p999_of));
    summary["client_cpu_us"] = maybe(over_rounds(one, client_cpu_of));
    summary["server_cpu_us"] = maybe(over_rounds(one, server_cpu_of));
    const References references = references_of(group);
    summary["throughput_to_libpq"] = maybe(ratio(&one, references.libpq, rate_of));
    summary["throughput_to_pgbench"] = maybe(ratio(&one, references.pgbench, rate_of));
    summary["throughput_to_redis"] = maybe(ratio(&one, references.redis, rate_of));
    object["summary"] = std::move(summary);
    return object;
}

void print_group(std::ostream& out, const Group& group) {
    out << '\n'
        << group.workload.name << ", " << group.workload.value_size << " bytes\n"
        << "  " << std::left << std::setw(30) << "contender" << std::right << std::setw(5)
        << "call-" << std::setw(10) << "calls" << std::setw(24) << "latency, us" << std::setw(14)
        << "CPU us/call" << std::setw(33) << "throughput, times that of" << '\n'
        << "  " << std::setw(30) << "" << std::setw(5) << "ers" << std::setw(10) << "/second"
        << std::setw(8) << "p50" << std::setw(8) << "p99" << std::setw(8) << "p99.9" << std::setw(7)
        << "client" << std::setw(7) << "server" << std::setw(25) << "libpq (1), pgbench (n)"
        << std::setw(8) << "Redis" << '\n';
    const References references = references_of(group);
    for (const Case& one : group.cases) {
        out << "  " << std::left << std::setw(30) << one.contender << std::right << std::setw(5)
            << one.callers;
        if (!one.skipped.empty()) {
            out << "  skipped: " << one.skipped << '\n';
            continue;
        }
        const bool alone = one.callers == 1 && references.libpq != nullptr;
        const auto reference = ratio(&one, alone ? references.libpq : references.pgbench, rate_of);
        const auto redis = ratio(&one, references.redis, rate_of);
        out << std::setw(10) << whole_number(over_rounds(one, rate_of)) << std::setw(8)
            << short_number(over_rounds(one, p50_of)) << std::setw(8)
            << short_number(over_rounds(one, p99_of)) << std::setw(8)
            << short_number(over_rounds(one, p999_of)) << std::setw(7)
            << short_number(over_rounds(one, client_cpu_of)) << std::setw(7)
            << short_number(over_rounds(one, server_cpu_of)) << std::setw(25)
            << with_range(reference) << std::setw(8)
            << (redis ? fixed(redis->median, 2) : std::string("-")) << '\n';
    }
}

std::optional<Spread> of_paced(const Results& results, double Percentiles::*figure,
                               Percentiles PacedSample::*side) {
    std::vector<double> numbers;
    for (const PacedSample& sample : results.paced) {
        numbers.push_back((sample.*side).*figure);
    }
    return spread_of(std::move(numbers));
}

void print_paced(std::ostream& out, const Results& results) {
    if (results.paced.empty()) {
        return;
    }
    std::vector<double> rates;
    for (const PacedSample& sample : results.paced) {
        rates.push_back(sample.offered);
    }
    out << "\nget hit at a given rate, " << whole_number(spread_of(std::move(rates)))
        << " calls a second; latencies in us from the moment a call was due\n";
    const auto line = [&](const char* name, std::size_t callers, Percentiles PacedSample::*side) {
        out << "  " << std::left << std::setw(30) << name << std::right << std::setw(5) << callers
            << std::setw(18) << short_number(of_paced(results, &Percentiles::p50, side))
            << std::setw(8) << short_number(of_paced(results, &Percentiles::p99, side)) << '\n';
    };
    line(async_name, paced_callers, &PacedSample::psycache);
    line(libpq_name, paced_threads, &PacedSample::one_by_one);
}

}  // namespace

void print_table(std::ostream& out, const Results& results) {
    for (const Group& group : results.groups) {
        print_group(out, group);
    }
    print_paced(out, results);
    if (const auto others = spread_of(results.others)) {
        out << "\nOther processes took " << fixed(others->median * 100, 0)
            << " % of the machine's CPU time (in single rounds " << fixed(others->min * 100, 0)
            << " to " << fixed(others->max * 100, 0) << " %).\n";
    }
    out << "\nMedians of the rounds; ratios are taken round by round: median (smallest-largest).\n"
           "Ratios are to libpq + JSON for one caller and otherwise to pgbench prepared with "
        << default_pool_size()
        << " connections, as many as\npsycache's pool; Redis is redis-benchmark with 16 "
           "connections and no pipelining. Of batches every key counts as a\ncall, their latency "
           "is that of the batch, and Redis runs MGET or MSET on one connection. The latency of "
           "pgbench's\npipelines is that of the whole pipeline. "
           "pgbench and redis-benchmark do not read the JSON.\n"
           "* the Python package's statements through pgbench (no Python running)\n";
}

void print_bars(std::ostream& out, const std::vector<Bar>& bars) {
    out << '\n';
    for (const Bar& bar : bars) {
        const char* verdict = "    ";
        if (!bar.wanted.empty()) {
            verdict = !bar.measured ? "none" : (bar.kept ? "pass" : "FAIL");
        }
        out << verdict << "  " << std::left << std::setw(70) << bar.text << std::right
            << std::setw(8) << bar.wanted << "  " << with_range(bar.measured) << '\n';
    }
}

json::object to_json(const json::object& conditions, const Results& results,
                     const std::vector<Bar>& bars) {
    json::object report;
    report["benchmark"] = "throughput";
    report["conditions"] = conditions;

    json::array cases;
    for (const Group& group : results.groups) {
        for (const Case& one : group.cases) {
            cases.push_back(to_json(group, one));
        }
    }
    report["cases"] = std::move(cases);

    json::array paced;
    for (const PacedSample& sample : results.paced) {
        json::object object;
        object["offered_per_second"] = rounded(sample.offered);
        object["answered_per_second"] = rounded(sample.answered);
        object[async_name] = to_json(sample.psycache);
        object[libpq_name] = to_json(sample.one_by_one);
        paced.push_back(std::move(object));
    }
    report["get_hit_at_a_given_rate"] = std::move(paced);

    json::array others;
    for (const double part : results.others) {
        others.push_back(rounded(part));
    }
    report["cpu_taken_by_others"] = std::move(others);

    if (results.memory) {
        json::object memory;
        memory["first_calls"] = results.memory->first_calls;
        memory["first_bytes"] = rounded(results.memory->first_bytes);
        memory["all_calls"] = results.memory->all_calls;
        memory["all_bytes"] = rounded(results.memory->all_bytes);
        report["memory"] = std::move(memory);
    }

    json::array judged;
    for (const Bar& bar : bars) {
        json::object object;
        object["bar"] = bar.text;
        object["wanted"] = bar.wanted;
        object["measured"] = maybe(bar.measured);
        if (!bar.wanted.empty() && bar.measured) {
            object["kept"] = bar.kept;
        }
        judged.push_back(std::move(object));
    }
    report["bars"] = std::move(judged);
    return report;
}

}  // namespace bench
