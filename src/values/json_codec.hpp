#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstddef>
#include <string>
#include <string_view>

#include "core/failure.hpp"

namespace psycache::detail {

/// How deep arrays and objects may be nested in a value that is stored.
inline constexpr std::size_t max_stored_depth = 512;

/// How deep a value that another writer stored may be nested.
inline constexpr std::size_t max_read_depth = 2000;

/// How large a value may be, in JSONB's binary format. A parameter's length is a signed 32-bit
/// number, and JSONB's own bounds are narrower still.
inline constexpr std::size_t max_jsonb_size = (std::size_t{1} << 28) - 1;

/// Checks and serialises a value in one pass, as JSONB's binary format wants it.
///
/// Not boost::json::serialize: that lets through what JSONB refuses, and writes the double 1.0 so
/// that it comes back as an integer.
/// @returns the bytes, or invalid_value.
Result<std::string> encode_jsonb(const boost::json::object& value);
Result<std::string> encode_jsonb(const boost::json::value& value);

/// Reads a value in JSONB's binary format, straight from the buffer where it lies.
///
/// Not boost::json::parse: its doubles can be off by a bit in this version of Boost.
/// @returns the value, or unreadable_value.
Result<boost::json::value> decode_jsonb(std::string_view bytes);

/// @returns what a call that wants an object is told of another value: unreadable_value.
Failure no_object_failure();

}  // namespace psycache::detail
