// What one call costs, alone: the cache against raw libpq, on the same server, in the same run.
//
//     bench_latency [--rounds N] [--calls N] [--json FILE]
//
// The server is that of PSYCACHE_TEST_DSN or PSYCACHE_DSN; everything happens in a schema of its
// own, which is dropped at the end. One caller, one call at a time: nothing is shared or pipelined
// here.
//
// Every round runs every variant, in an order that shifts from round to round, so that a busy
// moment of the machine does not fall on one of them alone. p50 and p99 are taken from all samples
// of a variant. The ratio is taken round by round, between the p50 of a variant and that of its raw
// counterpart, and shown with its spread.

#include <libpq-fe.h>

#include <algorithm>
#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <iomanip>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <psycache/psycache.hpp>

#include "support.hpp"

namespace asio = boost::asio;
namespace json = boost::json;

namespace {

using namespace psycache_bench;

// ---- raw libpq ----------------------------------------------------------------------------------

/// The statements that the cache sends for a lone call, as one writes them by hand: prepared once,
/// text format, blocking.
class RawCache {
  public:
    RawCache(const std::string& dsn, const std::string& schema) : connection_(dsn) {
        const std::string table = schema + ".psycache";
        prepare("get", "SELECT value FROM " + table +
                           " WHERE key = $1::text AND expires_at > statement_timestamp()");
        prepare("put",
                "INSERT INTO " + table +
                    " (key, value, expires_at) SELECT $1::text, $2::jsonb,"
                    " coalesce(statement_timestamp() + $3::bigint * interval '1 microsecond',"
                    " 'infinity'::timestamptz)"
                    " ON CONFLICT (key) DO UPDATE SET value = excluded.value,"
                    " expires_at = excluded.expires_at");
    }

    bool get_text(const std::string& key) const { return PQntuples(select(key).get()) == 1; }
    std::optional<json::object> get(const std::string& key) const {
        const ResultPtr result = select(key);
        if (PQntuples(result.get()) == 0) {
            return std::nullopt;
        }
        const std::string_view text(PQgetvalue(result.get(), 0, 0),
                                    static_cast<std::size_t>(PQgetlength(result.get(), 0, 0)));
        return std::move(json::parse(text).as_object());
    }
    void put(const std::string& key, const json::object& value) const {
        static const std::string microseconds =
            std::to_string(std::chrono::microseconds(ttl).count());
        const std::string text = json::serialize(value);
        const std::array<const char*, 3> values{key.c_str(), text.c_str(), microseconds.c_str()};
        connection_.checked(
            PQexecPrepared(connection_.get(), "put", 3, values.data(), nullptr, nullptr, 0));
    }

  private:
    void prepare(const char* name, const std::string& sql) const {
        connection_.checked(PQprepare(connection_.get(), name, sql.c_str(), 0, nullptr));
    }
    ResultPtr select(const std::string& key) const {
        const std::array<const char*, 1> values{key.c_str()};
        return connection_.checked(
            PQexecPrepared(connection_.get(), "get", 1, values.data(), nullptr, nullptr, 0));
    }

    RawConnection connection_;
};

// ---- measuring ----------------------------------------------------------------------------------

/// One way of making one kind of call.
struct Variant {
    std::string operation;
    std::string way;
    std::string baseline;  // the way that its ratio is taken to
    std::function<void(int calls, Samples& samples)> run;

    Samples samples{};        // all rounds
    Samples round_medians{};  // one per round
    std::uint64_t calls = 0;
    double cpu = 0;  // seconds, all rounds

