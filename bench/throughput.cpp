// Many ways of asking a cache, side by side: the library, plain libpq, libpqxx, pgbench and Redis.
//
// See --help, and bench/run, which installs what it compares with and starts a server for it.
//
// Contenders that are compared with each other run shortly after one another, in another order in
// every round, each on connections of its own, after a warm-up. What is told of a contender is the
// median of the rounds; ratios are taken round by round, so that a busy minute of the machine falls
// on both sides.

#include <libpq-fe.h>
#include <sys/utsname.h>

#include <algorithm>
#include <atomic>
#include <boost/json/serialize.hpp>
#include <boost/version.hpp>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "throughput/child.hpp"
#include "throughput/cpu_time.hpp"
#include "throughput/matrix.hpp"
#include "throughput/memory.hpp"
#include "throughput/paced.hpp"
#include "throughput/report.hpp"
#include "throughput/summary.hpp"
#include "throughput/svg.hpp"

namespace {

using namespace std::chrono_literals;
using namespace bench;

constexpr const char* help =
    R"(Usage: bench_throughput [--rounds N] [--seconds S] [--quick] [--limit S] [--json FILE] [--svg FILE]

The server is that of PSYCACHE_TEST_DSN or PSYCACHE_DSN; everything happens in schemas of its own, which
are dropped at the end. A Redis server is started for the run if there is one to start. Contenders whose
tool is missing are skipped.

  --rounds N    how often everything is measured (5); what is not marked with a + below, 3 times at most
  --seconds S   how long each contender runs in a round (1); pgbench takes whole seconds
  --limit S     no further round is begun that would not end by then (690)
  --quick       one round of a few contenders, 200-byte values: less than a minute
  --smoke       only to see that it works: no other programs, tiny counts
  --json FILE   every sample of every round, and the summary
  --svg FILE    a picture of gets per second against callers

Workloads, on 10,000 keys (2,000 of 16 KiB), values as JSON objects; and with how many callers:
  + get hit, 200 B    psycache async 1 8 64 256, blocking 1 8; libpq 1 8, also without parsing the JSON;
                      libpqxx 1 8; pgbench prepared 1 4 8 64, in pipelines of 20; the Python package's
                      statements through pgbench 8; redis-benchmark 1 8 16 64 256, -P 16 with 1 16 64;
                      hiredis 1, and one connection with 64 commands outstanding
  + get hit, 200 B, on two cores: the lone callers of the above once more
  + get hit, 200 B, callers that work 20 us between two calls: psycache async 64 with one thread, with two
                      on one io_context, with two that have one each; blocking 8; libpq 8
  + put, 200 B        overwrites: about the same
  get hit, Zipf       exponent 0.99 (pgbench: 1.001, the least it takes)
  get miss, mix 90/10 of gets and puts, 64 keys in one call, values as text
  get hit, put        with 100 B, 1 KiB and 16 KiB; values as text with the larger two
Then gets at half of pgbench's rate, with latencies counted from the moment a call was due; and memory
after 10,000 and 1,000,000 calls (--quick: 100,000).

Latencies of this program are from a histogram that is off by 0.8 % at most; pgbench's from its log of a
tenth of the calls; redis-benchmark tells no p99.9. Client CPU is that of this process or of the other
program; server CPU that of all processes of the server, in ticks of 10 ms. What pgbench needs to connect
is subtracted. A lone caller shares one core with its server, since the scheduler's choice of cores would
decide otherwise; "on two cores" puts them apart. All else runs where the scheduler puts it.
)";

struct Options {
    int rounds = 5;
    double seconds = 1;
    double limit = 690;
    Scale scale = Scale::whole;
    std::string json_file;
    std::string svg_file;
};

/// What must end in order: schemas have to be dropped, and the Redis server stopped.
std::atomic<bool> interrupted{false};

void stop_if_interrupted() {
    if (interrupted) {
        throw std::runtime_error("interrupted");
    }
}

