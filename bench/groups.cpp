// What tags and notifications cost a put, and how long groups of entries take to remove:
// bench_groups DSN puts|notify|removals [ENTRIES]. It makes and drops a schema of its own.

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <psycache/psycache.hpp>

#include "sql.hpp"

namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;
using bench::Sql;
using Clock = std::chrono::steady_clock;

const std::string schema = "psycache_bench_groups";

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Puts {
    std::size_t count = 0;
    Clock::time_point end;
};

asio::awaitable<void> put_until(psycache::AsyncPostgresCache cache, Puts& puts, unsigned seed,
                                std::size_t tags) {
    std::minstd_rand dice(seed);
    json::object value{{"text", std::string(180, 'x')}};
    while (Clock::now() < puts.end) {
        const unsigned key = static_cast<unsigned>(dice()) % 10'000;
        psycache::PutOptions options;
        for (std::size_t i = 0; i < tags; ++i) {
            options.tags.push_back("tag" + std::to_string((key * 7 + i * 13) % 1000));
        }
        auto put = cache.put_raw("key" + std::to_string(key), value, 1h, std::move(options));
        co_await std::move(put);
        ++puts.count;
    }
}

/// @returns puts per second.
double put_rate(const psycache::PoolOptions& pool, const psycache::CacheOptions& options,
                unsigned callers, std::size_t tags) {
    asio::io_context context;
    psycache::AsyncPostgresCache cache(context.get_executor(), pool, options);
    Puts puts;
    const auto start = Clock::now();
    puts.end = start + 1500ms;
    for (unsigned caller = 0; caller < callers; ++caller) {
        asio::co_spawn(context, put_until(cache, puts, caller + 1, tags),
                       [](std::exception_ptr error) {
                           if (error) {
                               std::rethrow_exception(error);
                           }
                       });
    }
    context.run();
    return static_cast<double>(puts.count) / seconds_since(start);
}

void compare_puts(const psycache::PoolOptions& pool, const psycache::CacheOptions& options) {
    constexpr std::array<std::size_t, 4> tags{0, 1, 3, 10};
    for (const unsigned callers : {1u, 64u}) {
        for (int round = 1; round <= 3; ++round) {
            std::printf("puts/s, %2u callers, round %d:", callers, round);
            for (const std::size_t count : tags) {
                std::printf("  %zu tags %8.0f", count, put_rate(pool, options, callers, count));
                std::fflush(stdout);
            }
            std::printf("\n");
        }
    }
}

/// Stores entries as any client would, with a tag each.
void fill(Sql& sql, const std::string& prefix, long count) {
    const std::string rows = " FROM generate_series(1, " + std::to_string(count) + ") AS i";
    sql.exec("INSERT INTO " + schema + ".psycache SELECT '" + prefix +
             "' || i, jsonb_build_object('text', repeat('x', 180)), now() + interval '1 day'" +
             rows);
    sql.exec("INSERT INTO " + schema + ".psycache_tags SELECT '" + prefix + "', '" + prefix +
             "' || i, now() + interval '1 day'" + rows);
}

/// Connections that listen to what the triggers tell, each with its thread.
class Listeners {
  public:
    Listeners(const char* dsn, unsigned count) {
        for (unsigned i = 0; i < count; ++i) {
            auto sql = std::make_shared<Sql>(dsn);
            sql->exec("LISTEN psycache_" +
                      sql->exec("SELECT '" + schema + ".psycache'::regclass::oid"));
            threads_.emplace_back([this, sql] { listen(sql->native()); });
        }
    }
    Listeners(const Listeners&) = delete;
    Listeners& operator=(const Listeners&) = delete;
    ~Listeners() {
        ending_ = true;
        for (std::thread& thread : threads_) {
            thread.join();
        }
    }
    unsigned long heard() const { return heard_; }

  private:
    void listen(PGconn* connection) {
        while (!ending_) {
            pollfd socket{PQsocket(connection), POLLIN, 0};
            ::poll(&socket, 1, 10);
            PQconsumeInput(connection);
            while (PGnotify* const notification = PQnotifies(connection)) {
                PQfreemem(notification);
                ++heard_;
            }
        }
    }

    std::atomic<bool> ending_{false};
    std::atomic<unsigned long> heard_{0};
    std::vector<std::thread> threads_;
};

