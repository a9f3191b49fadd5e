// How the cost of calls grows: with the rows of the table, and with the callers that call at the
// same time. Prints two tables, which gnuplot can read; bench/run scale makes a picture of them.
//
// bench_scale [--OPTION NUMBER...] on the server of PSYCACHE_TEST_DSN or PSYCACHE_DSN, in a schema
// of its own that it makes and drops. Ten million rows take 4 GB there.

#include <unistd.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/object.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <exception>
#include <fstream>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <psycache/psycache.hpp>

#include "calls/measure.hpp"
#include "numbers.hpp"
#include "sql.hpp"

namespace bench {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

constexpr const char* schema = "psycache_scale";
constexpr const char* table = "psycache_scale.psycache";
constexpr unsigned expired_at_once = 10'000;

struct Options {
    unsigned most_rows = 10'000;
    unsigned most_callers = 10'000;
    unsigned callers = 64;
    unsigned milliseconds = 2000;
};

constexpr Number<Options> numbers[] = {
    {"--most-rows", &Options::most_rows, 10, 1'000'000, "thousand rows, at last"},
    {"--most-callers", &Options::most_callers, 1, 16'000, "coroutines, at last"},
    {"--callers", &Options::callers, 1, 16'000, "coroutines, while rows are added"},
    {"--milliseconds", &Options::milliseconds, 1, 3'600'000, "for each figure"},
};

/// @returns what this process has in memory, in KiB.
double resident_kib() {
    std::ifstream numbers_of_pages("/proc/self/statm");
    double total = 0;
    double resident = 0;
    numbers_of_pages >> total >> resident;
    return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1024;
}

/// @returns the CPU time of this process.
double cpu_seconds() {
    return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

enum class Operation { get, put };

/// What one measurement gave.
struct Measured {
    Histogram histogram;
    double most_kib = 0;
    double cpu = 0;
};

/// What all callers of one measurement share.
struct Run {
    psycache::AsyncPostgresCache cache;
    Operation operation;
    std::uint64_t rows;
    Clock::time_point from{};
    Clock::time_point until{};
    Measured measured{};
};

asio::awaitable<void> call_until_the_end(Run& run, unsigned seed) {
    std::mt19937_64 dice(seed);
    const json::object value{{"text", std::string(180, 'y')}};
    for (auto now = Clock::now(); now < run.until;) {
        std::string key = "key " + std::to_string(dice() % run.rows + 1);
        if (run.operation == Operation::get) {
            auto get = run.cache.get_raw(std::move(key));
            const auto found = co_await std::move(get);
            check(found.has_value(), "no entry");
        } else {
            auto put = run.cache.put_raw(std::move(key), value, 24h);
            co_await std::move(put);
        }
        const auto ended = Clock::now();
        if (now >= run.from) {
            run.measured.histogram.record(ended - now);
        }
        now = ended;
    }
}

asio::awaitable<void> watch(Run& run, asio::io_context& context) {
    asio::steady_timer timer(context);
    timer.expires_at(run.from);
    co_await timer.async_wait(asio::use_awaitable);
    Measured& measured = run.measured;
    measured.cpu = cpu_seconds();
    while (Clock::now() < run.until) {
        measured.most_kib = std::max(measured.most_kib, resident_kib());
        timer.expires_after(20ms);
        co_await timer.async_wait(asio::use_awaitable);
    }
    measured.cpu = cpu_seconds() - measured.cpu;
}

Measured run_callers(Operation operation, std::uint64_t rows, unsigned callers,
                     std::chrono::milliseconds measured) {
    asio::io_context context(1);
    psycache::PoolOptions pool;
    pool.dsn = dsn();
    psycache::CacheOptions options;
    options.schema = schema;
    options.timeout = 1min;
    Run run{psycache::AsyncPostgresCache(context.get_executor(), pool, options), operation, rows};
    std::exception_ptr failure;
    const auto ended = [&](std::exception_ptr why) { failure = failure ? failure : why; };
    const auto run_all = [&] {
        context.run();
        context.restart();
        if (failure) {
            std::rethrow_exception(failure);
        }
    };
    asio::co_spawn(context, run.cache.warm_up(), ended);
    run_all();
    run.from = Clock::now() + measured / 4;
    run.until = run.from + measured;
    for (unsigned i = 0; i < callers; ++i) {
        asio::co_spawn(context, call_until_the_end(run, i), ended);
    }
    asio::co_spawn(context, watch(run, context), ended);
    run_all();
    return run.measured;
}

void add_rows(Sql& sql, std::uint64_t have, std::uint64_t want) {
    sql.exec(std::string("INSERT INTO ") + table +
             " SELECT 'key ' || i, jsonb_build_object('text', repeat('x', 180)), now() +"
             " interval '1 day' + (i % 86400) * interval '1 second' FROM generate_series(" +
             std::to_string(have + 1) + ", " + std::to_string(want) + ") AS i");
    sql.exec(std::string("VACUUM (ANALYZE) ") + table);
    sql.exec("CHECKPOINT");
}

/// @returns the microseconds that a cleanup takes for each of many rows that have expired, and
/// those of one that finds none.
std::pair<double, double> time_cleanups(Sql& sql) {
    psycache::PoolOptions pool;
    pool.dsn = dsn();
    psycache::CacheOptions options;
    options.schema = schema;
    psycache::PostgresCache cache(pool, options);
    sql.exec(std::string("INSERT INTO ") + table +
             " SELECT 'expired ' || i, '{}', now() - interval '1 second' FROM generate_series(1, " +
             std::to_string(expired_at_once) + ") AS i");
    const auto start = Clock::now();
    check(cache.cleanup_expired() == expired_at_once, "other rows have expired");
    const auto between = Clock::now();
    cache.cleanup_expired();
    const auto end = Clock::now();
    return {Seconds(between - start).count() * 1e6 / expired_at_once,
            Seconds(end - between).count() * 1e6};
}

void run_all(const Options& options) {
    Sql sql;
    sql.exec(std::string("DROP SCHEMA IF EXISTS ") + schema + " CASCADE; CREATE SCHEMA " + schema);
    psycache::TableOptions made;
    made.schema = schema;
    psycache::init_db(sql.native(), made);
    const std::chrono::milliseconds measured(options.milliseconds);

    std::printf(
        "# rows table_mb get_us get_p99_us put_us put_p99_us gets_per_second "
        "puts_per_second cleanup_us_per_row idle_cleanup_us\n");
    std::uint64_t rows = 0;
    const std::uint64_t most = std::uint64_t{options.most_rows} * 1000;
    for (std::uint64_t want = 10'000; want <= most; want *= 10) {
        add_rows(sql, rows, want);
        rows = want;
        const double megabytes = std::stod(
            sql.exec(std::string("SELECT pg_total_relation_size('") + table + "') / 1048576.0"));
        const Measured get = run_callers(Operation::get, rows, 1, measured);
        const Measured put = run_callers(Operation::put, rows, 1, measured);
        const Measured gets = run_callers(Operation::get, rows, options.callers, measured);
        const Measured puts = run_callers(Operation::put, rows, options.callers, measured);
        const auto [cleanup, idle] = time_cleanups(sql);
        const auto rate = [&](const Measured& run) {
            return static_cast<double>(run.histogram.total()) / Seconds(measured).count();
        };
        std::printf("%llu %.1f %.1f %.1f %.1f %.1f %.0f %.0f %.2f %.0f\n",
                    static_cast<unsigned long long>(rows), megabytes,
                    get.histogram.microseconds(0.5), get.histogram.microseconds(0.99),
                    put.histogram.microseconds(0.5), put.histogram.microseconds(0.99), rate(gets),
                    rate(puts), cleanup, idle);
        std::fflush(stdout);
    }

    std::printf("\n\n# callers gets_per_second p50_us p99_us client_cpu_us kib_per_caller\n");
    const double before = resident_kib();
    for (unsigned callers = 1; callers <= options.most_callers; callers *= 10) {
        const Measured run = run_callers(Operation::get, rows, callers, measured);
        const auto calls = static_cast<double>(run.histogram.total());
        std::printf("%u %.0f %.1f %.1f %.2f %.1f\n", callers, calls / Seconds(measured).count(),
                    run.histogram.microseconds(0.5), run.histogram.microseconds(0.99),
                    run.cpu * 1e6 / calls, (run.most_kib - before) / callers);
        std::fflush(stdout);
    }
    sql.exec(std::string("DROP SCHEMA ") + schema + " CASCADE");
}

}  // namespace
}  // namespace bench

int main(int count, char** words) {
    return bench::run_with("bench_scale", bench::numbers, count, words,
                           [](const bench::Options& options) {
                               bench::run_all(options);
                               return 0;
                           });
}
