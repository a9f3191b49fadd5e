// Any object that Boost.JSON can hold: refused where JSONB cannot hold it, else it comes back
// equal.

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <string>
#include <utility>

#include "fuzz/fuzz.hpp"
#include "support/storable.hpp"
#include "values/json_codec.hpp"

using namespace psycache;
using namespace psycache::detail;
using psycache::fuzz::Input;
using psycache::fuzz::require;
namespace json = boost::json;

namespace {

json::value value_of(Input& input, std::size_t depth);

json::object object_of(Input& input, std::size_t depth) {
    json::object object;
    for (std::size_t left = input.below(8); left > 0; --left) {
        const std::string_view name = input.text();
        object[json::string_view(name.data(), name.size())] = value_of(input, depth + 1);
    }
    return object;
}

json::value value_of(Input& input, std::size_t depth) {
    // The depth of a call stack here, not that of the value: nothing is gained by more.
    const std::size_t kinds = depth < 50 ? 10 : 7;
    switch (input.below(kinds)) {
        case 0:
            return nullptr;
        case 1:
            return input.flag();
        case 2:
            return input.plain<std::int64_t>();
        case 3:
            return input.plain<std::uint64_t>();
        case 4:
            return input.plain<double>();
        case 5: {
            const std::string_view text = input.text();
            return json::string(text.data(), text.size());
        }
        case 6:
            return static_cast<double>(input.plain<std::int32_t>());
        case 7: {
            json::array array;
            for (std::size_t left = input.below(8); left > 0; --left) {
                array.push_back(value_of(input, depth + 1));
            }
            return array;
        }
        case 8:
            return object_of(input, depth);
        default: {
            json::value inner;
            for (std::size_t left = input.byte() * 3u; left > 0; --left) {
                json::array outer;
                outer.push_back(std::move(inner));
                inner = std::move(outer);
            }
            return inner;
        }
    }
}

void check_written(const json::object& object) {
    const auto written = encode_jsonb(object);
    require(written.has_value() == test::storable(object),
            "a value is refused if and only if JSONB cannot hold it");
    if (!written) {
        require(written.error().code == Errc::invalid_value, "it is refused as invalid_value");
        return;
    }
    require(test::storable_text(*written), "the text is UTF-8 without NUL");
    const auto back = decode_jsonb(*written);
    require(back && *back == object, "what was written is read as the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    check_written(object_of(input, 0));

    // The same bytes as JSON text, as an application may have got them from its own clients.
    json::parse_options options;
    options.max_depth = 2000;
    options.allow_invalid_utf8 = true;
    json::error_code error;
    const json::value parsed = json::parse(
        json::string_view(reinterpret_cast<const char*>(data), size), error, {}, options);
    if (!error && parsed.is_object()) {
        check_written(parsed.get_object());
    }
    return 0;
}
