#include "calls/job.hpp"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <random>
#include <string_view>
#include <utility>

namespace bench {

namespace {

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

Data::Data(const Job& job)
    : value_size_(job.value_size),
      put_value_(value_of(job.value_size, 999999)),
      put_text_(json::serialize(put_value_)),
      order_(1U << 16U) {
    for (std::size_t id = 0; id < job.key_count; ++id) {
        hits_.push_back(key_of(hit_digit, id));
        puts_.push_back(key_of(put_digit, id));
    }
    std::mt19937 random(4711);
    std::uniform_int_distribution<std::uint32_t> one_of(
        0, static_cast<std::uint32_t>(job.key_count - 1));
    std::generate(order_.begin(), order_.end(), [&] { return one_of(random); });
}

std::vector<std::string> Keys::batch() {
    const std::vector<std::string>& keys = data_->hits_;
    const std::size_t first = std::min(next(), keys.size() - batch_size);
    const auto begin = keys.begin() + static_cast<std::ptrdiff_t>(first);
    return {begin, begin + static_cast<std::ptrdiff_t>(batch_size)};
}

}  // namespace bench