    void forget() {
        samples.clear();
        round_medians.clear();
        calls = 0;
        cpu = 0;
    }
};

Ratio ratio(const Variant& variant, const Variant& baseline) {
    return ratio_of(variant.round_medians, baseline.round_medians);
}

void run_round(Variant& variant, int calls, bool measure) {
    Samples samples;
    samples.reserve(static_cast<std::size_t>(calls));
    const double cpu_before = cpu_seconds();
    variant.run(calls, samples);
    const double cpu = cpu_seconds() - cpu_before;
    if (!measure) {
        return;
    }
    variant.cpu += cpu;
    variant.calls += samples.size();
    variant.samples.insert(variant.samples.end(), samples.begin(), samples.end());
    std::sort(samples.begin(), samples.end());
    variant.round_medians.push_back(quantile(samples, 0.5));
}

/// Times `call(i)` for so many i.
template <class Call>
std::function<void(int, Samples&)> blocking(Call call) {
    return [call](int calls, Samples& samples) {
        for (int i = 0; i < calls; ++i) {
            const auto start = Clock::now();
            call(i);
            samples.push_back(
                std::chrono::duration<double, std::micro>(Clock::now() - start).count());
        }
    };
}

template <class Call>
asio::awaitable<void> time_calls(const Call& call, int calls, Samples& samples) {
    for (int i = 0; i < calls; ++i) {
        const auto start = Clock::now();
        co_await call(i);
        samples.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    }
}

/// Times `co_await call(i)` for so many i, in one coroutine.
template <class Call>
std::function<void(int, Samples&)> awaiting(asio::io_context& context, Call call) {
    return [&context, call](int calls, Samples& samples) {
        std::exception_ptr failure;
        asio::co_spawn(context, time_calls(call, calls, samples),
                       [&failure](std::exception_ptr e) { failure = e; });
        context.restart();
        context.run();
        if (failure) {
            std::rethrow_exception(failure);
        }
    };
}

// ---- what is measured ---------------------------------------------------------------------------

std::string missing_key_of(int i) {
    return "bench:missing:" + std::to_string(i % key_count);
}

asio::awaitable<void> async_hit(psycache::AsyncPostgresCache cache, int i) {
    auto value = co_await cache.get_raw(key_of(i));
    check(value.has_value(), "async get hit");
}
asio::awaitable<void> async_miss(psycache::AsyncPostgresCache cache, int i) {
    auto value = co_await cache.get_raw(missing_key_of(i));
    check(!value.has_value(), "async get miss");
}

asio::awaitable<void> async_put(psycache::AsyncPostgresCache cache, int i,
                                const json::object& value) {
    co_await cache.put_raw(key_of(i), value, ttl);
}

std::vector<Variant> make_variants(const RawCache& raw, asio::io_context& context,
                                   psycache::AsyncPostgresCache async,
                                   psycache::PostgresCache& facade, const json::object& value) {
    const std::string libpq = "libpq";
    const std::string with_json = "libpq + JSON";
    const std::string async_name = "AsyncPostgresCache";
    const std::string facade_name = "PostgresCache";
    std::vector<Variant> variants;
    const auto add = [&variants](const char* operation, const std::string& way,
                                 const std::string& baseline,
                                 std::function<void(int, Samples&)> run) {
        Variant variant;
        variant.operation = operation;
        variant.way = way;
        variant.baseline = baseline;
        variant.run = std::move(run);
        variants.push_back(std::move(variant));
    };

    add("get hit", libpq, with_json,
        blocking([&raw](int i) { check(raw.get_text(key_of(i)), "libpq get hit"); }));
    add("get hit", with_json, with_json,
        blocking([&raw](int i) { check(raw.get(key_of(i)).has_value(), "libpq get hit"); }));
    add("get hit", async_name, with_json,
        awaiting(context, [async](int i) { return async_hit(async, i); }));
    add("get hit", facade_name, with_json, blocking([&facade](int i) {
            check(facade.get_raw(key_of(i)).has_value(), "blocking get hit");
        }));

    add("get miss", libpq, libpq, blocking([&raw](int i) {
            check(!raw.get(missing_key_of(i)).has_value(), "libpq get miss");
        }));
    add("get miss", async_name, libpq,
        awaiting(context, [async](int i) { return async_miss(async, i); }));
    add("get miss", facade_name, libpq, blocking([&facade](int i) {
            check(!facade.get_raw(missing_key_of(i)).has_value(), "blocking get miss");
        }));

    add("put", with_json, with_json,
        blocking([&raw, &value](int i) { raw.put(key_of(i), value); }));
    add("put", async_name, with_json,
        awaiting(context, [async, &value](int i) { return async_put(async, i, value); }));
    add("put", facade_name, with_json,
        blocking([&facade, &value](int i) { facade.put_raw(key_of(i), value, ttl); }));
    return variants;
}

const Variant& baseline_of(const std::vector<Variant>& variants, const Variant& variant) {
    return *std::find_if(variants.begin(), variants.end(), [&variant](const Variant& other) {
        return other.operation == variant.operation && other.way == variant.baseline;
    });
}

// ---- conditions and results ---------------------------------------------------------------------

json::array results(const std::vector<Variant>& variants) {
    json::array rows;
    for (const Variant& variant : variants) {
        Samples sorted = variant.samples;
        std::sort(sorted.begin(), sorted.end());
        const Ratio to_baseline = ratio(variant, baseline_of(variants, variant));
        json::object spread = {{"to", variant.baseline},
                               {"min", rounded(to_baseline.min, 0.001)},
                               {"median", rounded(to_baseline.median, 0.001)},
                               {"max", rounded(to_baseline.max, 0.001)}};
        rows.push_back(json::object{
            {"operation", variant.operation},
            {"variant", variant.way},
            {"p50_us", rounded(quantile(sorted, 0.5), 0.01)},
            {"p99_us", rounded(quantile(sorted, 0.99), 0.01)},
            {"client_cpu_us",
             rounded(variant.cpu * 1e6 / static_cast<double>(variant.calls), 0.01)},
            {"ratio", std::move(spread)},
        });
    }
    return rows;
}

void print_table(const std::string& placement, const json::array& rows) {
    std::cout << "\nclient and server process: " << placement
              << "\n  operation  variant              p50 us   p99 us  CPU us  ratio of p50 to"
                 "       median  (min - max)\n";
    std::string operation;
    for (const json::value& row : rows) {
        const json::value& spread = row.at("ratio");
        if (!operation.empty() && operation != row.at("operation").as_string().c_str()) {
            std::cout << '\n';
        }
        operation = row.at("operation").as_string().c_str();
        std::cout << "  " << std::left << std::setw(11) << operation << std::setw(19)
                  << row.at("variant").as_string().c_str() << std::right << std::setw(8)
                  << cell(row.at("p50_us"), 1) << std::setw(9) << cell(row.at("p99_us"), 1)
                  << std::setw(8) << cell(row.at("client_cpu_us"), 1) << "  " << std::left
                  << std::setw(20) << spread.at("to").as_string().c_str() << std::right
                  << std::setw(8) << cell(spread.at("median"), 2) << "  ("
                  << cell(spread.at("min"), 2) << " - " << cell(spread.at("max"), 2) << ")\n";
    }
}

void print(const json::object& report) {
    std::cout << "One call at a time, against raw libpq in the same run.\n";
    print_conditions(report.at("conditions").as_object());
    for (const json::value& placement : report.at("placements").as_array()) {
        if (placement.at("client_and_server") == "as scheduled") {
            std::cout
                << "\nNot pinned: the ratios can tell more of the scheduler than of the code.\n";
        }
        print_table(placement.at("client_and_server").as_string().c_str(),
                    placement.at("results").as_array());
    }
    std::cout << "\nCPU is the client's alone, user and system, per call. The ratios are of the "
                 "rounds' medians.\n";
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
    const psycache::AsyncPostgresCache async(context.get_executor(), pool_options, cache_options);
    psycache::PostgresCache facade(pool_options, cache_options);
    const RawCache raw(dsn, schema.name());

    for (int i = 0; i < key_count; ++i) {
        raw.put(key_of(i), value);
    }
    schema.admin().execute("VACUUM ANALYZE " + schema.name() + ".psycache");

    // Also opens the connections, so that their processes are there to be placed.
    std::vector<Variant> variants = make_variants(raw, context, async, facade, value);
    for (Variant& variant : variants) {
        run_round(variant, 1, false);
    }
    const std::vector<pid_t> backends = schema.backends();

    json::array placements;
    for (const Placement& placement : possible_placements(backends)) {
        place(placement, backends);
        for (Variant& variant : variants) {
            variant.forget();
            run_round(variant, std::min(options.calls, 200), false);  // warms up
        }
        for (int round = 0; round < options.rounds; ++round) {
            for (std::size_t i = 0; i < variants.size(); ++i) {
                const std::size_t turn = (i + static_cast<std::size_t>(round)) % variants.size();
                run_round(variants[turn], options.calls, true);
            }
        }
        json::object measured = {{"client_and_server", placement.name},
                                 {"results", results(variants)}};
        placements.push_back(std::move(measured));
    }

    json::object report;
    report["benchmark"] = "latency";
    report["conditions"] = conditions(schema.admin(), options, 1, json::serialize(value).size());
    report["placements"] = std::move(placements);
    return report;
}

}  // namespace

int main(int argc, char** argv) {
    return run_benchmark("bench_latency", Options{}, argc, argv, measure, print);
}