double positive(const std::string& text, const std::string& option) {
    std::size_t used = 0;
    double number = 0;
    try {
        number = std::stod(text, &used);
    } catch (const std::exception&) {
        used = 0;
    }
    if (used != text.size() || !std::isfinite(number) || number <= 0 || number > 10000) {
        throw std::invalid_argument(option + " takes a positive number");
    }
    return number;
}

Options parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == "-h" || argument == "--help") {
            std::cout << help;
            std::exit(EXIT_SUCCESS);
        } else if (argument == "--quick") {
            options.scale = Scale::quick;
            options.rounds = 1;
        } else if (argument == "--smoke") {
            options.scale = Scale::smoke;
            options.rounds = 2;
            options.seconds = 0.02;
        } else if (i + 1 < argc && argument == "--rounds") {
            options.rounds = std::max(1, static_cast<int>(positive(argv[++i], argument)));
        } else if (i + 1 < argc && argument == "--seconds") {
            options.seconds = positive(argv[++i], argument);
        } else if (i + 1 < argc && argument == "--limit") {
            options.limit = positive(argv[++i], argument);
        } else if (i + 1 < argc && argument == "--json") {
            options.json_file = argv[++i];
        } else if (i + 1 < argc && argument == "--svg") {
            options.svg_file = argv[++i];
        } else {
            throw std::invalid_argument("unknown argument " + argument + "; see --help");
        }
    }
    return options;
}

std::string dsn_of_environment() {
    for (const char* name : {"PSYCACHE_TEST_DSN", "PSYCACHE_DSN"}) {
        if (const char* dsn = std::getenv(name)) {
            return dsn;
        }
    }
    throw std::runtime_error("PSYCACHE_TEST_DSN or PSYCACHE_DSN must name a server");
}

// ---- where it runs ------------------------------------------------------------------------------

std::string processor() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("model name", 0) == 0) {
            return line.substr(line.find(':') + 2);
        }
    }
    return "unknown";
}

std::string first_line_of(const std::vector<std::string>& command) {
    try {
        const std::string output = run_child(command, 5s).output;
        return output.substr(0, output.find('\n'));
    } catch (const std::exception&) {
        return "unknown";
    }
}

json::object conditions(const Arena& arena, const Options& options) {
    const PlainConnection& server = arena.postgres->admin();
    json::object result;
    result["processor"] = processor();
    result["cores"] = std::thread::hardware_concurrency();
    utsname system{};
    uname(&system);
    result["system"] = std::string(system.sysname) + " " + system.release;
    double load = 0;
    getloadavg(&load, 1);
    result["load_average"] = std::round(load * 100) / 100;
    result["server"] = "PostgreSQL " + server.value("SHOW server_version");
    const char* const host = PQhost(server.get());
    const bool socket = host == nullptr || *host == '\0' || *host == '/';
    result["connection"] = socket ? "Unix socket, same machine" : "TCP";
    result["fsync"] = server.value("SHOW fsync");
    result["synchronous_commit"] = server.value("SHOW synchronous_commit");
    result["table"] = "UNLOGGED, with the index on expires_at";
    const auto pgbench_program = find_pgbench();
    result["pgbench"] =
        pgbench_program ? first_line_of({*pgbench_program, "--version"}) : std::string("none");
    result["redis"] = arena.redis != nullptr ? arena.redis->version() : std::string("none");
    result["libpq"] = PQlibVersion();
    result["boost"] = BOOST_VERSION;
#ifdef __clang__
    result["compiler"] = __VERSION__;
#else
    result["compiler"] = "g++ " __VERSION__;
#endif
#ifdef __OPTIMIZE__
    result["optimized"] = "yes";
#else
    result["optimized"] = "no";
#endif
#ifdef NDEBUG
    result["assertions"] = "off";
#else
    result["assertions"] = "on";
#endif
    result["psycache_connections"] = default_pool_size();
    result["rounds"] = options.rounds;
    result["seconds_per_sample"] = options.seconds;
    return result;
}

// ---- measuring ----------------------------------------------------------------------------------

