// How old what a near cache answers can be. Writers in other processes count upwards: by a cache,
// by the SQL that Python's psycache sends, and by psql. Readers in this one take what they find in
// memory, and know how long ago each number was committed. Ends with 1 if an answer was older than
// max_staleness, or older than what this process itself had written.
//
// bench_staleness [--OPTION NUMBER...] on the server of PSYCACHE_TEST_DSN or PSYCACHE_DSN, in a
// schema of its own that it makes and drops.

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/json/object.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <psycache/psycache.hpp>

#include "calls/measure.hpp"
#include "numbers.hpp"
#include "sql.hpp"

namespace bench {
namespace {

using namespace std::chrono_literals;

constexpr const char* schema = "psycache_staleness";
constexpr const char* application = "psycache_staleness";
constexpr std::size_t remembered = 1024;
constexpr std::size_t most_keys = 64;

struct Options {
    unsigned seconds = 10;
    unsigned keys = 8;
    unsigned readers = 2;
    unsigned pause = 5;
    unsigned max_staleness = 2000;
    unsigned terminate = 0;
};

constexpr Number<Options> numbers[] = {
    {"--seconds", &Options::seconds, 1, 86'400, "how long"},
    {"--keys", &Options::keys, 1, most_keys, "of each writer"},
    {"--readers", &Options::readers, 1, 64, "threads"},
    {"--pause", &Options::pause, 0, 60'000, "ms between two writes of a writer"},
    {"--max-staleness", &Options::max_staleness, 20, 60'000, "ms of NearCacheOptions"},
    {"--terminate", &Options::terminate, 0, 60'000,
     "ms after which the listener's session is ended, again and again; 0 for never"},
};

/// What all processes know of a key.
struct SharedKey {
    std::atomic<std::uint64_t> written{0};
    std::array<std::atomic<Clock::rep>, remembered> at{};
};
static_assert(std::atomic<Clock::rep>::is_always_lock_free, "others do not work between processes");

struct Shared {
    std::atomic<bool> over{false};
    std::array<std::array<SharedKey, most_keys>, 3> keys;
};

Shared& make_shared_memory() {
    void* const memory =
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        throw std::bad_alloc();
    }
    return *new (memory) Shared;
}

psycache::CacheOptions cache_options() {
    psycache::CacheOptions options;
    options.schema = schema;
    return options;
}

constexpr std::array<const char*, 3> writers{"a cache", "SQL as Python sends it", "psql"};

std::string key_of(std::size_t writer, std::size_t key) {
    return std::to_string(writer) + '/' + std::to_string(key);
}

/// Counts upwards until all is over.
/// @param write stores a number under a key, and has committed it when it returns.
template <class Write>
void count_upwards(Shared& shared, const Options& options, std::size_t writer, const Write& write) {
    std::minstd_rand random(static_cast<unsigned>(writer) + 1);
    while (!shared.over) {
        const std::size_t which = random() % options.keys;
        SharedKey& key = shared.keys[writer][which];
        const std::uint64_t next = key.written + 1;
        write(key_of(writer, which), next);
        key.at[next % remembered] = Clock::now().time_since_epoch().count();
        key.written = next;
        std::this_thread::sleep_for(std::chrono::milliseconds(options.pause));
    }
}

/// One of the other processes.
void run_writer(Shared& shared, const Options& options, std::size_t writer) {
    const std::string table = std::string(schema) + ".psycache";
    if (writer == 0) {
        psycache::PostgresCache cache(
            [] {
                psycache::PoolOptions pool;
                pool.dsn = dsn();
                return pool;
            }(),
            cache_options());
        count_upwards(shared, options, writer, [&](const std::string& key, std::uint64_t number) {
            cache.put(key, boost::json::object{{"n", number}}, 1h);
        });
    } else if (writer == 1) {
        Sql sql;
        count_upwards(shared, options, writer, [&](const std::string& key, std::uint64_t number) {
            sql.exec("INSERT INTO " + table + " (key, value, expires_at) VALUES ('" + key +
                     "', '{\"n\": " + std::to_string(number) +
                     "}', now() + interval '1 hour') ON CONFLICT (key) DO UPDATE SET value = "
                     "EXCLUDED.value, expires_at = EXCLUDED.expires_at");
        });
    } else {
        ::setenv("PSYCACHE_STALENESS_DSN", dsn().c_str(), 1);
        count_upwards(shared, options, writer, [&](const std::string& key, std::uint64_t number) {
            const std::string command = "psql -X -q \"$PSYCACHE_STALENESS_DSN\" -c \"UPDATE " +
                                        table +
                                        " SET value = '{\\\"n\\\": " + std::to_string(number) +
                                        "}' WHERE key = '" + key + "'\"";
            if (std::system(command.c_str()) != 0) {
                throw std::runtime_error("psql has failed");
            }
        });
    }
}

pid_t start_writer(Shared& shared, const Options& options, std::size_t writer) {
    const pid_t process = ::fork();
    if (process != 0) {
        return process;
    }
    try {
        run_writer(shared, options, writer);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bench_staleness: %s: %s\n", writers[writer], error.what());
        ::_exit(1);
    }
    ::_exit(0);
}

/// What one reader has found.
struct Tally {
    std::uint64_t answers = 0;
    std::uint64_t from_memory = 0;
    std::uint64_t stale = 0;
    std::uint64_t too_old = 0;
    std::uint64_t own_answers = 0;
    std::uint64_t own_wrong = 0;
    Histogram ages;  // of those that were stale

    void add(const Tally& other) {
        answers += other.answers;
        from_memory += other.from_memory;
        stale += other.stale;
        too_old += other.too_old;
        own_answers += other.own_answers;
        own_wrong += other.own_wrong;
        ages.add(other.ages);
    }
};

std::uint64_t number_in(const boost::json::object& value) {
    return value.at("n").to_number<std::uint64_t>();
}

Tally read_all(psycache::PostgresCache& cache, Shared& shared, const Options& options,
               std::size_t kinds, unsigned seed) {
    Tally tally;
    std::minstd_rand random(seed + 1);
    const std::string own = "own/" + std::to_string(seed);
    const auto max_age = std::chrono::milliseconds(options.max_staleness);
    for (std::uint64_t turn = 1; !shared.over; ++turn) {
        const std::size_t writer = random() % kinds;
        const std::size_t which = random() % options.keys;
        const SharedKey& key = shared.keys[writer][which];
        const std::uint64_t committed = key.written;
        const auto now = Clock::now();
        const std::string name = key_of(writer, which);
        auto value = cache.peek(name);
        tally.from_memory += value ? 1 : 0;
        if (!value) {
            value = cache.get_shared(name);
        }
        const std::uint64_t found = value ? number_in(*value) : 0;
        ++tally.answers;
        if (found < committed) {
            ++tally.stale;
            const bool known = committed - found < remembered;
            const Clock::time_point since(Clock::duration(key.at[(found + 1) % remembered].load()));
            tally.ages.record(known ? now - since : max_age * 2);
            tally.too_old += known && now - since <= max_age ? 0 : 1;
        }
        if (turn % 256 == 0) {
            cache.put_raw(own, boost::json::object{{"n", turn}}, 1h);
            for (int look = 0; look < 3; ++look) {
                value = cache.get_shared(own);
                ++tally.own_answers;
                tally.own_wrong += value && number_in(*value) == turn ? 0 : 1;
            }
            std::this_thread::sleep_for(1ms);  // leaves the processor to the writers
        }
    }
    return tally;
}

/// Ends the session of the listener now and then.
void terminate_listener(Shared& shared, const Options& options) {
    Sql sql;
    while (!shared.over) {
        std::this_thread::sleep_for(std::chrono::milliseconds(options.terminate));
        sql.exec(std::string("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
                             "application_name = '") +
                 application + "' AND query LIKE '%pg_notify%' AND pid <> pg_backend_pid()");
    }
}

int run(const Options& options) {
    Shared& shared = make_shared_memory();
    Sql sql;
    const std::string drop = std::string("DROP SCHEMA IF EXISTS ") + schema + " CASCADE";
    sql.exec(drop);
    sql.exec(std::string("CREATE SCHEMA ") + schema);
    psycache::TableOptions table;
    table.schema = schema;
    table.notify = true;
    psycache::init_db(dsn(), table);
    const bool has_psql = std::system("command -v psql >/dev/null") == 0;
    const std::size_t kinds = has_psql ? 3 : 2;
    if (has_psql) {
        sql.exec(std::string("INSERT INTO ") + schema +
                 ".psycache SELECT '2/' || i, '{\"n\": 0}', "
                 "now() + interval '1 day' FROM generate_series(0, 63) AS i");
    } else {
        std::fprintf(stderr, "psql is not installed: two kinds of writers\n");
    }
    std::vector<pid_t> processes;
    for (std::size_t writer = 0; writer < kinds; ++writer) {
        processes.push_back(start_writer(shared, options, writer));
    }

    Tally sum;
    psycache::CacheStatistics statistics;
    {
        psycache::PoolOptions pool;
        pool.dsn = dsn();
        ::setenv("PGAPPNAME", application, 1);
        psycache::CacheOptions near = cache_options();
        near.near_cache.emplace();
        near.near_cache->max_staleness = std::chrono::milliseconds(options.max_staleness);
        near.log = [](psycache::LogLevel, std::string_view) {};
        psycache::PostgresCache cache(pool, near);
        std::vector<Tally> tallies(options.readers);
        std::vector<std::thread> threads;
        for (unsigned i = 0; i < options.readers; ++i) {
            threads.emplace_back(
                [&, i] { tallies[i] = read_all(cache, shared, options, kinds, i); });
        }
        if (options.terminate > 0) {
            threads.emplace_back([&] { terminate_listener(shared, options); });
        }
        std::this_thread::sleep_for(std::chrono::seconds(options.seconds));
        shared.over = true;
        for (auto& thread : threads) {
            thread.join();
        }
        for (const Tally& tally : tallies) {
            sum.add(tally);
        }
        statistics = cache.statistics();
    }
    std::uint64_t written = 0;
    for (std::size_t writer = 0; writer < kinds; ++writer) {
        for (const SharedKey& key : shared.keys[writer]) {
            written += key.written;
        }
    }
    bool failed = false;
    for (const pid_t process : processes) {
        int status = 0;
        ::waitpid(process, &status, 0);
        failed = failed || status != 0;
    }
    sql.exec(drop);

    const auto percent = [&](std::uint64_t part) {
        return 100.0 * static_cast<double>(part) /
               static_cast<double>(std::max<std::uint64_t>(sum.answers, 1));
    };
    std::printf("writes by %zu other processes   %llu\n", kinds,
                static_cast<unsigned long long>(written));
    std::printf("answers                        %llu, %.1f %% of them from memory\n",
                static_cast<unsigned long long>(sum.answers), percent(sum.from_memory));
    std::printf(
        "older than the last commit     %.3f %%, by p50 %.0f us, p99 %.0f us, most %.0f us\n",
        percent(sum.stale), sum.ages.microseconds(0.5), sum.ages.microseconds(0.99),
        sum.ages.microseconds(1.0));
    std::printf("older than max_staleness       %llu\n",
                static_cast<unsigned long long>(sum.too_old));
    std::printf("own writes read                %llu, wrong %llu\n",
                static_cast<unsigned long long>(sum.own_answers),
                static_cast<unsigned long long>(sum.own_wrong));
    std::printf("last proof took                %lld us\n",
                static_cast<long long>(statistics.near_cache->lag.count()));
    return failed || sum.too_old > 0 || sum.own_wrong > 0 || sum.from_memory == 0 ? 1 : 0;
}

}  // namespace
}  // namespace bench

int main(int count, char** words) {
    return bench::run_with("bench_staleness", bench::numbers, count, words, bench::run);
}
