#include "operations/checks.hpp"

#include <psycache/async_postgres_cache.hpp>

#include "pg/parameters.hpp"
#include "values/json_codec.hpp"
#include "values/json_text.hpp"
#include "values/utf8.hpp"

namespace psycache::detail {

namespace {

/// As much as one parameter of a statement holds. What an index takes is far less, but depends on
/// how well PostgreSQL can compress the key.
constexpr std::size_t max_lookup_key_size = max_jsonb_size;

Failure too_long(Errc errc, std::string_view what, std::size_t size, std::size_t most) {
    return {errc, std::string(what) + " cannot be stored: it has " + std::to_string(size) +
                      " bytes, and " + std::to_string(most) + " is the most"};
}

std::optional<Failure> check_key_of(std::size_t most, std::string_view key) {
    if (key.size() > most) {
        return too_long(Errc::invalid_key, "the key", key.size(), most);
    }
    if (!is_storable_text(key)) {
        return Failure(Errc::invalid_key,
                       "the key cannot be stored: it is not UTF-8, or contains a NUL byte");
    }
    return std::nullopt;
}

}  // namespace

std::optional<Failure> check_key(std::string_view key) {
    return check_key_of(max_key_size, key);
}

std::optional<Failure> check_lookup_key(std::string_view key) {
    return check_key_of(max_lookup_key_size, key);
}

std::optional<Failure> check_tag(std::string_view tag) {
    if (tag.empty()) {
        return Failure(Errc::invalid_tag, "the tag cannot be stored: it is empty");
    }
    if (tag.size() > max_tag_size) {
        return too_long(Errc::invalid_tag, "the tag", tag.size(), max_tag_size);
    }
    if (!is_storable_text(tag)) {
        return Failure(Errc::invalid_tag,
                       "the tag cannot be stored: it is not UTF-8, or contains a NUL byte");
    }
    return std::nullopt;
}

std::optional<Failure> check_tags(const std::vector<std::string>& tags, std::string_view key) {
    for (std::size_t i = 0; i < tags.size(); ++i) {
        std::optional<Failure> wrong = check_tag(tags[i]);
        if (!wrong && tags[i].size() + key.size() > max_tagged_size) {
            wrong = too_long(Errc::invalid_tag, "the tag with the key", tags[i].size() + key.size(),
                             max_tagged_size);
        }
        if (wrong) {
            return at_place(std::move(*wrong), "tag", i);
        }
    }
    return std::nullopt;
}

std::optional<Failure> check_prefix(std::string_view prefix) {
    if (prefix.empty()) {
        return Failure(Errc::invalid_key,
                       "an empty prefix is that of all entries: call clear or flush for these");
    }
    if (!is_storable_text(prefix)) {
        return Failure(Errc::invalid_key,
                       "the prefix is that of no key: it is not UTF-8, or contains a NUL byte");
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

Failure at_place(Failure failure, std::string_view what, std::size_t place) {
    failure.cause = std::string(what) + " " + std::to_string(place) + ": " + failure.cause;
    return failure;
}

Result<std::string> jsonb_of_text(std::string_view text) {
    if (text.size() >= max_jsonb_size) {
        return Failure(Errc::invalid_value,
                       "the value cannot be stored as JSONB: it is larger than 256 MiB");
    }
    if (const auto mistake = mistake_in_text(text)) {
        return Failure(Errc::invalid_value,
                       "the value cannot be stored as JSONB: the text is wrong at byte " +
                           std::to_string(mistake->at) + ": " + mistake->what);
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
