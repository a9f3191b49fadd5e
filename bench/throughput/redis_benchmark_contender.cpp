// Redis's own load generator.

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

#include "throughput/child.hpp"
#include "throughput/contenders.hpp"

namespace bench {

namespace {

using namespace std::chrono_literals;

/// redis-benchmark puts twelve random digits here.
constexpr const char* random_digits = "__rand_int__";

std::vector<std::string> fields_of(const std::string& line) {
    std::vector<std::string> fields;
    std::istringstream stream(line);
    for (std::string field; std::getline(stream, field, ',');) {
        field.erase(std::remove(field.begin(), field.end(), '"'), field.end());
        fields.push_back(field);
    }
    return fields;
}

class RedisBenchmarkContender : public Contender {
  public:
    RedisBenchmarkContender(const Redis& redis, const Data& data, const Workload& workload,
                            std::size_t connections, std::size_t pipeline,
                            const std::string& program)
        : redis_(redis),
          keys_per_call_(workload.keys_per_call()),
          step_(connections * pipeline),
          command_{program,
                   "-s",
                   redis.socket(),
                   "--dbnum",
                   std::to_string(redis.database(data.value_size())),
                   "--csv",
                   "-c",
                   std::to_string(connections),
                   "-P",
                   std::to_string(pipeline),
                   "-r",
                   std::to_string(data.key_count())},
          request_(request(data, workload)) {}

    /// It throws answers away; hiredis and the contenders on PostgreSQL look at theirs.
    void verify() override { execute(step_); }

    /// It runs a number of commands rather than a time: as many as the last run promises.
    Sample run(Seconds time) override {
        if (rate_ == 0) {
            rate_ = execute(std::max<std::size_t>(1000, step_)).rate() /
                    static_cast<double>(keys_per_call_);
        }
        const double commands = std::min(rate_ * time.count(), 50e6);
        const Sample sample = execute(std::max(static_cast<std::size_t>(commands), step_));
        rate_ = sample.rate() / static_cast<double>(keys_per_call_);
        return sample;
    }

  private:
    static std::vector<std::string> request(const Data& data, const Workload& workload) {
        const std::string get_key =
            (workload.miss ? miss_digit : hit_digit) + std::string(random_digits);
        const std::string put_key = put_digit + std::string(random_digits);
        const auto ttl = std::chrono::duration_cast<std::chrono::seconds>(entry_ttl);
        std::vector<std::string> words;
        switch (workload.operation) {
            case Operation::put:
            case Operation::put_text:
                return {"SET", put_key, data.put_text(), "EX", std::to_string(ttl.count())};
            case Operation::get_many:
                words = {"MGET"};
                words.insert(words.end(), batch_size, get_key);
                return words;
            case Operation::put_many:
                words = {"MSET"};
                for (std::size_t i = 0; i < batch_size; ++i) {
                    words.push_back(put_key);
                    words.push_back(data.put_text());
                }
                return words;
            default:
                return {"GET", get_key};
        }
    }

    Sample execute(std::size_t commands) const {
        std::vector<std::string> command = command_;
        command.insert(command.end(), {"-n", std::to_string(commands)});
        command.insert(command.end(), request_.begin(), request_.end());
        const std::optional<double> server_before = redis_.cpu_seconds();
        const ChildResult result = run_child(command, 60s);
        const std::optional<double> server_after = redis_.cpu_seconds();

        // A line of names and a line of figures: the command, rps, then milliseconds: average, min,
        // p50, p95, p99, max. Counted from the end, since a command can hold commas.
        const std::size_t break_at = result.output.find('\n');
        const std::vector<std::string> names = fields_of(result.output.substr(0, break_at));
        const std::vector<std::string> figures =
            fields_of(result.output.substr(std::min(break_at + 1, result.output.size())));
        if (names.size() < 8 || figures.size() < 8) {
            throw std::runtime_error("redis-benchmark answers: " + result.output);
        }
        const auto figure = [&figures](std::size_t from_end) {
            return std::stod(figures[figures.size() - from_end]);
        };
        Sample sample;
        sample.calls = commands * keys_per_call_;
        sample.seconds = static_cast<double>(commands) / figure(7);
        sample.client_cpu = result.cpu;
        Percentiles latency;
        latency.p50 = figure(4) * 1000;
        latency.p99 = figure(2) * 1000;
        sample.latency = latency;
        if (server_before && server_after) {
            sample.server_cpu = *server_after - *server_before;
        }
        return sample;
    }

    const Redis& redis_;
    const std::size_t keys_per_call_;
    const std::size_t step_;
    const std::vector<std::string> command_;
    const std::vector<std::string> request_;
    double rate_ = 0;  // commands per second
};

}  // namespace

std::unique_ptr<Contender> redis_benchmark(const Arena& arena, const Data& data,
                                           const Workload& workload, std::size_t connections,
                                           std::size_t pipeline) {
    if (arena.redis == nullptr) {
        throw Unavailable("there is no Redis server");
    }
    const std::optional<std::string> program = find_program("redis-benchmark");
    if (!program) {
        throw Unavailable("there is no redis-benchmark (Debian: redis-tools)");
    }
    return std::make_unique<RedisBenchmarkContender>(*arena.redis, data, workload, connections,
                                                     pipeline, *program);
}

}  // namespace bench
