#pragma once

/// @file
/// What the benchmarks have in common: a server to run on, where client and server run, the
/// conditions that a report names, and the command line.

#include <libpq-fe.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <boost/json.hpp>
#include <boost/version.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <psycache/psycache.hpp>

namespace psycache_bench {

namespace json = boost::json;

using Clock = std::chrono::steady_clock;

struct Options {
    int rounds = 15;
    int calls = 1000;
    std::string json_file;
};

inline constexpr int key_count = 1000;
inline constexpr auto ttl = std::chrono::hours(1);

// ---- the server ---------------------------------------------------------------------------------

struct Clear {
    void operator()(PGresult* result) const { PQclear(result); }
};
using ResultPtr = std::unique_ptr<PGresult, Clear>;

class RawConnection {
  public:
    explicit RawConnection(const std::string& dsn) : connection_(PQconnectdb(dsn.c_str())) {
        if (PQstatus(connection_) != CONNECTION_OK) {
            const std::string why = PQerrorMessage(connection_);
            PQfinish(connection_);
            throw std::runtime_error(why);
        }
        PQsetClientEncoding(connection_, "UTF8");
    }
    RawConnection(const RawConnection&) = delete;
    RawConnection& operator=(const RawConnection&) = delete;
    ~RawConnection() { PQfinish(connection_); }

    PGconn* get() const { return connection_; }

    ResultPtr checked(PGresult* raw) const {
        ResultPtr result(raw);
        const ExecStatusType status = PQresultStatus(raw);
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
            throw std::runtime_error(PQerrorMessage(connection_));
        }
        return result;
    }
    ResultPtr execute(const std::string& sql) const {
        return checked(PQexec(connection_, sql.c_str()));
    }
    std::string value(const std::string& sql) const {
        const ResultPtr result = execute(sql);
        return PQgetvalue(result.get(), 0, 0);
    }

  private:
    PGconn* connection_;
};

/// A schema of this run with the cache's table in it.
class Schema {
  public:
    explicit Schema(const std::string& dsn) : name_(run_name()), admin_(dsn) {
        admin_.execute("CREATE SCHEMA " + name_);
        psycache::TableOptions options;
        options.schema = name_;
        psycache::init_db(admin_.get(), options);
    }
    Schema(const Schema&) = delete;
    Schema& operator=(const Schema&) = delete;
    ~Schema() {
        const ResultPtr dropped(
            PQexec(admin_.get(),
                   ("SET client_min_messages = error; DROP SCHEMA IF EXISTS " + name_ + " CASCADE")
                       .c_str()));
        if (PQresultStatus(dropped.get()) != PGRES_COMMAND_OK) {
            std::cerr << "could not drop the schema " << name_ << '\n';
        }
    }

    /// The server processes of all connections of this run; empty if they run on another machine.
    std::vector<pid_t> backends() const {
        const std::string host = PQhost(admin_.get());
        if (!host.empty() && host.front() != '/' && host != "localhost" && host != "127.0.0.1") {
            return {};
        }
        const ResultPtr rows = admin_.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = '" + name_ + "'");
        std::vector<pid_t> pids;
        for (int row = 0; row < PQntuples(rows.get()); ++row) {
            pids.push_back(static_cast<pid_t>(std::stol(PQgetvalue(rows.get(), row, 0))));
        }
        return pids;
    }

    const RawConnection& admin() const { return admin_; }
    const std::string& name() const { return name_; }

  private:
    /// Also what all connections of this run call themselves, unless the DSN says otherwise.
    static std::string run_name() {
        std::string name = "psycache_bench_" + std::to_string(getpid());
        setenv("PGAPPNAME", name.c_str(), 1);
        return name;
    }

    std::string name_;
    RawConnection admin_;
};

// ---- measuring ----------------------------------------------------------------------------------

inline double cpu_seconds() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/// The sample below which the given part of the sorted samples lies (nearest rank).
inline double quantile(const std::vector<double>& sorted, double part) {
    const auto last = static_cast<double>(sorted.size() - 1);
    return sorted[static_cast<std::size_t>(part * last + 0.5)];
}

using Samples = std::vector<double>;  // microseconds

struct Ratio {
    double min;
    double median;
    double max;
};

/// Of numbers that belong to the same rounds.
inline Ratio ratio_of(const std::vector<double>& numbers, const std::vector<double>& baseline) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        ratios.push_back(numbers[i] / baseline[i]);
    }
    std::sort(ratios.begin(), ratios.end());
    return {ratios.front(), quantile(ratios, 0.5), ratios.back()};
}

inline void check(bool condition, const char* what) {
    if (!condition) {
        throw std::runtime_error(std::string("a wrong answer: ") + what);
    }
}

// ---- where it runs ------------------------------------------------------------------------------

/// The CPUs that this program may use.
inline std::vector<int> usable_cpus() {
    std::vector<int> cpus;
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (CPU_ISSET(cpu, &set)) {
                cpus.push_back(cpu);
            }
        }
    }
#endif
    return cpus;
}

/// @returns whether the process may run on that CPU only, now; 0 is this thread.
inline bool pin(pid_t process, int cpu) {
#ifdef __linux__
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<std::size_t>(cpu), &set);
    return sched_setaffinity(process, sizeof set, &set) == 0;
#else
    return process < 0 && cpu < 0;
#endif
}

/// Whether it is a server process of this machine, and not some other process of that number.
inline bool is_server_process(pid_t process) {
    std::ifstream file("/proc/" + std::to_string(process) + "/cmdline");
    std::string title;
    return std::getline(file, title) && title.rfind("postgres", 0) == 0;
}

struct Placement {
    std::string name;
    int client_cpu;
    int server_cpu;
};

