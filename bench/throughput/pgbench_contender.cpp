// PostgreSQL's own load generator: as much as the server gives with one statement for each call,
// and little client work.

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "throughput/child.hpp"
#include "throughput/contenders.hpp"
#include "throughput/histogram.hpp"
#include "throughput/measured.hpp"

namespace bench {

namespace {

using namespace std::chrono_literals;

/// Logging every call would slow it down.
constexpr const char* logged_part = "0.1";

/// What pgbench accepts nearest to the exponent of the others, 0.99.
constexpr const char* zipf_exponent = "1.001";

std::string draw(const Data& data, const Workload& workload, char digit, std::size_t fewer) {
    const std::string range = key_of(digit, 0) + ", " + key_of(digit, data.key_count() - 1 - fewer);
    return workload.zipf ? "\\set k random_zipfian(" + range + ", " + zipf_exponent + ")\n"
                         : "\\set k random(" + range + ")\n";
}

std::string statement(const std::string& table, const Workload& workload, Traffic traffic) {
    const bool python = traffic == Traffic::python;
    const std::string neighbours = "(SELECT (:k::bigint + i)::text FROM generate_series(0, " +
                                   std::to_string(batch_size - 1) + ") AS i)";
    switch (workload.operation) {
        case Operation::get_many:
            return "SELECT key, value FROM " + table + " WHERE key = ANY(ARRAY" + neighbours +
                   ") AND expires_at > statement_timestamp();\n";
        case Operation::put_many:
            return "INSERT INTO " + table +
                   " (key, value, expires_at) SELECT k, :v::jsonb, statement_timestamp() +"
                   " :ttl::bigint * interval '1 microsecond' FROM " +
                   neighbours +
                   " AS e(k) ON CONFLICT (key) DO UPDATE SET value = excluded.value,"
                   " expires_at = excluded.expires_at;\n";
        case Operation::put:
        case Operation::put_text:
            return (python ? python_put_sql(table, ":k", ":v", ":expiry")
                           : put_sql(table, ":k", ":v", ":ttl")) +
                   ";\n";
        default:
            return (python ? python_get_sql(table, ":k") : get_sql(table, ":k")) + ";\n";
    }
}

std::string script(const Data& data, const std::string& table, const Workload& workload,
                   Traffic traffic, std::size_t connections) {
    const bool writes = workload.operation == Operation::put ||
                        workload.operation == Operation::put_text ||
                        workload.operation == Operation::put_many;
    const char digit = writes ? put_digit : (workload.miss ? miss_digit : hit_digit);
    const std::size_t fewer = workload.keys_per_call() - 1;
    const std::string one =
        draw(data, workload, digit, fewer) + statement(table, workload, traffic);
    if (workload.operation == Operation::mix) {
        Workload put = workload;
        put.operation = Operation::put;
        return "\\set kind random(1, " + std::to_string(mix_period) + ")\n\\if :kind = 1\n" +
               draw(data, put, put_digit, 0) + statement(table, put, traffic) + "\\else\n" + one +
               "\\endif\n";
    }
    if (traffic != Traffic::pipelined) {
        return one;
    }
    // pgbench 15 cannot prepare inside of a pipeline; it prepares all of a script's statements when
    // it sends the first.
    std::string next = one;
    if (writes) {
        // A pipeline is one transaction: with the same keys its connections would deadlock.
        const std::string share = std::to_string(data.key_count() / connections);
        const std::string first = key_of(digit, 0) + " + :client_id * " + share;
        next = "\\set k random(" + first + ", " + first + " + " + share + " - 1)\n" +
               statement(table, workload, traffic);
    }
    std::string text = "\\if :first\nSELECT 1;\n\\set first 0\n\\endif\n\\startpipeline\n";
    for (std::size_t i = 0; i < pgbench_pipeline; ++i) {
        text += next;
    }
    return text + "\\endpipeline\n";
}

/// The number behind a text such as "tps = ".
double number_after(const std::string& output, const std::string& text) {
    const std::size_t at = output.find(text);
    if (at == std::string::npos) {
        throw std::runtime_error("pgbench does not say \"" + text + "\": " + output);
    }
    return std::stod(output.substr(at + text.size()));
}

class PgbenchContender : public Contender {
  public:
    PgbenchContender(const Postgres& server, const Data& data, const Workload& workload,
                     std::size_t connections, Traffic traffic, const std::string& program)
        : server_(server), workload_(workload), traffic_(traffic) {
        // The server keeps a few for superusers, and this program holds one itself.
        if (connections + 10 > server.max_connections()) {
            throw Unavailable("the server's max_connections is too low");
        }
        const std::filesystem::path file = dir_.path() / "script.sql";
        std::ofstream(file) << script(data, server.table(data.value_size()), workload, traffic,
                                      connections);
        command_ = {program, "-n",
                    "-M",    traffic == Traffic::python ? "extended" : "prepared",
                    "-c",    std::to_string(connections),
                    "-j",    std::to_string(std::min<std::size_t>(connections, 2)),
                    "-f",    file.string(),
                    "-D",    "v=" + data.put_text(),
                    "-D",    "ttl=" + std::to_string(entry_ttl.count()),
                    "-D",    "expiry=2099-12-31T00:00:00Z",
                    "-D",    "first=1"};
    }

