#pragma once

/// @file
/// One call of a cache: what is asked, and what is answered.

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <psycache/async_postgres_cache.hpp>
#include <psycache/postgres_cache.hpp>

#include "soak/counter.hpp"
#include "soak/model.hpp"

namespace psycache::soak {

enum class Kind {
    get,
    get_text,
    get_entry,
    get_many,
    get_entry_many,
    expires_in,
    put,
    put_text,
    put_many,
    put_if_absent,
    put_if_absent_many,
    replace,
    replace_many,
    compare_and_put,
    touch,
    touch_many,
    get_and_touch,
    get_and_touch_many,
    merge,
    remove,
    remove_many,
    take,
    take_many,
    remove_prefix,
    remove_tag,
    increment,
    increment_many
};

/// What a call is to the keys that it is about.
enum class Act { read, put, touch, merge, remove, remove_group, count };

/// What an answer tells of each key, beside values.
enum class Tells {
    nothing,
    live,    ///< whether there was a live entry, which then was changed
    absent,  ///< whether there was none, and one was stored
    equal,   ///< whether the live entry had the value that was expected, and another was stored
    number   ///< of all together, how many entries were there
};

enum class Asks { one, many };

struct Traits {
    std::string_view name;
    unsigned times;  ///< how often it is called, compared with others
    Act act;
    Asks asks;
    Tells tells = Tells::nothing;
    bool with_values = false;  ///< whether a write reads values, too
};

inline constexpr std::size_t kinds = static_cast<std::size_t>(Kind::increment_many) + 1;
/// The first ones only read.
inline constexpr std::size_t reading_kinds = static_cast<std::size_t>(Kind::expires_in) + 1;

const Traits& traits_of(Kind kind);

/// What a call of compare_and_put knows of the value that it expects.
enum class Expected { never_stored, perhaps_there, there };

struct Call {
    explicit Call(Kind which) : kind(which) {}

    const Traits& traits() const { return traits_of(kind); }
    bool single() const { return traits().asks == Asks::one; }
    std::vector<std::string> key_names() const;

    const Kind kind;
    std::vector<std::shared_ptr<KeyModel>> keys;
    std::vector<Reading> readings;  ///< of what reads, one for each key
    std::vector<Entry> entries;     ///< of a put, one for each key
    Duration ttl{};                 ///< that of all keys, but for entries with one of their own
    std::string group;              ///< a prefix or a tag
    std::vector<std::string> tags;  ///< of a put
    json::object other;             ///< the value that is expected, or members to be merged
    Expected expected = Expected::never_stored;
    std::vector<std::pair<std::string, std::int64_t>> increments;

    Time begun;
    std::uint64_t outages_before = 0;  ///< of a cache with OnOutage::miss
    std::uint64_t retries_before = 0;  ///< of the cache

    std::vector<std::optional<Stored>> values;
    std::vector<std::optional<Duration>> left;  ///< to live, of each key
    std::vector<bool> done;                     ///< what it tells of each key
    std::uint64_t number = 0;                   ///< what it tells of all
    std::vector<std::int64_t> counts;
};

/// Does what is asked, and notes the answer down.
asio::awaitable<void> perform(AsyncPostgresCache cache, std::shared_ptr<Call> call);
void perform(PostgresCache& cache, Call& call);

}  // namespace psycache::soak
