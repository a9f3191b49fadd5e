// Which shard has a key; test/integration/key_hash.cpp asks a server for the hashes.

#include "shards/shard_map.hpp"

#include <catch2/catch.hpp>
#include <limits>
#include <set>
#include <string>

using psycache::detail::shard_hash;
using psycache::detail::ShardMap;

namespace {

constexpr std::int32_t least = std::numeric_limits<std::int32_t>::min();
constexpr std::int32_t most = std::numeric_limits<std::int32_t>::max();

ShardMap::Address address(const std::string& host, const std::string& port = "5432") {
    return {host, port};
}

}  // namespace

TEST_CASE("The shard of a key is the one whose range has the hash of the key") {
    ShardMap map;
    // As they come, in no order.
    map.add(0, most, address("b"));
    map.add(least, -1, address("a"));
    map.seal();
    REQUIRE(map.shards().size() == 2);
    REQUIRE(map.servers().size() == 2);
    std::set<std::size_t> seen;
    for (int i = 0; i < 100; ++i) {
        const std::string key = "key" + std::to_string(i);
        const auto shard = map.find(key);
        REQUIRE(shard);
        CHECK(*shard == (shard_hash(key) < 0 ? 0u : 1u));
        const auto server = map.shards()[*shard].server;
        REQUIRE(server);
        CHECK(map.servers()[*server].host == (shard_hash(key) < 0 ? "a" : "b"));
        seen.insert(*shard);
    }
    CHECK(seen.size() == 2);
}

TEST_CASE("The ends of a shard's range belong to it, and what no range has is in no shard") {
    const std::string key = "some key";
    const std::int32_t hash = shard_hash(key);
    struct Row {
        std::int32_t first;
        std::int32_t last;
        bool found;
    };
    for (const Row& row :
         {Row{hash, hash, true}, Row{hash - 1, hash, true}, Row{hash, hash + 1, true},
          Row{hash + 1, hash + 2, false}, Row{hash - 2, hash - 1, false}}) {
        CAPTURE(row.first, row.last);
        ShardMap map;
        map.add(row.first, row.last, address("a"));
        map.seal();
        CHECK(map.find(key).has_value() == row.found);
    }
    CHECK_FALSE(ShardMap().find(key));
}

TEST_CASE("Servers are told apart by host and port, and one may have many shards") {
    ShardMap map;
    map.add(least, -1'000'000'001, address("a", "1"));
    map.add(-1'000'000'000, -1, address("a", "2"));
    map.add(0, 1'000'000'000, address("a", "1"));
    map.add(1'000'000'001, most, std::nullopt);
    map.seal();
    CHECK(map.servers().size() == 2);
    REQUIRE(map.shards().size() == 4);
    CHECK(map.shards()[0].server == map.shards()[2].server);
    CHECK(map.shards()[0].server != map.shards()[1].server);
    CHECK_FALSE(map.shards()[3].server);
}

TEST_CASE("Ranges that overlap or run backwards make no map") {
    struct Row {
        std::int32_t first;
        std::int32_t last;
    };
    for (const Row& row : {Row{0, most}, Row{-1, 0}, Row{-5, -5}, Row{1, 0}}) {
        CAPTURE(row.first, row.last);
        ShardMap map;
        map.add(least, 0, address("a"));
        map.add(row.first, row.last, address("b"));
        map.seal();
        CHECK(map.shards().empty());
        CHECK(map.servers().empty());
        CHECK_FALSE(map.find("key"));
    }
}

TEST_CASE("A key can be named that lies on a server") {
    ShardMap map;
    map.add(least, -1, address("a"));
    map.add(0, 40'000'000, address("b"));  // a hundredth of the hashes
    map.add(40'000'001, most, std::nullopt);
    map.seal();
    for (std::size_t server = 0; server < 2; ++server) {
        const auto key = map.key_on(server);
        REQUIRE(key);
        CHECK(map.shards()[map.find(*key).value()].server == server);
    }
    CHECK_FALSE(map.key_on(2));
}

TEST_CASE("Maps are equal when shards and servers are") {
    const auto made = [](const std::string& host) {
        ShardMap map;
        map.add(least, most, address(host));
        map.seal();
        return map;
    };
    CHECK(made("a") == made("a"));
    CHECK_FALSE(made("a") == made("b"));
    CHECK_FALSE(made("a") == ShardMap());
}
