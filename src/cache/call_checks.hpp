#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <psycache/duration.hpp>

#include "failure.hpp"

namespace psycache::detail {

/// @returns why a key cannot be one, if it cannot.
std::optional<Failure> check_key(std::string_view key);

/// @returns why a ttl is outside of PostgreSQL's range, if it is.
std::optional<Failure> check_ttl(Duration ttl);

/// @returns JSON text as JSONB's binary format wants it, or invalid_value where it can be told that
/// the text is no object; the rest is the server's to check.
Result<std::string> jsonb_of_text(std::string_view text);

/// Makes of what the server says about a text the same error that a bad value has.
Failure explain_text(Failure failure);

}  // namespace psycache::detail
