#pragma once

#include <cstddef>
#include <string_view>

namespace psycache::detail {

/// @returns the place of the first byte that PostgreSQL's text cannot hold: a NUL, or one that
/// begins no well-formed character of UTF-8. The size where there is none.
std::size_t find_unstorable(std::string_view bytes) noexcept;

inline bool is_storable_text(std::string_view bytes) noexcept {
    return find_unstorable(bytes) == bytes.size();
}

}  // namespace psycache::detail
