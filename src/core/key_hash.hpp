#pragma once

#include <cstdint>
#include <string_view>

namespace psycache::detail {

/// @returns the bits of what `hashtextextended(key, 0)` answers on a server with a little-endian
/// processor and a deterministic collation, so that a server can name a key to its clients in eight
/// bytes. Not keyed: who chooses keys can choose two with the same hash.
std::uint64_t key_hash(std::string_view key) noexcept;

}  // namespace psycache::detail
