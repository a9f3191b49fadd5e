#pragma once

#include <boost/json/value.hpp>
#include <cstddef>

namespace psycache::detail {

/// @returns what malloc takes from the heap for @p size bytes: that of glibc on 64-bit machines;
/// the others are near enough to it for a limit of memory.
constexpr std::size_t malloc_bytes(std::size_t size) noexcept {
    const std::size_t chunk = (size + sizeof(std::size_t) + 15) & ~std::size_t{15};
    return chunk < 32 ? 32 : chunk;
}

/// @returns what a value has taken from the heap, besides its own sizeof; spare capacity counts.
/// The value uses the default memory resource: what others have taken cannot be told. Calls itself
/// for each level, as the destructor of a value does.
std::size_t heap_bytes(const boost::json::value& value) noexcept;

}  // namespace psycache::detail
