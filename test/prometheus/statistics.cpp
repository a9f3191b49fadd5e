// What a cache counts by itself, as Prometheus reads it.

#include <prometheus/text_serializer.h>

#include <catch2/catch.hpp>
#include <map>
#include <set>
#include <stdexcept>
#include <string>

#include <psycache/instrumentation/prometheus_statistics.hpp>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// Values by name.
std::map<std::string, double> values_of(const PrometheusStatistics& statistics) {
    std::map<std::string, double> values;
    for (const auto& family : statistics.Collect()) {
        CAPTURE(family.name);
        REQUIRE(family.metric.size() == 1);
        const bool counter = family.type == prometheus::MetricType::Counter;
        CHECK(counter == (family.name.find("_total") != std::string::npos));
        CHECK(family.help.back() == '.');
        const auto& metric = family.metric.front();
        CHECK(values.emplace(family.name, counter ? metric.counter.value : metric.gauge.value)
                  .second);
    }
    return values;
}

CacheStatistics numbered_statistics() {
    CacheStatistics statistics;
    statistics.queued = 1;
    statistics.circuit_open = true;
    statistics.outage_misses = 2;
    statistics.dropped_writes = 3;
    statistics.evictions = 4;
    statistics.cleanup_failures = 5;
    statistics.near_cache.emplace();
    statistics.near_cache->hits = 6;
    statistics.near_cache->misses = 7;
    statistics.near_cache->evictions = 8;
    statistics.near_cache->invalidations = 9;
    statistics.near_cache->entries = 10;
    statistics.near_cache->bytes = 11;
    statistics.near_cache->listening = true;
    statistics.near_cache->lag = 12ms;
    return statistics;
}

}  // namespace

TEST_CASE("Each number of a cache has its metric") {
    const PrometheusStatistics statistics(numbered_statistics);
    CHECK(values_of(statistics) == std::map<std::string, double>{
                                       {"psycache_queued_calls", 1},
                                       {"psycache_circuit_open", 1},
                                       {"psycache_outage_misses_total", 2},
                                       {"psycache_dropped_writes_total", 3},
                                       {"psycache_evictions_total", 4},
                                       {"psycache_cleanup_failures_total", 5},
                                       {"psycache_near_hits_total", 6},
                                       {"psycache_near_misses_total", 7},
                                       {"psycache_near_evictions_total", 8},
                                       {"psycache_near_invalidations_total", 9},
                                       {"psycache_near_entries", 10},
                                       {"psycache_near_bytes", 11},
                                       {"psycache_near_listening", 1},
                                       {"psycache_near_lag_seconds", 0.012},
                                   });
    const PrometheusStatistics plain([] { return CacheStatistics(); });
    CHECK(values_of(plain).size() == 6);
    CHECK(values_of(plain).count("psycache_near_hits_total") == 0);
}

TEST_CASE("Statistics carry their labels, and tell nothing where they cannot be had") {
    const PrometheusStatistics labelled(numbered_statistics, {{"cache", "users"}});
    const auto text = prometheus::TextSerializer().Serialize(labelled.Collect());
    CHECK_THAT(text, Catch::Contains("psycache_near_hits_total{cache=\"users\"} 6"));
    const PrometheusStatistics failing([]() -> CacheStatistics { throw std::runtime_error("no"); });
    CHECK(failing.Collect().empty());
    CHECK_THROWS_WITH(PrometheusStatistics(nullptr), Catch::Contains("statistics"));
    CHECK_THROWS_WITH(PrometheusStatistics(numbered_statistics, {{"__x", ""}}),
                      Catch::Contains("constant_labels"));
}

TEST_CASE("A near cache is seen while it hits, hears of changes, and hears no more") {
    TestSchema schema(Table::notifying);
    schema.insert("key", "{\"n\": 1}");
    auto options = schema.cache_options();
    options.near_cache.emplace();
    options.near_cache->max_staleness = 500ms * slowness;
    options.log = [](LogLevel, std::string_view) {};
    PostgresCache cache(server_pool(), options);
    const PrometheusStatistics statistics([&] { return cache.statistics(); });
    const auto value = [&](const std::string& name) {
        return values_of(statistics).at("psycache_near_" + name);
    };
    CHECK(value("listening") == 0);
    CHECK(eventually([&] {
        cache.get_shared("key");
        return value("hits_total") > 0;
    }));
    CHECK(value("misses_total") > 0);
    CHECK(value("entries") == 1);
    CHECK(value("bytes") > 0);
    CHECK(value("listening") == 1);
    CHECK(value("lag_seconds") > 0);
    schema.sql().exec("UPDATE " + schema.table() + " SET value = '{\"n\": 2}'");
    CHECK(eventually([&] { return value("invalidations_total") > 0; }));
    schema.sql().exec("DROP TRIGGER psycache_notify_update ON " + schema.table());
    CHECK(eventually([&] {
        cache.get_shared("key");
        return value("listening") == 0;
    }));
}
