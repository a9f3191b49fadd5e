// What a cache knows of the shards of its table, and what it makes of that.

#include <catch2/catch.hpp>

#include "citus/cluster.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

constexpr int keys = 300;

PoolOptions pool_named(const std::string& name, std::size_t max_size) {
    PoolOptions pool = server_pool();
    pool.dsn = dsn_with({{"application_name", name}});
    pool.max_size = max_size;
    return pool;
}

std::vector<Entry> some_entries(int number) {
    std::vector<Entry> entries;
    for (int i = 0; i < keys; ++i) {
        entries.emplace_back("key" + std::to_string(i), numbered(number + i), 1h);
    }
    return entries;
}

std::vector<std::string> some_keys() {
    std::vector<std::string> names;
    for (int i = 0; i < keys; ++i) {
        names.push_back("key" + std::to_string(i));
    }
    return names;
}

/// @returns whether all entries are there with their values.
bool all_there(AnyCache& cache, int number) {
    const auto values = cache.get_many(some_keys());
    for (int i = 0; i < keys; ++i) {
        if (values[static_cast<std::size_t>(i)] != numbered(number + i)) {
            return false;
        }
    }
    return true;
}

std::int64_t sum_of(const std::vector<std::int64_t>& counts) {
    std::int64_t sum = 0;
    for (const std::int64_t count : counts) {
        sum += count;
    }
    return sum;
}

}  // namespace

TEST_CASE("Calls go to the nodes that have their shards, with no more connections than allowed") {
    const Flavour flavour = GENERATE(Flavour::async, Flavour::blocking);
    const std::size_t max_size = GENERATE(1u, 2u, 4u, 16u);
    CAPTURE(flavour, max_size);
    Cluster cluster;
    TestSchema schema;
    const std::string name = unique_name();
    const auto cache = make_cache(flavour, schema.cache_options(), pool_named(name, max_size));
    const auto nodes =
        std::min<std::int64_t>(cluster.workers(), static_cast<std::int64_t>(max_size) - 1);
    CHECK(eventually([&] {
        cache->put_many(some_entries(0));
        return all_there(*cache, 0) &&
               static_cast<std::int64_t>(cluster.sessions(name).size()) > nodes;
    }));
    CHECK(sum_of(cluster.sessions(name)) <= static_cast<std::int64_t>(max_size));
    cache->put_many(some_entries(1000));
    CHECK(all_there(*cache, 1000));
    // Calls of one shard share statements, puts as well, once there are connections to all nodes.
    if (max_size == 16) {
        const auto shards = static_cast<std::uint64_t>(TestSchema::shards());
        CHECK(eventually([&] {
            const auto before = cache->statistics().statements;
            cache->put_many(some_entries(2000));
            return cache->statistics().statements - before <= 3 * shards;
        }));
    }
    CHECK(cache->remove_many(some_keys()) == keys);
    CHECK(schema.rows() == 0);
}

TEST_CASE("Shards that move are followed, and meanwhile nothing is wrong") {
    const Flavour flavour = GENERATE(Flavour::async, Flavour::blocking);
    CAPTURE(flavour);
    Cluster cluster;
    TestSchema schema;
    const auto cache = make_cache(flavour, schema.cache_options(), pool_named(unique_name(), 16));
    cache->put_many(some_entries(0));
    CHECK(all_there(*cache, 0));
    cluster.move_shards(schema.table(), 3);
    CHECK(all_there(*cache, 0));
    cache->put_many(some_entries(1000));
    CHECK(all_there(*cache, 1000));
    CHECK(cache->remove_many(some_keys()) == keys);
    CHECK(schema.rows() == 0);
}

TEST_CASE("A table that is distributed, or no more, while it is used is used as it is") {
    const Flavour flavour = GENERATE(Flavour::async, Flavour::blocking, Flavour::async_borrowing);
    CAPTURE(flavour);
    TestSchema schema;
    schema.sql().exec("SELECT undistribute_table(" + quote_literal(schema.table()) + ")");
    const auto cache = make_cache(flavour, schema.cache_options(), server_pool());
    cache->put_many(some_entries(0));
    CHECK(all_there(*cache, 0));
    schema.sql().exec("SELECT create_distributed_table(" + quote_literal(schema.table()) +
                      ", 'key', shard_count := 4, colocate_with := 'none')");
    cache->put_many(some_entries(1000));
    CHECK(all_there(*cache, 1000));
    cache->put("key0", numbered(5), 1h);
    CHECK(cache->touch("key0", 2h));
    CHECK(cache->increment("counter", 2, 1h) == 2);
    CHECK(schema.rows() == keys + 1);
    schema.sql().exec("SELECT undistribute_table(" + quote_literal(schema.table()) + ")");
    CHECK(cache->get("key0") == numbered(5));
    cache->put_many(some_entries(2000));
    CHECK(all_there(*cache, 2000));
    CHECK(cache->increment("counter", 2, 1h) == 4);
    CHECK(cache->remove_many(some_keys()) == keys);
    CHECK(schema.rows() == 1);
}

TEST_CASE("A role that nodes refuse is told so, and served again once they let it in") {
    const Flavour flavour = GENERATE(Flavour::async, Flavour::blocking);
    CAPTURE(flavour);
    Cluster cluster;
    TestSchema schema;
    const std::string role = unique_name();
    Psql& sql = cluster.sql();
    sql.exec("CREATE ROLE " + role + " LOGIN");
    sql.exec("GRANT USAGE ON SCHEMA " + schema.quoted() + " TO " + role);
    sql.exec("GRANT ALL ON " + schema.table() + " TO " + role);
    const std::string name = unique_name();
    PoolOptions pool = pool_named(name, 8);
    pool.dsn = dsn_with({{"user", role}, {"application_name", name}});
    const auto cache = make_cache(flavour, schema.cache_options(), pool);
    cache->put_many(some_entries(0));
    CHECK(all_there(*cache, 0));
    const auto on_workers = [&](const std::string& command) {
        sql.exec("SELECT run_command_on_workers(" + quote_literal(command) + ")");
    };
    on_workers("SET citus.enable_ddl_propagation = off; ALTER ROLE " + role + " NOLOGIN");
    cluster.end_sessions(name);
    // The coordinator cannot reach them either, and its failure says what is wrong.
    std::string said;
    CHECK(eventually([&] {
        const auto failure = failure_of([&] { cache->put_many(some_entries(2000)); });
        said = failure.what();
        return said.find("another node of its cluster") != std::string::npos;
    }));
    CAPTURE(said);
    on_workers("SET citus.enable_ddl_propagation = off; ALTER ROLE " + role + " LOGIN");
    CHECK(eventually([&] {
        try {
            cache->put_many(some_entries(3000));
            return all_there(*cache, 3000);
        } catch (const Error&) {
            return false;
        }
    }));
    settle(schema);
    Psql last;
    last.exec("DROP OWNED BY " + role);
    last.exec("DROP ROLE " + role);
}

TEST_CASE("init_db may be run again on a distributed table, with and without its index") {
    TestSchema schema;
    init_db(dsn(), schema.table_options());
    schema.sql().exec("DROP INDEX " + schema.quoted() + ".ix_psycache_expires_at");
    init_db(dsn(), schema.table_options());
    CHECK(schema.sql().number(
              "SELECT count(*) FROM pg_indexes WHERE schemaname = " + quote_literal(schema.name()) +
              " AND indexname = 'ix_psycache_expires_at'") == 1);
}
