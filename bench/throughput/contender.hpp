// What is measured, and what comes out of it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

namespace bench {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

/// A contender that cannot run here: a tool is missing, or the server is too small for it.
class Unavailable : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

enum class Operation { get, put, mix, get_many, put_many, get_text, put_text };

/// Keys of one call of get_many and put_many.
inline constexpr std::size_t batch_size = 64;

/// Of ten calls of a mix, one is a put.
inline constexpr std::size_t mix_period = 10;

struct Workload {
    std::string name;
    Operation operation = Operation::get;
    std::size_t value_size = 0;
    bool miss = false;
    bool zipf = false;
    /// What each caller does by itself between two calls: it keeps a core busy.
    std::chrono::microseconds own_work{0};

    /// Keys that one call reads or writes.
    std::size_t keys_per_call() const {
        const bool many = operation == Operation::get_many || operation == Operation::put_many;
        return many ? batch_size : 1;
    }
};

struct Percentiles {
    double p50 = 0;  // microseconds, as all of them
    double p99 = 0;
    std::optional<double> p999{};  // some tools do not tell
};

/// One run of one contender. A batch of 64 keys counts as 64 calls here; its latency is the
/// batch's.
struct Sample {
    double seconds = 0;
    std::uint64_t calls = 0;
    std::optional<Percentiles> latency{};
    double client_cpu = 0;  // seconds
    std::optional<double> server_cpu{};

    double rate() const { return static_cast<double>(calls) / seconds; }
    double client_microseconds() const { return client_cpu * 1e6 / static_cast<double>(calls); }
    std::optional<double> server_microseconds() const {
        if (!server_cpu) {
            return std::nullopt;
        }
        return *server_cpu * 1e6 / static_cast<double>(calls);
    }
};

/// One way of making calls, with its connections open.
class Contender {
  public:
    Contender() = default;
    Contender(const Contender&) = delete;
    Contender& operator=(const Contender&) = delete;
    virtual ~Contender() = default;

    /// Asks for values that are known. Throws when an answer is wrong.
    virtual void verify() = 0;
    virtual void warm_up(Seconds time) { run(time); }
    virtual Sample run(Seconds time) = 0;
};

/// CPU seconds that a server has used so far; nullopt when it runs elsewhere.
using ServerCpu = std::function<std::optional<double>()>;

inline void check(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("a wrong answer: " + what);
    }
}

}  // namespace bench
