#pragma once

/// @file
/// The commands that read and change entries, each a call of the blocking cache.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <psycache/duration.hpp>

#include "cli/place.hpp"

namespace psycache::cli {

/// `psycache get`: prints the text of the value; fails where there is none.
/// @returns the exit code, as all of these do.
int get(const Place& place, const std::string& key);

/// `psycache put`. @param json the value, or "-" for what standard input holds.
int put(const Place& place, const std::string& key, const std::string& json, Duration ttl,
        const std::vector<std::string>& tags);

/// `psycache remove`: prints how many of the keys had an entry.
int remove(const Place& place, const std::vector<std::string>& keys, bool as_json);

/// `psycache flush`: deletes all entries, and prints how many.
int flush(const Place& place, bool as_json);

/// `psycache clear`.
int clear(const Place& place);

/// How many entries a cleanup leaves; see the fields of CacheOptions.
struct Bounds {
    std::optional<std::uint64_t> max_entries;
    std::optional<std::uint64_t> max_bytes;
};

/// `psycache cleanup`: deletes what has expired and what is too much, and prints how many.
int cleanup(const Place& place, const Bounds& bounds, bool as_json);

}  // namespace psycache::cli