void compare_notify(const char* dsn, Sql& sql, const psycache::PoolOptions& pool,
                    const psycache::CacheOptions& options) {
    struct Way {
        bool notify;
        unsigned listeners;
        std::vector<double> rates;
    };
    psycache::TableOptions table;
    table.schema = schema;
    table.notify = true;
    for (const unsigned callers : {1u, 64u}) {
        std::array<Way, 4> ways{{{false, 0, {}}, {true, 0, {}}, {false, 8, {}}, {true, 8, {}}}};
        for (int round = 1; round <= 3; ++round) {
            for (Way& way : ways) {
                sql.exec("TRUNCATE " + schema + ".psycache, " + schema + ".psycache_tags");
                psycache::drop_notify(dsn, table);
                fill(sql, "key", 10'000);
                if (way.notify) {
                    psycache::init_db(std::string(dsn), table);
                }
                const Listeners listeners(dsn, way.listeners);
                way.rates.push_back(put_rate(pool, options, callers, 0));
                std::printf(
                    "puts/s, %2u callers, round %d: %s triggers, %u listeners %8.0f "
                    "(%lu heard)\n",
                    callers, round, way.notify ? "with" : "without", way.listeners,
                    way.rates.back(), listeners.heard());
                std::fflush(stdout);
            }
        }
        for (Way& way : ways) {
            std::sort(way.rates.begin(), way.rates.end());
            std::printf("median, %2u callers: %s triggers, %u listeners %8.0f, %.2f\n", callers,
                        way.notify ? "with" : "without", way.listeners, way.rates[1],
                        way.rates[1] / ways[0].rates[1]);
        }
    }
}

void compare_removals(Sql& sql, psycache::PostgresCache& cache, long entries) {
    for (const bool index : {false, true}) {
        if (index) {
            sql.exec("CREATE INDEX ON " + schema + ".psycache (key text_pattern_ops)");
        }
        for (const long count : {10L, 10'000L, entries}) {
            for (const bool tag : {true, false}) {
                if (tag && index) {
                    continue;
                }
                sql.exec("TRUNCATE " + schema + ".psycache, " + schema + ".psycache_tags");
                fill(sql, "other", entries);
                fill(sql, "group", count);
                sql.exec("VACUUM ANALYZE " + schema + ".psycache");
                sql.exec("VACUUM ANALYZE " + schema + ".psycache_tags");
                const psycache::CallOptions patient(10min);
                const auto start = Clock::now();
                const auto removed = tag ? cache.remove_tag("group", patient)
                                         : cache.remove_prefix("group", patient);
                std::printf("%s of %ld among %ld others%s: %.1f ms (%lu)\n",
                            tag ? "remove_tag" : "remove_prefix", count, entries,
                            tag     ? ""
                            : index ? ", with an index"
                                    : ", without an index",
                            seconds_since(start) * 1000, static_cast<unsigned long>(removed));
                std::fflush(stdout);
            }
        }
    }
    const auto start = Clock::now();
    cache.clear();
    std::printf("clear: %.1f ms\n", seconds_since(start) * 1000);
}

}  // namespace

int main(int argc, char** argv) {
    const std::string what = argc > 2 ? argv[2] : "";
    if (what != "puts" && what != "notify" && what != "removals") {
        std::fprintf(stderr, "bench_groups DSN puts|notify|removals [ENTRIES]\n");
        return 2;
    }
    try {
        Sql sql(argv[1]);
        sql.exec("SET client_min_messages = error; DROP SCHEMA IF EXISTS " + schema +
                 " CASCADE; CREATE SCHEMA " + schema);
        psycache::TableOptions table;
        table.schema = schema;
        table.tags = true;
        psycache::init_db(std::string(argv[1]), table);
        psycache::PoolOptions pool;
        pool.dsn = argv[1];
        psycache::CacheOptions options;
        options.schema = schema;
        if (what == "puts") {
            compare_puts(pool, options);
        } else if (what == "notify") {
            compare_notify(argv[1], sql, pool, options);
        } else {
            psycache::PostgresCache cache(pool, options);
            compare_removals(sql, cache, argc > 3 ? std::atol(argv[3]) : 1'000'000);
        }
        sql.exec("DROP SCHEMA " + schema + " CASCADE");
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bench_groups: %s\n", error.what());
        return 1;
    }
    return 0;
}