    /// It throws answers away; what the statements answer is known from the other contenders. That
    /// they run at all is told by the exit code.
    void verify() override { start_only(); }

    /// Its connections are new in every run; run() starts it once to no effect.
    void warm_up(Seconds /*time*/) override {}

    Sample run(Seconds time) override {
        // What connecting costs is not the calls': it is measured alone and subtracted.
        const Sample idle = start_only();
        const std::string prefix = (dir_.path() / "latency").string();
        const auto seconds = std::max(1, static_cast<int>(std::ceil(time.count() - 0.01)));
        Sample sample = execute({"-T", std::to_string(seconds), "-l", "--sampling-rate",
                                 logged_part, "--log-prefix", prefix},
                                Seconds(seconds));
        sample.latency = percentiles(logged_latencies());
        sample.client_cpu = std::max(sample.client_cpu - idle.client_cpu, 0.0);
        if (sample.server_cpu && idle.server_cpu) {
            sample.server_cpu = std::max(*sample.server_cpu - *idle.server_cpu, 0.0);
        }
        return sample;
    }

  private:
    Sample start_only() { return execute({"-t", "1"}, 0s); }

    Sample execute(std::initializer_list<std::string> more, Seconds time) {
        std::vector<std::string> command = command_;
        command.insert(command.end(), more);
        command.push_back(server_.dsn());

        const std::optional<double> server_before = server_.cpu_seconds();
        const ChildResult result = run_child(command, time + Seconds(30));
        // Until the server has noticed that its processes ended.
        std::this_thread::sleep_for(20ms);
        const std::optional<double> server_after = server_.cpu_seconds();

        Sample sample;
        const double transactions =
            number_after(result.output, "number of transactions actually processed: ");
        sample.seconds = transactions / number_after(result.output, "tps = ");
        const std::size_t statements = traffic_ == Traffic::pipelined ? pgbench_pipeline : 1;
        sample.calls =
            static_cast<std::uint64_t>(transactions) * statements * workload_.keys_per_call();
        sample.client_cpu = result.cpu;
        if (server_before && server_after) {
            sample.server_cpu = *server_after - *server_before;
        }
        return sample;
    }

    /// @returns what the logs hold, and removes them.
    Histogram logged_latencies() const {
        Histogram histogram;
        for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
            if (entry.path().filename().string().rfind("latency", 0) != 0) {
                continue;
            }
            std::ifstream file(entry.path());
            for (std::string line; std::getline(file, line);) {
                std::istringstream fields(line);
                std::uint64_t client = 0;
                std::uint64_t number = 0;
                std::int64_t microseconds = 0;
                if (fields >> client >> number >> microseconds) {
                    histogram.record(std::chrono::microseconds(microseconds));
                }
            }
            file.close();
            std::filesystem::remove(entry.path());
        }
        return histogram;
    }

    const Postgres& server_;
    const Workload workload_;
    const Traffic traffic_;
    TempDir dir_;
    std::vector<std::string> command_;
};

}  // namespace

std::optional<std::string> find_pgbench() {
    if (const char* folder = std::getenv("PSYCACHE_TEST_PG_BIN")) {
        std::string program = std::string(folder) + "/pgbench";
        if (access(program.c_str(), X_OK) == 0) {
            return program;
        }
    }
    return find_program("pgbench");
}

std::unique_ptr<Contender> pgbench(const Arena& arena, const Data& data, const Workload& workload,
                                   std::size_t connections, Traffic traffic) {
    const std::optional<std::string> program = find_pgbench();
    if (!program) {
        throw Unavailable("there is no pgbench (Debian: postgresql-contrib or postgresql-15)");
    }
    return std::make_unique<PgbenchContender>(*arena.postgres, data, workload, connections, traffic,
                                              *program);
}

}  // namespace bench
