// A distributed table under load while sessions are ended on all nodes and shards move.

#include <catch2/catch.hpp>
#include <iostream>

#include "citus/cluster.hpp"
#include "faults/load.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

PoolOptions pool_named(const std::string& name) {
    PoolOptions pool = server_pool();
    pool.dsn = dsn_with({{"application_name", name}});
    pool.max_size = 16;
    return pool;
}

void report(const char* what, const Load& load) {
    const CacheStatistics seen = load.statistics();
    std::cout << what << ": " << seen.puts << " puts, " << seen.hits << " hits, "
              << load.record().failures() << " failed calls, slowest "
              << load.record().slowest().count() << " ms" << std::endl;
}

}  // namespace

TEST_CASE("No acknowledged write is lost while sessions are ended and shards move") {
    const Flavour flavour = GENERATE(Flavour::async, Flavour::blocking);
    CAPTURE(flavour);
    Cluster cluster;
    REQUIRE(cluster.workers() > 1);
    TestSchema schema;
    const std::string name = unique_name();
    CacheOptions options = schema.cache_options();
    options.timeout = usual_timeout;
    Load load(flavour, pool_named(name), options);
    REQUIRE(load.works());
    // Each node with shards has sessions of the cache, as well as the one that its DSN names.
    CHECK(eventually([&] {
        return static_cast<std::int64_t>(cluster.sessions(name).size()) >= cluster.workers();
    }));
    for (int round = 0; round < 25; ++round) {
        cluster.end_sessions(name);
        std::this_thread::sleep_for(300ms);
    }
    CHECK(load.works());
    cluster.move_shards(schema.table(), 4);
    for (int round = 0; round < 10; ++round) {
        cluster.end_sessions(name);
        std::this_thread::sleep_for(300ms);
    }
    CHECK(load.works());
    load.stop();
    settle(schema);
    report("sessions ended, shards moved", load);
    // What another node's session meets is told as it is.
    CHECK(load.record().unexpected({Errc::outcome_unknown, Errc::connect_failed,
                                    Errc::connection_lost, Errc::timed_out, sqlstate_code("57P01"),
                                    sqlstate_code("08006"), sqlstate_code("08003"),
                                    sqlstate_code("57014"), sqlstate_code("55P03")}) == "");
}

TEST_CASE("A row that is locked holds up no other one") {
    const Flavour flavour = GENERATE(Flavour::async, Flavour::blocking);
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema.cache_options(), pool_named(unique_name()));
    std::vector<Entry> entries;
    for (int i = 0; i < 100; ++i) {
        entries.emplace_back("key" + std::to_string(i), numbered(i), 1h);
    }
    cache->put_many(entries);
    Psql other;
    other.exec("BEGIN");
    other.exec("UPDATE " + schema.table() + " SET value = '{}' WHERE key = 'key7'");
    std::vector<Entry> free_ones;
    for (const Entry& entry : entries) {
        if (entry.key != "key7") {
            free_ones.push_back(entry);
        }
    }
    const auto began = Clock::now();
    for (int round = 0; round < 5; ++round) {
        cache->put_many(free_ones);
    }
    CHECK(Clock::now() - began < 3s * slowness);
    other.exec("COMMIT");
    cache->put_many(entries);
    CHECK(cache->get("key7") == numbered(7));
}
