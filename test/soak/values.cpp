#include "soak/values.hpp"

#include <array>
#include <boost/json/parse.hpp>
#include <utility>

namespace psycache::soak {

namespace {

namespace json = boost::json;

std::uint64_t mix(std::uint64_t sum, std::string_view text) {
    for (const char c : text) {
        sum = (sum ^ static_cast<unsigned char>(c)) * 1099511628211U;
    }
    return sum;
}

std::int64_t checksum(std::string_view key, std::uint64_t version, std::string_view filling) {
    std::uint64_t sum = mix(14695981039346656037U, key);
    sum = mix(sum, std::to_string(version));
    return static_cast<std::int64_t>(mix(sum, filling));
}

std::string filling_of(std::uint64_t seed, std::size_t size) {
    // Some need escapes in JSON, some are more than one byte.
    static constexpr std::array<std::string_view, 16> pieces{
        "a", "bc", "def", "0123456789", "\"", "\\", "\n", "\t",
        "{", "]",  ",",   " ",          "'",  "/",  "é",  "😀"};
    std::string text;
    text.reserve(size + 16);
    while (text.size() < size) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        text += pieces[seed >> 60];
    }
    return text;
}

}  // namespace

json::object make_value(std::string_view key, std::uint64_t version, std::size_t size) {
    const std::string filling = filling_of(mix(version, key), size);
    json::object value;
    value["key"] = json::string_view(key.data(), key.size());
    value["version"] = version;
    value["filling"] = json::string_view(filling.data(), filling.size());
    value["sum"] = checksum(key, version, filling);
    return value;
}

json::object make_patch(std::uint64_t version) {
    return {{"merged", version}};
}

Stored read_value(const json::object& value) {
    Stored stored;
    const json::value* key = value.if_contains("key");
    const json::value* version = value.if_contains("version");
    const json::value* filling = value.if_contains("filling");
    const json::value* sum = value.if_contains("sum");
    const json::value* merged = value.if_contains("merged");
    if (key == nullptr || !key->is_string() || version == nullptr || !version->is_number() ||
        filling == nullptr || !filling->is_string() || sum == nullptr || !sum->is_int64() ||
        (merged != nullptr && !merged->is_number())) {
        return stored;
    }
    stored.key = std::string(key->get_string());
    stored.version = version->to_number<std::uint64_t>();
    stored.merged = merged == nullptr ? 0 : merged->to_number<std::uint64_t>();
    const json::string& text = filling->get_string();
    stored.intact = sum->get_int64() == checksum(stored.key, stored.version,
                                                 std::string_view(text.data(), text.size()));
    return stored;
}

Stored read_text(std::string_view json_text) {
    boost::system::error_code error;
    const json::value value =
        json::parse(json::string_view(json_text.data(), json_text.size()), error);
    return !error && value.is_object() ? read_value(value.get_object()) : Stored();
}

}  // namespace psycache::soak
