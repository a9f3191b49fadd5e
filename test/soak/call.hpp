#pragma once

/// @file
/// One call of a cache: what is asked, and what is answered.

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <psycache/async_postgres_cache.hpp>
#include <psycache/postgres_cache.hpp>

#include "soak/model.hpp"

namespace psycache::soak {

enum class Kind {
    get,
    get_text,
    get_entry,
    get_many,
    put,
    put_text,
    put_if_absent,
    replace,
    put_many,
    remove,
    take,
    remove_many
};

std::string_view name_of(Kind kind);

struct Call {
    explicit Call(Kind which) : kind(which) {}

    /// Whether it has one key, and so an error that is that key's alone.
    bool single() const {
        return kind != Kind::get_many && kind != Kind::put_many && kind != Kind::remove_many;
    }
    std::vector<std::string> key_names() const;

    const Kind kind;
    std::vector<std::shared_ptr<KeyModel>> keys;
    std::vector<Reading> readings;  ///< of a get, one for each key
    std::vector<Entry> entries;     ///< of a put, one for each key

    Time begun;
    std::uint64_t outages_before = 0;  ///< of a cache with OnOutage::miss

    std::vector<std::optional<Stored>> values;  ///< the answer to a get
    std::uint64_t existed = 0;                  ///< the answer to a remove
    bool stored = true;  ///< whether a conditional put or a take has changed something
};

/// Does what is asked, and notes the answer down.
asio::awaitable<void> perform(AsyncPostgresCache cache, std::shared_ptr<Call> call);
void perform(PostgresCache& cache, Call& call);

}  // namespace psycache::soak
