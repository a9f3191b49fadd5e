// What becomes of a bounded table in an hour of traffic, compressed into minutes, with autovacuum:
// bench_traffic [--minutes N] [--limit ENTRIES] [--callers N]
//
// An hour of the traffic is played sixty times as fast at most: entries live for ten seconds
// instead of ten minutes, cleanups come every second, and autovacuum looks every second instead of
// every minute (ALTER SYSTEM, set back at the end: a superuser on a server of one's own). Puts come
// in a wave with a burst in it, then none at all. It makes and drops a schema of its own.

#include <algorithm>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <random>
#include <span>
#include <string>
#include <thread>

#include <psycache/psycache.hpp>

#include "numbers.hpp"
#include "sql.hpp"

namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;
using bench::Sql;
using Clock = std::chrono::steady_clock;

const std::string schema = "psycache_bench_traffic";
const std::string table = schema + ".psycache";

struct Options {
    unsigned minutes = 5;
    unsigned limit = 20'000;
    unsigned callers = 16;
};

constexpr bench::Number<Options> numbers[] = {
    {"--minutes", &Options::minutes, 1, 600, "how long it takes"},
    {"--limit", &Options::limit, 1000, 10'000'000, "CacheOptions::max_entries"},
    {"--callers", &Options::callers, 1, 1000, "callers that put"},
};

/// How much of the traffic there is at a time between 0 and 1: a wave, twice as high for a while,
/// and nothing in the last fifth.
double share_at(double time) {
    if (time > 0.8) {
        return 0;
    }
    const double wave = 0.5 - 0.5 * std::cos(time / 0.8 * 4 * std::acos(-1.0));
    return (0.2 + 0.8 * wave) * (time > 0.35 && time < 0.45 ? 1 : 0.5);
}

struct Traffic {
    Clock::time_point start;
    Clock::duration length;
    unsigned long puts = 0;

    double time() const { return std::chrono::duration<double>(Clock::now() - start) / length; }
};

asio::awaitable<void> put_until_the_end(psycache::AsyncPostgresCache cache, Traffic& traffic,
                                        unsigned seed) {
    std::minstd_rand dice(seed);
    asio::steady_timer pause(co_await asio::this_coro::executor);
    const json::object value{{"text", std::string(180, 'x')}};
    while (traffic.time() < 1) {
        const double share = share_at(traffic.time());
        if (share > 0) {
            auto put = cache.put_raw("key" + std::to_string(dice() % 10'000'000), value, 10s);
            co_await std::move(put);
            ++traffic.puts;
        }
        pause.expires_after(
            std::chrono::microseconds(share > 0 ? static_cast<long>(2000 / share) : 100'000));
        co_await pause.async_wait(asio::use_awaitable);
    }
}

/// Looks at the table from outside, as no cleanup does.
class Watch {
  public:
    explicit Watch(unsigned limit) : limit_(limit) {}

    void look(const Traffic& traffic, std::uint64_t evictions) {
        const long entries = number("SELECT count(*) FROM " + table);
        const long bytes = number("SELECT pg_total_relation_size('" + table + "')");
        const long vacuums =
            number("SELECT autovacuum_count FROM pg_stat_all_tables WHERE relid = '" + table +
                   "'::regclass");
        most_ = std::max(most_, entries);
        most_bytes_ = std::max(most_bytes_, bytes);
        std::printf(
            "%5.0f s  %6.0f puts/s  %8ld rows  %5.2f of the limit  %7.1f MB  %3ld autovacuums"
            "  %8lu evicted\n",
            std::chrono::duration<double>(Clock::now() - traffic.start).count(),
            static_cast<double>(traffic.puts - puts_) /
                std::chrono::duration<double>(Clock::now() - looked_).count(),
            entries, static_cast<double>(entries) / limit_, static_cast<double>(bytes) / 1e6,
            vacuums, static_cast<unsigned long>(evictions));
        std::fflush(stdout);
        puts_ = traffic.puts;
        looked_ = Clock::now();
        last_ = entries;
    }
    void conclude(const Traffic& traffic) const {
        std::printf(
            "%lu puts; at most %ld rows, %.2f of the limit, and %.1f MB; %ld rows at the end\n",
            traffic.puts, most_, static_cast<double>(most_) / limit_,
            static_cast<double>(most_bytes_) / 1e6, last_);
    }

  private:
    long number(const std::string& query) { return std::stol(sql_.exec(query)); }

    const unsigned limit_;
    Sql sql_;
    unsigned long puts_ = 0;
    Clock::time_point looked_ = Clock::now();
    long most_ = 0;
    long most_bytes_ = 0;
    long last_ = 0;
};

/// Has autovacuum look every second, for as long as it lives.
class FrequentVacuums {
  public:
    explicit FrequentVacuums(Sql& sql) : sql_(sql) { set("SET autovacuum_naptime = '1s'"); }
    FrequentVacuums(const FrequentVacuums&) = delete;
    FrequentVacuums& operator=(const FrequentVacuums&) = delete;
    ~FrequentVacuums() {
        try {
            set("RESET autovacuum_naptime");
        } catch (const std::exception& error) {
            std::fprintf(stderr, "bench_traffic: %s\n", error.what());
        }
    }

  private:
    void set(const std::string& what) {
        sql_.exec("ALTER SYSTEM " + what);
        sql_.exec("SELECT pg_reload_conf()");
    }

    Sql& sql_;
};

void play(const Options& options) {
    psycache::PoolOptions pool;
    pool.dsn = bench::dsn();
    psycache::CacheOptions cache_options;
    cache_options.schema = schema;
    cache_options.max_entries = options.limit;
    asio::io_context context;
    psycache::AsyncPostgresCache cache(context.get_executor(), pool, cache_options);
    Traffic traffic;
    traffic.start = Clock::now();
    traffic.length = std::chrono::minutes(options.minutes);
    asio::cancellation_signal no_more;
    asio::co_spawn(context, cache.run_cleanup(1s),
                   asio::bind_cancellation_slot(no_more.slot(), asio::detached));
    for (unsigned caller = 0; caller < options.callers; ++caller) {
        asio::co_spawn(context, put_until_the_end(cache, traffic, caller + 1),
                       [](std::exception_ptr error) {
                           if (error) {
                               std::rethrow_exception(error);
                           }
                       });
    }
    std::thread calls([&] { context.run(); });
    Watch watch(options.limit);
    while (traffic.time() < 1) {
        std::this_thread::sleep_for(traffic.length / 60);
        watch.look(traffic, cache.statistics().evictions);
    }
    asio::post(context, [&] { no_more.emit(asio::cancellation_type::terminal); });
    calls.join();
    watch.conclude(traffic);
}

}  // namespace

int main(int argc, char** argv) {
    return bench::run_with("bench_traffic", numbers, argc, argv, [](const Options& options) {
        Sql sql;
        sql.exec("DROP SCHEMA IF EXISTS " + schema + " CASCADE");
        sql.exec("CREATE SCHEMA " + schema);
        psycache::TableOptions table_options;
        table_options.schema = schema;
        psycache::init_db(bench::dsn(), table_options);
        {
            const FrequentVacuums vacuums(sql);
            play(options);
        }
        sql.exec("DROP SCHEMA " + schema + " CASCADE");
        return 0;
    });
}
