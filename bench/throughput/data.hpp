// Keys, values and the order in which they are asked for: the same for all contenders.
#pragma once

#include <boost/json/object.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "throughput/contender.hpp"

namespace bench {

namespace json = boost::json;

/// How long entries live here: longer than any run.
inline constexpr std::chrono::microseconds entry_ttl = std::chrono::hours(24);

/// A JSON object of several fields that is so long when serialized; 100 bytes at least. The id
/// differs from key to key.
json::object value_of(std::size_t size, std::size_t id);

/// All keys have 13 digits: that is what pgbench and redis-benchmark can make up by themselves. The
/// first digit tells what a key is for.
inline constexpr char hit_digit = '1';
inline constexpr char miss_digit = '2';
/// Puts have keys of their own, so that what gets read stays known.
inline constexpr char put_digit = '3';

std::string key_of(char digit, std::size_t id);

/// The entries of one value size.
class Data {
  public:
    Data(std::size_t value_size, std::size_t key_count);

    std::size_t value_size() const { return value_size_; }
    std::size_t key_count() const { return hits_.size(); }

    const std::vector<std::string>& hits() const { return hits_; }
    const std::vector<std::string>& puts() const { return puts_; }

    /// What all puts write.
    const json::object& put_value() const { return put_value_; }
    const std::string& put_text() const { return put_text_; }

  private:
    friend class Choice;

    std::size_t value_size_;
    std::vector<std::string> hits_;
    std::vector<std::string> misses_;
    std::vector<std::string> puts_;
    json::object put_value_;
    std::string put_text_;
    // Drawn beforehand, so that drawing costs no contender anything.
    std::vector<std::uint32_t> uniform_;
    std::vector<std::uint32_t> zipf_;
};

/// The calls of one caller, one after the other.
class Choice {
  public:
    Choice(const Data& data, const Workload& workload, std::size_t caller);

    bool next_is_put() { return operation_ == Operation::mix && ++calls_ % mix_period == 0; }
    const std::string& get_key() { return (*get_keys_)[next()]; }
    const std::string& put_key() { return data_->puts_[next()]; }
    /// batch_size neighbours: no key twice.
    std::vector<std::string> get_keys() { return neighbours(*get_keys_); }
    std::vector<std::string> put_keys() { return neighbours(data_->puts_); }

  private:
    std::size_t next() { return (*order_)[position_++ % order_->size()]; }
    std::vector<std::string> neighbours(const std::vector<std::string>& keys);

    const Data* data_;
    const std::vector<std::string>* get_keys_;
    const std::vector<std::uint32_t>* order_;
    Operation operation_;
    std::size_t position_;
    std::size_t calls_;
};

}  // namespace bench
