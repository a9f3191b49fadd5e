#pragma once

/// @file
/// Values that tell whose they are: each carries its key, its version and a checksum.

#include <boost/json/object.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace psycache::soak {

/// The value of one version of a key, of about @p size bytes, as a put stores it.
boost::json::object make_value(std::string_view key, std::uint64_t version, std::size_t size);

/// The member that a merge puts into it.
boost::json::object make_patch(std::uint64_t version);

/// What a value says of itself.
struct Stored {
    std::string key;
    std::uint64_t version = 0;
    std::uint64_t merged = 0;  ///< the version of its member, 0 for none
    bool intact = false;       ///< whether the checksum is right
};

Stored read_value(const boost::json::object& value);

/// The same for JSON text.
Stored read_text(std::string_view json_text);

}  // namespace psycache::soak
