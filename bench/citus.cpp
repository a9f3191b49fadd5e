// What calls cost on a table that Citus distributes, beside a plain one: server CPU of all nodes.
//
// bench_citus [--callers N] [--shards N] [--workers N] [--milliseconds N] [--connections N]
//             [--rounds N] [--keys N]
//
// PSYCACHE_TEST_CITUS_DSN leads to the coordinator, as a superuser, PSYCACHE_TEST_DSN to the plain
// server. All servers run on this machine, as their CPU is read from /proc. It makes and drops a
// schema of its own on either, and has the shards placed on the first so many workers, whose
// `shouldhaveshards` it sets back.

#include <libpq-fe.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <psycache/psycache.hpp>

#include "numbers.hpp"
#include "sql.hpp"

namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;
using bench::Sql;
using Clock = std::chrono::steady_clock;

constexpr const char* schema = "psycache_bench_citus";

struct Options {
    unsigned callers = 64;
    unsigned shards = 4;
    unsigned workers = 0;
    unsigned milliseconds = 2000;
    unsigned connections = 16;
    unsigned rounds = 3;
    unsigned keys = 20'000;
};

constexpr bench::Number<Options> numbers[] = {
    {"--callers", &Options::callers, 1, 100'000, "callers"},
    {"--shards", &Options::shards, 1, 10'000, "shards"},
    {"--workers", &Options::workers, 0, 1000, "workers that have shards; 0 for all"},
    {"--milliseconds", &Options::milliseconds, 10, 600'000, "time of one measurement"},
    {"--connections", &Options::connections, 1, 1000, "PoolOptions::max_size"},
    {"--rounds", &Options::rounds, 1, 100, "measurements of each kind, of which the median counts"},
    {"--keys", &Options::keys, 1, 100'000'000, "entries"},
};

/// One line of /proc/PID/stat.
struct Process {
    int parent = 0;
    double own = 0;   // seconds of CPU
    double gone = 0;  // of children that have ended
};

std::optional<Process> look_at(const std::string& pid) {
    std::ifstream file("/proc/" + pid + "/stat");
    std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const std::size_t name_end = text.rfind(')');
    if (name_end == std::string::npos) {
        return std::nullopt;
    }
    std::istringstream fields(text.substr(name_end + 2));
    std::string state;
    Process process;
    std::string skipped;
    double user = 0;
    double system = 0;
    double gone_user = 0;
    double gone_system = 0;
    fields >> state >> process.parent;
    for (int i = 0; i < 9; ++i) {
        fields >> skipped;
    }
    fields >> user >> system >> gone_user >> gone_system;
    const double ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
    process.own = (user + system) / ticks;
    process.gone = (gone_user + gone_system) / ticks;
    return process;
}

/// The CPU of some servers, all their processes together.
class ServerCpu {
  public:
    void add(Sql& sql) {
        const auto backend = look_at(sql.exec("SELECT pg_backend_pid()"));
        if (!backend) {
            throw std::runtime_error("a server does not run on this machine");
        }
        postmasters_.insert(backend->parent);
    }
    double seconds() const {
        double sum = 0;
        for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
            const std::string pid = entry.path().filename();
            if (pid.find_first_not_of("0123456789") != std::string::npos) {
                continue;
            }
            if (const auto process = look_at(pid)) {
                if (postmasters_.contains(std::stoi(pid))) {
                    sum += process->own + process->gone;
                } else if (postmasters_.contains(process->parent)) {
                    sum += process->own;
                }
            }
        }
        return sum;
    }

  private:
    std::set<int> postmasters_;
};

struct Calls {
    Clock::time_point end;
    bool put = false;
    unsigned keys = 0;
    unsigned long count = 0;
    unsigned long misses = 0;
};

asio::awaitable<void> call_until(psycache::AsyncPostgresCache cache, Calls& calls, unsigned seed) {
    std::minstd_rand dice(seed);
    const json::object value{{"text", std::string(100, 'x')}};
    while (Clock::now() < calls.end) {
        const std::string key = "key:" + std::to_string(dice() % calls.keys);
        if (calls.put) {
            auto put = cache.put_raw(key, value, 1h);
            co_await std::move(put);
        } else {
            auto get = cache.get_raw(key);
            const auto found = co_await std::move(get);
            calls.misses += found ? 0 : 1;
        }
        ++calls.count;
    }
}

struct Cost {
    double rate = 0;
    double cpu = 0;     // microseconds a call
    double shared = 0;  // calls a statement
};

Cost measure(const std::string& dsn, const ServerCpu& cpu, const Options& options, bool put) {
    asio::io_context context;
    psycache::PoolOptions pool;
    pool.dsn = dsn;
    pool.max_size = options.connections;
    psycache::CacheOptions cache_options;
    cache_options.schema = schema;
    cache_options.timeout = 20s;
    psycache::AsyncPostgresCache cache(context.get_executor(), pool, cache_options);
    const auto run = [&](std::chrono::milliseconds time) {
        Calls calls;
        calls.end = Clock::now() + time;
        calls.put = put;
        calls.keys = options.keys;
        for (unsigned caller = 0; caller < options.callers; ++caller) {
            asio::co_spawn(context, call_until(cache, calls, caller + 1),
                           [](std::exception_ptr error) {
                               if (error) {
                                   std::rethrow_exception(error);
                               }
                           });
        }
        context.restart();
        context.run();
        return calls;
    };
    run(500ms);
    const auto statements = cache.statistics().statements;
    const double before = cpu.seconds();
    const auto start = Clock::now();
    const Calls calls = run(std::chrono::milliseconds(options.milliseconds));
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (calls.misses > 0) {
        throw std::runtime_error(std::to_string(calls.misses) + " gets found no entry");
    }
    Cost cost;
    cost.rate = static_cast<double>(calls.count) / seconds;
    cost.cpu = (cpu.seconds() - before) / static_cast<double>(calls.count) * 1e6;
    cost.shared = static_cast<double>(calls.count) /
                  static_cast<double>(cache.statistics().statements - statements);
    return cost;
}

void make_table(const std::string& dsn, Sql& sql) {
    sql.exec(std::string("DROP SCHEMA IF EXISTS ") + schema + " CASCADE; CREATE SCHEMA " + schema);
    psycache::TableOptions table;
    table.schema = schema;
    psycache::init_db(dsn, table);
}

void fill(Sql& sql, unsigned keys) {
    sql.exec("INSERT INTO " + std::string(schema) +
             ".psycache SELECT 'key:' || i, jsonb_build_object('text', repeat('x', 100)),"
             " now() + interval '1 day' FROM generate_series(0, " +
             std::to_string(keys - 1) + ") AS i");
    sql.exec("VACUUM ANALYZE " + std::string(schema) + ".psycache");
}

/// Has new shards placed on the first so many workers only, for as long as it lives.
class Placing {
  public:
    Placing(Sql& sql, unsigned workers) : sql_(sql) {
        const int all = std::stoi(sql_.exec(
            "SELECT count(*) FROM pg_dist_node WHERE groupid > 0 AND noderole = 'primary'"));
        const std::string limit = std::to_string(workers == 0 ? all : static_cast<int>(workers));
        sql_.exec(
            "CREATE TEMP TABLE before AS SELECT nodename, nodeport, shouldhaveshards, row_number()"
            " OVER (ORDER BY nodeid) <= " +
            limit + " AS wanted FROM pg_dist_node WHERE groupid > 0 AND noderole = 'primary'");
        set("wanted");
    }
    Placing(const Placing&) = delete;
    Placing& operator=(const Placing&) = delete;
    ~Placing() {
        try {
            set("shouldhaveshards");
        } catch (const std::exception& error) {
            std::fprintf(stderr, "bench_citus: %s\n", error.what());
        }
    }

  private:
    void set(const std::string& column) {
        sql_.exec("SELECT citus_set_node_property(nodename, nodeport, 'shouldhaveshards', " +
                  column + ") FROM before");
    }
    Sql& sql_;
};

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

void compare(const std::string& citus_dsn, const std::string& plain_dsn, const Options& options) {
    Sql citus(citus_dsn);
    Sql plain(plain_dsn);
    ServerCpu citus_cpu;
    ServerCpu plain_cpu;
    citus_cpu.add(citus);
    plain_cpu.add(plain);
    const std::string password =
        PQpass(citus.native()) != nullptr ? PQpass(citus.native()) : std::string();
    const int nodes = std::stoi(citus.exec("SELECT count(*) FROM pg_dist_node"));
    for (int i = 0; i < nodes; ++i) {
        const std::string at =
            " FROM pg_dist_node ORDER BY nodeid LIMIT 1 OFFSET " + std::to_string(i);
        const std::string node_dsn = "host='" + citus.exec("SELECT nodename" + at) +
                                     "' port=" + citus.exec("SELECT nodeport" + at) + " dbname='" +
                                     PQdb(citus.native()) + "' user='" + PQuser(citus.native()) +
                                     "'" + (password.empty() ? "" : " password='" + password + "'");
        Sql node(node_dsn);
        citus_cpu.add(node);
    }
    make_table(plain_dsn, plain);
    fill(plain, options.keys);
    make_table(citus_dsn, citus);
    const std::string table = std::string(schema) + ".psycache";
    {
        const Placing placing(citus, options.workers);
        citus.exec("SELECT create_distributed_table('" + table + "', 'key', shard_count := " +
                   std::to_string(options.shards) + ", colocate_with := 'none')");
    }
    fill(citus, options.keys);
    for (const bool put : {false, true}) {
        std::vector<double> rates[2];
        std::vector<double> costs[2];
        std::vector<double> shared[2];
        for (unsigned round = 0; round < options.rounds; ++round) {
            for (const bool distributed : {false, true}) {
                const Cost cost = measure(distributed ? citus_dsn : plain_dsn,
                                          distributed ? citus_cpu : plain_cpu, options, put);
                rates[distributed].push_back(cost.rate);
                costs[distributed].push_back(cost.cpu);
                shared[distributed].push_back(cost.shared);
            }
        }
        std::printf(
            "%s, %u callers, %u shards on %s workers: plain %.0f/s %.1f us %.1f calls a statement, "
            "distributed %.0f/s %.1f us of server CPU a call, %.1f calls a statement: %.1f times\n",
            put ? "put" : "get", options.callers, options.shards,
            options.workers == 0 ? "all" : std::to_string(options.workers).c_str(),
            median(rates[0]), median(costs[0]), median(shared[0]), median(rates[1]),
            median(costs[1]), median(shared[1]), median(costs[1]) / median(costs[0]));
        std::fflush(stdout);
    }
    for (Sql* sql : {&plain, &citus}) {
        sql->exec(std::string("DROP SCHEMA ") + schema + " CASCADE");
    }
}

}  // namespace

int main(int argc, char** argv) {
    return bench::run_with("bench_citus", numbers, argc, argv, [](const Options& options) {
        const char* const cluster = std::getenv("PSYCACHE_TEST_CITUS_DSN");
        if (cluster == nullptr) {
            throw bench::Usage("PSYCACHE_TEST_CITUS_DSN names no coordinator");
        }
        compare(cluster, bench::dsn(), options);
        return 0;
    });
}