class Benchmark {
  public:
    explicit Benchmark(const Options& options)
        : options_(options), postgres_(dsn_of_environment()) {
        arena_.postgres = &postgres_;
        if (options_.scale != Scale::smoke) {
            try {
                redis_.emplace();
                arena_.redis = &*redis_;
            } catch (const Unavailable& why) {
                std::cerr << "skipped: Redis: " << why.what() << '\n';
            }
        }
        for (const std::size_t size : value_sizes(options_.scale)) {
            stop_if_interrupted();
            data_[size] = std::make_unique<Data>(size, key_count(options_.scale, size));
            postgres_.load(*data_[size]);
            if (redis_) {
                redis_->load(*data_[size]);
            }
        }
        results_.groups = matrix(options_.scale, arena_, data_);
        // Only of a server that was started for this run, which is when this is set: the others on
        // somebody's server shall not be moved along.
        const bool private_server =
            options_.scale != Scale::smoke && std::getenv("PSYCACHE_TEST_PG_BIN") != nullptr;
        if (private_server && postgres_.postmaster()) {
            servers_.push_back(*postgres_.postmaster());
            if (redis_) {
                servers_.push_back(redis_->process());
            }
            if (!can_place(servers_)) {
                servers_.clear();
            }
        }
    }

    void run() {
        measure_memory();
        double last = 0;
        for (int round = 0; round < options_.rounds; ++round) {
            const double before = elapsed();
            if (round > 0 && before + last > options_.limit) {
                std::cerr << "stopped after " << round << " rounds: the time is over\n";
                break;
            }
            const std::optional<double> taken_before = taken_by_others();
            run_round(round);
            const std::optional<double> taken = taken_by_others();
            if (taken_before && taken) {
                const double time =
                    (elapsed() - before) * std::max(1U, std::thread::hardware_concurrency());
                results_.others.push_back(std::max(*taken - *taken_before, 0.0) / time);
            }
            last = elapsed() - before;
        }
        std::cerr << "measured for " << static_cast<int>(elapsed()) << " seconds\n";
    }

    void report() const {
        json::object where = conditions(arena_, options_);
        where["one_caller"] = servers_.empty()
                                  ? "as scheduled: its ratios may tell more of the scheduler"
                                  : "client and server on one core unless it says otherwise";
        const std::vector<Bar> judged = bars(results_, main_data().value_size());
        const json::object whole = to_json(where, results_, judged);

        std::cout << "Side by side, in one sitting.\n";
        for (const auto& [name, value] : where) {
            std::cout << "  " << name << ": ";
            if (value.is_double()) {
                std::cout << value.as_double() << '\n';
            } else if (value.is_string()) {
                std::cout << value.as_string().c_str() << '\n';
            } else {
                std::cout << value << '\n';
            }
        }
        print_table(std::cout, results_);
        print_bars(std::cout, judged);

        if (!options_.json_file.empty()) {
            write(options_.json_file, json::serialize(whole) + "\n");
        }
        const std::string picture =
            throughput_picture(results_.groups.front(), picture_subtitle(where));
        if (!options_.svg_file.empty()) {
            write(options_.svg_file, picture);
        }
    }

  private:
    const Data& main_data() const { return *data_.at(value_sizes(options_.scale).front()); }
    double elapsed() const { return Seconds(Clock::now() - start_).count(); }

    /// CPU seconds; nullopt when it cannot be told, or the server runs elsewhere.
    std::optional<double> taken_by_others() const {
        const std::optional<double> machine = machine_cpu_seconds();
        const std::optional<double> postgres = postgres_.cpu_seconds();
        if (!machine || !postgres) {
            return std::nullopt;
        }
        const std::optional<double> redis = redis_ ? redis_->cpu_seconds() : std::nullopt;
        return *machine - *postgres - redis.value_or(0) - own_cpu_seconds() -
               children_cpu_seconds();
    }

    static void write(const std::string& name, const std::string& text) {
        std::ofstream file(name);
        file << text << std::flush;
        if (!file) {
            throw std::runtime_error("cannot write " + name);
        }
    }

