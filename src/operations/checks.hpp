#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <psycache/duration.hpp>

#include "core/failure.hpp"

namespace psycache::detail {

/// @returns why a key cannot be that of a put, if it cannot.
std::optional<Failure> check_key(std::string_view key);

/// @returns why a key cannot be in the table, if it cannot. A longer one than check_key() allows
/// may: PostgreSQL compresses it, and others have it try.
std::optional<Failure> check_lookup_key(std::string_view key);

/// @returns why tags cannot be those of a put of this key, if they cannot.
std::optional<Failure> check_tags(const std::vector<std::string>& tags, std::string_view key);

/// @returns why a tag can be that of no put, if it can not.
std::optional<Failure> check_tag(std::string_view tag);

/// @returns why a prefix cannot be that of keys which are removed, if it cannot.
std::optional<Failure> check_prefix(std::string_view prefix);

/// @returns why a ttl is outside of PostgreSQL's range, if it is.
std::optional<Failure> check_ttl(Duration ttl);

/// @returns the failure with the place of what was wrong, as in "key 3: ...".
Failure at_place(Failure failure, std::string_view what, std::size_t place);

/// @returns JSON text as JSONB's binary format wants it, or invalid_value where PostgreSQL would
/// refuse it: one that the server refuses makes it run the calls of a statement one by one.
Result<std::string> jsonb_of_text(std::string_view text);

/// Makes of what the server says about a text, where only it can tell, the same error that a bad
/// value has.
Failure explain_text(Failure failure);

}  // namespace psycache::detail
