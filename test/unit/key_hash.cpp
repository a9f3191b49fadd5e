// The hash of a key; test/integration/key_hash.cpp asks a server for more of them.

#include "core/key_hash.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

using psycache::detail::key_hash;

TEST_CASE("A key has the hash that PostgreSQL's hashtextextended gives it") {
    struct Row {
        std::string key;
        std::uint64_t hash;
    };
    for (const Row& row : std::vector<Row>{
             {"", 0x9fb1b765a7ea466d},
             {"a", 0x31d94c66401370b1},
             {"abcd", 0xf196c20ce885082c},
             {"abcdefgh", 0x84bc1e238b1e9c33},
             {"hello world", 0x606a01613ce64a27},
             {"hello world!", 0xd83830b05374aedf},
             {"user:12345:profile", 0x30377f9de895824c},
             {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80 gr\xC3\xBC\xC3\x9F", 0xcb2c93c9f733e9b1},
         }) {
        CAPTURE(row.key);
        CHECK(key_hash(row.key) == row.hash);
        // From any address.
        const std::string moved = "x" + row.key;
        CHECK(key_hash(std::string_view(moved).substr(1)) == row.hash);
    }
}