    std::string picture_subtitle(const json::object& where) const {
        std::ostringstream text;
        const std::string server = where.at("server").as_string().c_str();
        // Without the words of the distribution.
        text << server.substr(0, server.find(" ("));
        if (arena_.redis != nullptr) {
            text << " and Redis " << arena_.redis->version();
        }
        text << ", Unix socket, " << where.at("processor").as_string().c_str() << ", "
             << where.at("cores") << " cores, values of " << main_data().value_size() << " bytes";
        return text.str();
    }

    /// First of all, while nothing else has used this process's memory.
    void measure_memory() {
        const bool whole = options_.scale == Scale::whole;
        if (options_.scale == Scale::smoke) {
            results_.memory = run_memory(arena_, main_data(), 10, 100, 10s, stop_if_interrupted);
            return;
        }
        std::cerr << "memory\n";
        // On one core, where a million calls one after the other take a third of the time.
        const Placed placed(Placement::together, servers_);
        results_.memory = run_memory(arena_, main_data(), 10000, whole ? 1000000 : 100000,
                                     whole ? 90s : 10s, stop_if_interrupted);
    }

    void run_round(int round) {
        for (Group& group : results_.groups) {
            if (!group.important && round >= 3) {
                continue;
            }
            std::cerr << "round " << round + 1 << '/' << options_.rounds << ": "
                      << group.workload.name << ", " << group.workload.value_size << " bytes\n";
            postgres_.tidy();
            std::vector<std::size_t> order(group.cases.size());
            std::iota(order.begin(), order.end(), std::size_t{0});
            // The same orders in every run.
            std::mt19937 random(static_cast<std::mt19937::result_type>(round + 1));
            std::shuffle(order.begin(), order.end(), random);
            for (const std::size_t turn : order) {
                stop_if_interrupted();
                run_case(group, group.cases[turn], round);
            }
        }
        run_paced_round();
    }

    void run_case(const Group& group, Case& one, int round) const {
        if (!one.skipped.empty()) {
            return;
        }
        one.rounds.resize(static_cast<std::size_t>(round));
        try {
            const Placed placed(one.placement, servers_);
            const std::unique_ptr<Contender> contender = one.make();
            if (round == 0) {
                contender->verify();
            }
            contender->warm_up(Seconds(std::min(0.15, options_.seconds / 4)));
            const Sample sample = contender->run(Seconds(options_.seconds));
            if (sample.calls == 0) {
                throw std::runtime_error("no call was made");
            }
            one.rounds.emplace_back(sample);
        } catch (const Unavailable& why) {
            one.skipped = why.what();
            std::cerr << "skipped: " << one.contender << ", " << group.workload.name << ": "
                      << why.what() << '\n';
        } catch (const std::exception& why) {
            throw std::runtime_error(one.contender + ", " + group.workload.name + ", " +
                                     std::to_string(one.callers) + " callers: " + why.what());
        }
    }

    /// At half of what one statement per call can do here.
    void run_paced_round() {
        stop_if_interrupted();
        const Group& gets = results_.groups.front();
        std::optional<Spread> most;
        for (const char* name : {pgbench_name, libpq_name}) {
            for (const std::size_t callers : {std::size_t{8}, std::size_t{1}}) {
                const Case* const found = find_case(gets, name, callers);
                if (!most && found != nullptr) {
                    most = over_rounds(*found, rate_of);
                }
            }
        }
        if (most) {
            std::cerr << "gets at a given rate\n";
            const double seconds =
                options_.seconds < 0.1 ? options_.seconds : std::max(2.0, options_.seconds);
            results_.paced.push_back(
                run_paced(arena_, main_data(), most->median / 2, Seconds(seconds)));
        }
    }

    const Options options_;
    const Clock::time_point start_ = Clock::now();
    Postgres postgres_;
    std::optional<Redis> redis_;
    Arena arena_;
    std::map<std::size_t, std::unique_ptr<Data>> data_;
    std::vector<pid_t> servers_;  // those that can be moved to another core
    Results results_;
};

}  // namespace

int main(int argc, char** argv) {
    try {
        const Options options = parse(argc, argv);
        for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
            std::signal(signal, [](int) { interrupted = true; });
        }
        Benchmark benchmark(options);
        benchmark.run();
        benchmark.report();
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "bench_throughput: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