inline std::vector<Placement> possible_placements(const std::vector<pid_t>& backends) {
    const std::vector<int> cpus = usable_cpus();
    const bool allowed = !cpus.empty() && !backends.empty() &&
                         std::all_of(backends.begin(), backends.end(), [&cpus](pid_t backend) {
                             return is_server_process(backend) && pin(backend, cpus.front());
                         });
    if (!allowed) {
        return {{"as scheduled", -1, -1}};
    }
    std::vector<Placement> placements{{"together", cpus[0], cpus[0]}};
    if (cpus.size() > 1) {
        placements.push_back({"apart", cpus[0], cpus[1]});
    }
    return placements;
}

inline void place(const Placement& placement, const std::vector<pid_t>& backends) {
    if (placement.client_cpu < 0) {
        return;
    }
    bool done = pin(0, placement.client_cpu);
    for (const pid_t backend : backends) {
        done = pin(backend, placement.server_cpu) && done;
    }
    if (!done) {
        throw std::runtime_error("cannot pin client and server");
    }
}

// ---- what is stored -----------------------------------------------------------------------------

inline json::object example_value() {
    json::object value = {{"id", 4711},
                          {"name", "Ada Lovelace"},
                          {"mail", "ada@example.org"},
                          {"roles", {"reader", "writer", "admin"}},
                          {"score", 0.75},
                          {"active", true}};
    value["text"] = std::string(200 - json::serialize(value).size() - 10, 'x');
    return value;
}

inline std::string key_of(int i) {
    return "bench:key:" + std::to_string(i % key_count);
}

// ---- conditions and results ---------------------------------------------------------------------

inline double rounded(double number, double unit) {
    return static_cast<double>(static_cast<std::int64_t>(number / unit + 0.5)) * unit;
}

inline std::string processor() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("model name", 0) == 0) {
            return line.substr(line.find(':') + 2);
        }
    }
    return "unknown";
}

inline json::object conditions(const RawConnection& server, const Options& options,
                               const json::value& callers, std::size_t value_size) {
    const std::string host = PQhost(server.get());
    const bool socket = host.empty() || host.front() == '/';
#ifdef NDEBUG
    const char* const assertions = "off";
#else
    const char* const assertions = "on";
#endif
#ifdef __OPTIMIZE__
    const char* const optimized = "yes";
#else
    const char* const optimized = "no";
#endif
    json::object result;
    result["processor"] = processor();
    result["cores"] = std::thread::hardware_concurrency();
    double load = 0;
    getloadavg(&load, 1);
    result["load_average"] = rounded(load, 0.01);
    result["server"] = "PostgreSQL " + server.value("SHOW server_version");
    result["connection"] =
        socket ? "Unix socket, same machine" : (PQsslInUse(server.get()) != 0 ? "TCP, TLS" : "TCP");
    result["fsync"] = server.value("SHOW fsync");
    result["synchronous_commit"] = server.value("SHOW synchronous_commit");
    result["table"] = "UNLOGGED, with the index on expires_at";
    result["libpq"] = PQlibVersion();
    result["boost"] = BOOST_VERSION;
    result["compiler"] = __VERSION__;
    result["optimized"] = optimized;
    result["assertions"] = assertions;
    result["callers"] = callers;
    result["keys"] = key_count;
    result["value_bytes"] = value_size;
    result["rounds"] = options.rounds;
    result["calls_per_round"] = options.calls;
    return result;
}

inline void print_conditions(const json::object& conditions) {
    for (const auto& [name, value] : conditions) {
        std::cout << "  " << name << ": ";
        if (value.is_string()) {
            std::cout << value.as_string().c_str() << '\n';
        } else {
            std::cout << value << '\n';
        }
    }
}

inline std::string cell(const json::value& number, int precision) {
    std::ostringstream out;
    out << std::fixed << std::setprecision(precision) << number.to_number<double>();
    return out.str();
}

// ---- the program --------------------------------------------------------------------------------

inline int positive(const std::string& text, const std::string& option) {
    std::size_t used = 0;
    int number = 0;
    try {
        number = std::stoi(text, &used);
    } catch (const std::exception&) {
        used = 0;
    }
    if (used != text.size() || number < 1) {
        throw std::invalid_argument(option + " takes a positive number");
    }
    return number;
}

inline std::string dsn_of_environment() {
    for (const char* name : {"PSYCACHE_TEST_DSN", "PSYCACHE_DSN"}) {
        if (const char* dsn = std::getenv(name)) {
            return dsn;
        }
    }
    throw std::runtime_error("PSYCACHE_TEST_DSN or PSYCACHE_DSN must name a server");
}

inline Options parse(const std::string& program, Options options, int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (i + 1 < argc && argument == "--rounds") {
            options.rounds = positive(argv[++i], argument);
        } else if (i + 1 < argc && argument == "--calls") {
            options.calls = positive(argv[++i], argument);
        } else if (i + 1 < argc && argument == "--json") {
            options.json_file = argv[++i];
        } else {
            throw std::invalid_argument("usage: " + program +
                                        " [--rounds N] [--calls N] [--json FILE]");
        }
    }
    return options;
}

/// The whole of main: `measure` makes a report of a DSN and options, `print` shows it.
template <class Measure, class Print>
int run_benchmark(const std::string& program, const Options& defaults, int argc, char** argv,
                  Measure measure, Print print) {
    try {
        const Options options = parse(program, defaults, argc, argv);
        const json::object report = measure(dsn_of_environment(), options);
        print(report);
        if (!options.json_file.empty()) {
            std::ofstream file(options.json_file);
            file << report << '\n' << std::flush;
            if (!file) {
                throw std::runtime_error("cannot write " + options.json_file);
            }
        }
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << program << ": " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}

}  // namespace psycache_bench
