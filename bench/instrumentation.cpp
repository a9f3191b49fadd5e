// What it costs to be watched: gets by a cache without a provider, and by caches with one, on the
// same server, in the same run.
//
//     bench_instrumentation [--rounds N] [--calls N] [--json FILE]
//
// The server is that of PSYCACHE_TEST_DSN or PSYCACHE_DSN; everything happens in a schema of its
// own, which is dropped at the end. Every get is a hit. One caller makes one call at a time; many
// callers on one io_context share statements, so that the server and the network weigh less and
// what each call costs by itself weighs more.
//
// Every round runs every cache, in an order that shifts from round to round, so that a busy moment
// of the machine does not fall on one of them alone. A ratio is taken round by round to the cache
// without a provider, and shown with its spread. That cache runs twice: the ratio of the second to
// the first tells how much of all spreads is the machine's.

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <cstddef>
#include <exception>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <psycache/psycache.hpp>

#ifdef PSYCACHE_BENCH_PROMETHEUS
#include <prometheus/registry.h>

#include <psycache/instrumentation/prometheus.hpp>
#endif

#include "support.hpp"

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

using namespace psycache_bench;

// ---- what is compared ---------------------------------------------------------------------------

class EmptySpans : public psycache::CacheInstrumentation {
  public:
    std::unique_ptr<psycache::CacheGetSpan> start_cache_get_span(
        const psycache::SpanInfo&) override {
        return std::make_unique<psycache::CacheGetSpan>();
    }
};

struct Workload {
    int callers;
    int fraction;  // of --calls, made by each caller: rounds of all workloads take about as long
};
constexpr Workload workloads[] = {{1, 1}, {64, 4}};

/// The rounds of one cache with so many callers.
struct Measured {
    std::vector<double> p50;  // microseconds
    std::vector<double> cpu;  // microseconds per call
};

struct Variant {
    std::string name;
    psycache::AsyncPostgresCache cache;
    Measured measured[std::size(workloads)]{};
};

std::vector<Variant> make_variants(asio::io_context& context,
                                   const psycache::PoolOptions& pool_options,
                                   const psycache::CacheOptions& cache_options) {
    std::vector<Variant> variants;
    const auto add = [&](const char* name,
                         std::shared_ptr<psycache::CacheInstrumentation> provider) {
        psycache::CacheOptions options = cache_options;
        if (provider) {
            options.instrumentations.push_back(std::move(provider));
        }
        variants.push_back(
            {name, psycache::AsyncPostgresCache(context.get_executor(), pool_options, options)});
    };
    add("no provider", nullptr);
    add("no provider, again", nullptr);
    add("does nothing", std::make_shared<psycache::CacheInstrumentation>());
    add("empty spans", std::make_shared<EmptySpans>());
#ifdef PSYCACHE_BENCH_PROMETHEUS
    add("Prometheus", std::make_shared<psycache::PrometheusInstrumentation>(
                          std::make_shared<prometheus::Registry>()));
#endif
    return variants;
}

// ---- measuring ----------------------------------------------------------------------------------

asio::awaitable<void> get_hits(psycache::AsyncPostgresCache cache, int first, int calls,
                               Samples& samples) {
    for (int i = first; i < first + calls; ++i) {
        const auto start = Clock::now();
        auto value = co_await cache.get_raw(key_of(i), "bench");
        samples.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
        check(value.has_value(), "get hit");
    }
}

Samples run_workload(asio::io_context& context, const psycache::AsyncPostgresCache& cache,
                     const Workload& workload, int calls) {
    const int each = std::max(1, calls / workload.fraction);
    Samples samples;
    samples.reserve(static_cast<std::size_t>(each) * static_cast<std::size_t>(workload.callers));
    std::exception_ptr failure;
    for (int caller = 0; caller < workload.callers; ++caller) {
        // Apart from each other, so that no two callers ask for one key at the same time.
        const int first = caller * (key_count / workload.callers);
        asio::co_spawn(context, get_hits(cache, first, each, samples),
                       [&failure](std::exception_ptr e) {
                           if (e) {
                               failure = e;
                           }
                       });
    }
    context.restart();
    context.run();
    if (failure) {
        std::rethrow_exception(failure);
    }
    return samples;
}

void run_round(asio::io_context& context, Variant& variant, int calls, bool measure) {
    for (std::size_t i = 0; i < std::size(workloads); ++i) {
        const double cpu_before = cpu_seconds();
        Samples samples = run_workload(context, variant.cache, workloads[i], calls);
        const double cpu = cpu_seconds() - cpu_before;
        if (measure) {
            std::sort(samples.begin(), samples.end());
            variant.measured[i].p50.push_back(quantile(samples, 0.5));
            variant.measured[i].cpu.push_back(cpu * 1e6 / static_cast<double>(samples.size()));
        }
    }
}

// ---- results ------------------------------------------------------------------------------------

