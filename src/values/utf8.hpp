#pragma once

#include <string_view>

namespace psycache {

/// @returns whether the bytes are UTF-8 that PostgreSQL's text can hold: well-formed, without NUL.
bool is_storable_text(std::string_view bytes) noexcept;

}  // namespace psycache
