// What the server sends as JSONB: read or refused, and as Boost.JSON reads it.

#include <boost/json/parse.hpp>
#include <cstdlib>
#include <string>

#include "fuzz/fuzz.hpp"
#include "support/decimals.hpp"
#include "values/json_codec.hpp"

using namespace psycache;
using namespace psycache::detail;
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
    require(!error, "what is read is JSON from its first byte to its last");
    require(plain.kind() == value->kind(), "it is read as what it is");
    require(!plain.is_object() || plain.get_object().size() == value->get_object().size(),
            "no member is lost");
    const auto written = encode_jsonb(*value);
    if (!written) {
        return;  // deeper than what may be stored, or a NUL, which the server never sends
    }
    const auto again = decode_jsonb(*written);
    require(again && *again == *value, "what was read is written and read as the same");
}

/// A number made of the bytes: read, or refused if digits would be lost.
void check_number(const std::string& bytes) {
    std::string number;
    for (const char c : bytes) {
        number += "0123456789.-e+0"[static_cast<unsigned char>(c) % 15];
    }
    const auto value = decode_jsonb("\x01{\"n\":" + number + "}");
    boost::json::error_code error;
    boost::json::parse("[" + number + "]", error);
    if (error || number.empty()) {
        require(!value, "what Boost.JSON does not take for a number is not read");
        return;
    }
    require(value.has_value() == test::readable_number(number),
            "a number is read if and only if none of its digits is lost");
    require(!value || value->at("n").to_number<double>() == std::strtod(number.c_str(), nullptr),
            "it is read as the number next to it");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string bytes(reinterpret_cast<const char*>(data), size);
    check_read(bytes);
    check_read('\x01' + bytes);
    check_number(bytes);
    return 0;
}
