// A server names keys by their hash: it and this library must mean the same.

#include "core/key_hash.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "shards/shard_map.hpp"
#include "support/server.hpp"

using namespace psycache::test;

TEST_CASE("The server and this process hash keys alike") {
    Psql sql;
    constexpr std::array<const char*, 8> characters{
        "a", "Z", "0", ":", "~", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};
    std::mt19937 dice(5);
    std::string query;
    std::vector<std::string> keys;
    for (std::size_t length = 0; length <= 100; ++length) {
        for (int round = 0; round < 6; ++round) {
            std::string key;
            while (key.size() < length) {
                // Now and then of one byte each, so that every length occurs.
                key += characters[dice() % (round % 2 == 0 ? 5 : characters.size())];
            }
            query += (keys.empty() ? "SELECT hashtextextended(k, 0) FROM unnest(ARRAY[" : ", ") +
                     quote_literal(key);
            keys.push_back(std::move(key));
        }
    }
    const std::string from = "]) WITH ORDINALITY AS keys(k, i) ORDER BY i";
    const Rows rows = sql.exec(query + from);
    REQUIRE(rows.size() == keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
        CAPTURE(keys[i]);
        CHECK(rows[i][0] ==
              std::to_string(static_cast<std::int64_t>(psycache::detail::key_hash(keys[i]))));
    }
    query.replace(query.find("hashtextextended(k, 0)"), std::strlen("hashtextextended(k, 0)"),
                  "hashtext(k)");
    const Rows short_ones = sql.exec(query + from);
    REQUIRE(short_ones.size() == keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
        CAPTURE(keys[i]);
        CHECK(short_ones[i][0] == std::to_string(psycache::detail::shard_hash(keys[i])));
    }
}
