// One run of one contender; and the keys and values that all of them use.
#pragma once

#include <boost/describe.hpp>
#include <boost/json/object.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "calls/measure.hpp"

namespace bench {

namespace json = boost::json;

enum class Operation { get, put, get_many, get_text, touch, put_if_absent, increment };
BOOST_DESCRIBE_ENUM(Operation, get, put, get_many, get_text, touch, put_if_absent, increment)

/// What this program is told to do, as JSON in its command line. The server is that of the
/// environment.
struct Job {
    std::string contender{};
    std::size_t callers = 1;
    Operation operation = Operation::get;
    std::string schema{};
    std::size_t value_size = 200;
    std::size_t key_count = 10000;
    double own_work_us = 0;   // that each caller does between two calls: it keeps a core busy
    double rate = 0;          // calls per second of all callers; 0: as fast as they are answered
    std::uint64_t calls = 0;  // of a contender that makes a number of calls
    double warm_up = 0.15;    // seconds
    double seconds = 1;
    bool verify = false;
    // Of single contenders:
    std::size_t contexts = 1;     // io_contexts, each with a cache of its own
    std::size_t threads = 1;      // that run each of them
    std::size_t connections = 0;  // that callers share; 0: one for each
    std::string provider{};       // the instrumentation
    std::string redis_socket{};
    int redis_database = 0;
};
BOOST_DESCRIBE_STRUCT(Job, (),
                      (contender, callers, operation, schema, value_size, key_count, own_work_us,
                       rate, calls, warm_up, seconds, verify, contexts, threads, connections,
                       provider, redis_socket, redis_database))

/// Keys of one call of get_many. Each counts as a call.
inline constexpr std::size_t batch_size = 64;

inline std::size_t keys_per_call(const Job& job) {
    return job.operation == Operation::get_many ? batch_size : 1;
}

/// How long entries live here: longer than any run.
inline constexpr std::chrono::microseconds entry_ttl = std::chrono::hours(24);

/// A JSON object of several fields that is so long when serialized; 120 bytes at least. The id
/// differs from key to key.
json::object value_of(std::size_t size, std::size_t id);

/// All keys have 13 digits: that is what pgbench and redis-benchmark can make up by themselves. The
/// first digit tells what a key is for. Puts have keys of their own, so that what gets read stays
/// known.
inline constexpr char hit_digit = '1';
inline constexpr char miss_digit = '2';
inline constexpr char put_digit = '3';
inline constexpr char absent_digit = '4';   // of put_if_absent
inline constexpr char counter_digit = '5';  // of increment
std::string key_of(char digit, std::size_t id);

/// The keys of one value size, in the order in which they are asked for: the same for all
/// contenders, and drawn beforehand, so that drawing costs no contender anything.
class Data {
  public:
    explicit Data(const Job& job);

    const std::vector<std::string>& hits() const { return hits_; }
    const std::vector<std::string>& puts() const { return puts_; }
    /// What all puts write.
    const json::object& put_value() const { return put_value_; }
    const std::string& put_text() const { return put_text_; }
    std::size_t value_size() const { return value_size_; }

  private:
    friend class Keys;

    std::size_t value_size_;
    std::vector<std::string> hits_;
    std::vector<std::string> puts_;
    json::object put_value_;
    std::string put_text_;
    std::vector<std::uint32_t> order_;
};

/// The keys of one caller, one after the other.
class Keys {
  public:
    Keys(const Data& data, std::size_t caller) : data_(&data), position_(caller * 7919) {}

    const std::string& hit() { return data_->hits_[next()]; }
    const std::string& put() { return data_->puts_[next()]; }
    /// Another kind of key.
    std::string with(char digit) {
        std::string key = hit();
        key.front() = digit;
        return key;
    }
    /// batch_size neighbours: no key twice.
    std::vector<std::string> batch();

  private:
    std::size_t next() { return data_->order_[position_++ % data_->order_.size()]; }

    const Data* data_;
    std::size_t position_;
};

}  // namespace bench
