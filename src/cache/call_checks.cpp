#include "cache/call_checks.hpp"

#include <psycache/async_postgres_cache.hpp>

#include "pg/parameters.hpp"
#include "values/json_codec.hpp"
#include "values/utf8.hpp"

namespace psycache::detail {

std::optional<Failure> check_key(std::string_view key) {
    if (key.size() > max_key_size) {
        return Failure(Errc::invalid_key, "the key cannot be stored: it has " +
                                              std::to_string(key.size()) + " bytes, and " +
                                              std::to_string(max_key_size) + " is the most");
    }
    if (!is_storable_text(key)) {
        return Failure(Errc::invalid_key,
                       "the key cannot be stored: it is not UTF-8, or contains a NUL byte");
    }
    return std::nullopt;
}

std::optional<Failure> check_ttl(Duration ttl) {
    if (ttl == no_expiry || (ttl >= min_ttl && ttl <= max_ttl)) {
        return std::nullopt;
    }
    return Failure(Errc::invalid_ttl,
                   "the ttl is outside of PostgreSQL's range: -6,000 to 290,000 years, or "
                   "no_expiry");
}

Result<std::string> jsonb_of_text(std::string_view text) {
    const auto begin = text.find_first_not_of(" \t\n\r");
    if (begin == std::string_view::npos || text[begin] != '{') {
        return Failure(Errc::invalid_value,
                       "the value cannot be stored as JSONB: the text is no JSON object");
    }
    if (!is_storable_text(text)) {
        return Failure(Errc::invalid_value,
                       "the value cannot be stored as JSONB: the text is not UTF-8, or contains a "
                       "NUL byte");
    }
    if (text.size() >= max_jsonb_size) {
        return Failure(Errc::invalid_value,
                       "the value cannot be stored as JSONB: it is larger than 256 MiB");
    }
    std::string bytes;
    bytes.reserve(text.size() + 1);
    bytes += pg::jsonb_version;
    bytes += text;
    return bytes;
}

Failure explain_text(Failure failure) {
    const std::string& sqlstate = failure.sqlstate;
    // Data exceptions, and what is too deep or too large.
    if (sqlstate.starts_with("22") || sqlstate.starts_with("54")) {
        failure.code = make_error_code(Errc::invalid_value);
        failure.cause = "the value cannot be stored as JSONB: the server refused the text";
    }
    return failure;
}

}  // namespace psycache::detail
