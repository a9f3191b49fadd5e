#include "throughput/data.hpp"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <random>
#include <string_view>

namespace bench {

namespace {

constexpr std::size_t drawn = 1U << 16U;

/// Words rather than one letter, which the server would compress to nothing.
std::string words(std::size_t length, std::size_t seed) {
    static constexpr std::array<std::string_view, 12> vocabulary{
        "amber", "basalt", "cobalt", "delta",   "ember", "fjord",
        "gale",  "harbor", "indigo", "juniper", "kelp",  "lagoon"};
    std::minstd_rand random(static_cast<std::minstd_rand::result_type>(seed + 1));
    std::string text;
    while (text.size() < length) {
        text += vocabulary[random() % vocabulary.size()];
        text += static_cast<char>('0' + random() % 10);
        text += ' ';
    }
    text.resize(length);
    return text;
}

std::vector<std::uint32_t> draw_uniform(std::size_t keys) {
    std::mt19937 random(4711);
    std::uniform_int_distribution<std::uint32_t> one_of(0, static_cast<std::uint32_t>(keys - 1));
    std::vector<std::uint32_t> order(drawn);
    std::generate(order.begin(), order.end(), [&] { return one_of(random); });
    return order;
}

std::vector<std::uint32_t> draw_zipf(std::size_t keys) {
    constexpr double exponent = 0.99;
    std::vector<double> weights(keys);
    for (std::size_t rank = 0; rank < keys; ++rank) {
        weights[rank] = 1 / std::pow(static_cast<double>(rank + 1), exponent);
    }
    std::mt19937 random(4711);
    std::discrete_distribution<std::uint32_t> one_of(weights.begin(), weights.end());
    std::vector<std::uint32_t> order(drawn);
    std::generate(order.begin(), order.end(), [&] { return one_of(random); });
    return order;
}

}  // namespace

json::object value_of(std::size_t size, std::size_t id) {
    json::object value;
    value["id"] = 1000000 + id;
    value["name"] = "Ada Lovelace";
    value["score"] = 0.75;
    value["active"] = true;
    json::array& items = value["items"].emplace_array();
    // As many items as fit beside the padding.
    constexpr std::size_t around = 120;
    std::size_t length = json::serialize(value).size() + around;
    for (std::size_t i = 0; length < size; ++i) {
        json::object item;
        item["n"] = i;
        item["label"] = words(20, id * 31 + i);
        item["price"] = static_cast<double>(i % 80) + 0.5;
        item["tags"] = json::array{"new", "sale"};
        length += json::serialize(item).size() + 1;
        if (length < size) {
            items.push_back(std::move(item));
        }
    }
    value["text"] = "";
    value["text"] = words(size - json::serialize(value).size(), id);
    return value;
}

std::string key_of(char digit, std::size_t id) {
    std::string key(13, '0');
    key.front() = digit;
    for (std::size_t at = key.size(); id > 0; id /= 10) {
        key[--at] = static_cast<char>('0' + id % 10);
    }
    return key;
}

Data::Data(std::size_t value_size, std::size_t key_count)
    : value_size_(value_size),
      put_value_(value_of(value_size, 999999)),
      put_text_(json::serialize(put_value_)),
      uniform_(draw_uniform(key_count)),
      zipf_(draw_zipf(key_count)) {
    for (std::size_t id = 0; id < key_count; ++id) {
        hits_.push_back(key_of(hit_digit, id));
        misses_.push_back(key_of(miss_digit, id));
        puts_.push_back(key_of(put_digit, id));
    }
}

Choice::Choice(const Data& data, const Workload& workload, std::size_t caller)
    : data_(&data),
      get_keys_(workload.miss ? &data.misses_ : &data.hits_),
      order_(workload.zipf ? &data.zipf_ : &data.uniform_),
      operation_(workload.operation),
      position_(caller * 7919),
      // Not all callers put at the same time.
      calls_(caller) {}

std::vector<std::string> Choice::neighbours(const std::vector<std::string>& keys) {
    const std::size_t count = std::min(batch_size, keys.size());
    const std::size_t first = std::min(next(), keys.size() - count);
    const auto begin = keys.begin() + static_cast<std::ptrdiff_t>(first);
    return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

}  // namespace bench