double median(std::vector<double> numbers) {
    std::sort(numbers.begin(), numbers.end());
    return quantile(numbers, 0.5);
}

/// One row for every variant.
void add_rows(json::array& rows, const std::vector<Variant>& variants, std::size_t workload,
              const char* measure, std::vector<double> Measured::*numbers) {
    const std::vector<double>& baseline = variants.front().measured[workload].*numbers;
    for (const Variant& variant : variants) {
        const std::vector<double>& own = variant.measured[workload].*numbers;
        const Ratio to_baseline = ratio_of(own, baseline);
        json::object spread = {{"to", variants.front().name},
                               {"min", rounded(to_baseline.min, 0.001)},
                               {"median", rounded(to_baseline.median, 0.001)},
                               {"max", rounded(to_baseline.max, 0.001)}};
        rows.push_back(json::object{{"callers", workloads[workload].callers},
                                    {"measure", measure},
                                    {"provider", variant.name},
                                    {"us", rounded(median(own), 0.01)},
                                    {"ratio", std::move(spread)}});
    }
}

void print(const json::object& report) {
    std::cout << "Gets that hit, by caches that are watched in different ways.\n";
    print_conditions(report.at("conditions").as_object());
    if (report.at("conditions").at("client_and_server") == "as scheduled") {
        std::cout << "\nNot pinned: the ratios can tell more of the scheduler than of the code.\n";
    }
    std::cout << "\n  callers  measure  provider                  us   ratio  (min - max)\n";
    std::string group;
    for (const json::value& row : report.at("results").as_array()) {
        const std::string callers = std::to_string(row.at("callers").as_int64());
        const std::string measure = row.at("measure").as_string().c_str();
        if (!group.empty() && group != callers + ' ' + measure) {
            std::cout << '\n';
        }
        group = callers + ' ' + measure;
        const json::value& spread = row.at("ratio");
        std::cout << "  " << std::left << std::setw(9) << callers << std::setw(9) << measure
                  << std::setw(20) << row.at("provider").as_string().c_str() << std::right
                  << std::setw(8) << cell(row.at("us"), 2) << std::setw(8)
                  << cell(spread.at("median"), 3) << "  (" << cell(spread.at("min"), 3) << " - "
                  << cell(spread.at("max"), 3) << ")\n";
    }
    std::cout << "\nCPU is the client's alone, user and system, per call. Numbers are medians of "
                 "rounds.\n";
}

// ---- the program --------------------------------------------------------------------------------

json::object measure(const std::string& dsn, const Options& options) {
    const Schema schema(dsn);
    const json::object value = example_value();

    psycache::PoolOptions pool_options;
    pool_options.dsn = dsn;
    psycache::CacheOptions cache_options;
    cache_options.schema = schema.name();
    asio::io_context context(1);
    std::vector<Variant> variants = make_variants(context, pool_options, cache_options);

    psycache::PostgresCache filler(pool_options, cache_options);
    for (int i = 0; i < key_count; ++i) {
        filler.put_raw(key_of(i), value, ttl);
    }
    schema.admin().execute("VACUUM ANALYZE " + schema.name() + ".psycache");

    // Also opens the connections, so that their processes are there to be placed.
    for (Variant& variant : variants) {
        run_round(context, variant, options.calls, false);
    }
    const std::vector<pid_t> backends = schema.backends();
    const Placement placement = possible_placements(backends).back();
    place(placement, backends);
    for (Variant& variant : variants) {
        run_round(context, variant, options.calls, false);  // warms up
    }
    for (int round = 0; round < options.rounds; ++round) {
        for (std::size_t i = 0; i < variants.size(); ++i) {
            const std::size_t turn = (i + static_cast<std::size_t>(round)) % variants.size();
            run_round(context, variants[turn], options.calls, true);
        }
    }

    json::array rows;
    add_rows(rows, variants, 0, "p50", &Measured::p50);
    add_rows(rows, variants, 0, "CPU", &Measured::cpu);
    add_rows(rows, variants, 1, "CPU", &Measured::cpu);

    json::array callers;
    json::array calls;
    for (const Workload& workload : workloads) {
        callers.push_back(workload.callers);
        calls.push_back(workload.callers * std::max(1, options.calls / workload.fraction));
    }
    json::object report;
    report["benchmark"] = "instrumentation";
    report["conditions"] =
        conditions(schema.admin(), options, callers, json::serialize(value).size());
    report["conditions"].as_object()["calls_per_round"] = std::move(calls);
    report["conditions"].as_object()["client_and_server"] = placement.name;
    report["results"] = std::move(rows);
    return report;
}

}  // namespace

int main(int argc, char** argv) {
    Options defaults;
    defaults.rounds = 25;
    defaults.calls = 2000;
    return run_benchmark("bench_instrumentation", defaults, argc, argv, measure, print);
}
