// What the server sends as JSONB: read as an object or refused, and as Boost.JSON reads it.

#include <boost/json/parse.hpp>
#include <string>

#include "fuzz/fuzz.hpp"
#include "values/json_codec.hpp"

using namespace psycache;
using psycache::fuzz::require;

namespace {

void check_read(const std::string& bytes) {
    const auto value = decode_jsonb(bytes);
    if (!value) {
        require(value.error().code == Errc::unreadable_value ||
                    value.error().code == Errc::protocol_error,
                "what cannot be read is unreadable_value or protocol_error");
        return;
    }
    require(bytes.front() == '\x01', "only the known version is read");
    boost::json::parse_options options;
    options.max_depth = max_read_depth;
    boost::json::error_code error;
    const auto plain =
        boost::json::parse(boost::json::string_view(bytes).substr(1), error, {}, options);
    require(!error && plain.is_object(), "what is read is JSON from its first byte to its last");
    require(plain.get_object().size() == value->size(), "no member is lost");
    const auto written = encode_jsonb(*value);
    if (!written) {
        return;  // deeper than what may be stored, or a NUL, which the server never sends
    }
    const auto again = decode_jsonb(*written);
    require(again && *again == *value, "what was read is written and read as the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string bytes(reinterpret_cast<const char*>(data), size);
    check_read(bytes);
    check_read('\x01' + bytes);
    return 0;
}
