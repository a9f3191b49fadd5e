// What is registered, and which event moves which metric; no server.

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <boost/asio/error.hpp>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <set>
#include <sstream>
#include <stdexcept>
#include <thread>

#include <psycache/error.hpp>

#include "scrape.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;

namespace {

SpanInfo named(std::string_view name) {
    return SpanInfo{{}, name};
}

const char* type_name(prometheus::MetricType type) {
    switch (type) {
        case prometheus::MetricType::Counter:
            return "counter";
        case prometheus::MetricType::Gauge:
            return "gauge";
        case prometheus::MetricType::Histogram:
            return "histogram";
        default:
            return "something else";
    }
}

/// "name | type | labels | buckets", as in the table of the reference.
std::string line_of(const prometheus::MetricFamily& family) {
    std::ostringstream line;
    line.precision(10);
    line << family.name << " | " << type_name(family.type) << " |";
    std::set<std::string> labels;
    for (const auto& metric : family.metric) {
        for (const auto& label : metric.label) {
            labels.insert(label.name);
        }
    }
    for (const auto& label : labels) {
        line << ' ' << label;
    }
    line << " |";
    if (family.type == prometheus::MetricType::Histogram && !family.metric.empty()) {
        const auto& buckets = family.metric.front().histogram.bucket;
        for (std::size_t i = 0; i + 1 < buckets.size(); ++i) {
            line << ' ' << buckets[i].upper_bound;
        }
    }
    return line.str();
}

#define CALL_BUCKETS "0.005 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10"
#define STATEMENT_BUCKETS \
    "0.0001 0.00025 0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10"

const std::set<std::string> table{
    // Those of the Python package.
    "psycache_hits_total | counter | span_name |",
    "psycache_misses_total | counter | span_name |",
    "psycache_get_duration_seconds | histogram | span_name | " CALL_BUCKETS,
    "psycache_put_duration_seconds | histogram | span_name | " CALL_BUCKETS,
    "psycache_remove_duration_seconds | histogram | | " CALL_BUCKETS,
    "psycache_flush_duration_seconds | histogram | | " CALL_BUCKETS,
    "psycache_item_size_bytes | histogram | span_name | 64 256 1024 4096 16384 65536 262144 "
    "1048576",
    "psycache_flushed_entries | histogram | | 0 1 5 10 25 50 100 250 500 1000",
    "psycache_cleanup_last_run_timestamp_seconds | gauge | |",
    "psycache_cleanup_deleted_entries | gauge | |",
    // More than that.
    "psycache_cleanup_duration_seconds | histogram | | " CALL_BUCKETS,
    "psycache_errors_total | counter | kind operation |",
    "psycache_calls_in_progress | gauge | operation |",
    "psycache_retries_total | counter | operation |",
    "psycache_statement_duration_seconds | histogram | operation | " STATEMENT_BUCKETS,
    "psycache_statement_calls | histogram | operation | 1 2 4 8 16 32 64 128",
    "psycache_invalidation_duration_seconds | histogram | operation | " CALL_BUCKETS,
    "psycache_invalidated_entries_total | counter | operation |",
    "psycache_loads_total | counter | outcome renewal |",
    "psycache_load_duration_seconds | histogram | | 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 "
    "0.5 "
    "1 2.5 5 10 30 60",
    "psycache_load_joins_total | counter | |",
    "psycache_load_waits_total | counter | |",
    "psycache_stale_hits_total | counter | |",
    "psycache_connection_wait_seconds | histogram | | " STATEMENT_BUCKETS,
    "psycache_pool_open_connections | gauge | |",
    "psycache_pool_idle_connections | gauge | |",
    "psycache_pool_busy_connections | gauge | |",
    "psycache_pool_connecting | gauge | |",
    "psycache_pool_waiting | gauge | |",
};

}  // namespace

TEST_CASE("Exactly the metrics of the table are registered") {
    Metered metered;
    touch_all(metered.feed());
    std::set<std::string> lines;
    const auto scrape = metered.scrape();
    for (const auto& family : scrape.families()) {
        CAPTURE(family.name);
        CHECK(lines.insert(line_of(family)).second);
        CHECK(family.help.size() > 10);
        CHECK(family.help.back() == '.');
        for (const auto& metric : family.metric) {
            CHECK(metric.label.size() == family.metric.front().label.size());
        }
    }
    for (const auto& line : table) {
        CAPTURE(line);
        CHECK(lines.count(line) == 1);
    }
    for (const auto& line : lines) {
        CAPTURE(line);
        CHECK(table.count(line) == 1);
    }
}

TEST_CASE("Series of a span name appear when they are used, all others are there from the start") {
    Metered metered;
    const auto start = metered.scrape();
    for (const auto& [series, value] : start.values()) {
        CAPTURE(series);
        CHECK(value == 0);
        CHECK_THAT(series, !Contains("span_name="));
    }
    CHECK(start.has("psycache_remove_duration_seconds_count"));
    CHECK(start.has("psycache_pool_waiting"));
    CHECK(start.has("psycache_load_duration_seconds_count"));
    CHECK(start.has("psycache_load_joins_total"));
    CHECK(start.has("psycache_load_waits_total"));
    CHECK(start.has("psycache_stale_hits_total"));
    for (const std::string outcome :
         {"stored", "late", "unstored", "nothing", "failed", "elsewhere", "abandoned"}) {
        CAPTURE(outcome);
        CHECK(start.has("psycache_loads_total{outcome=" + outcome + ",renewal=false}"));
        CHECK(start.has("psycache_loads_total{outcome=" + outcome + ",renewal=true}"));
    }
    for (const std::string operation :
         {"get", "put", "remove", "flush", "cleanup", "remove_prefix", "remove_tag", "clear"}) {
        CAPTURE(operation);
        CHECK(start.has("psycache_calls_in_progress{operation=" + operation + "}"));
        CHECK(start.has("psycache_retries_total{operation=" + operation + "}"));
        CHECK(start.has("psycache_statement_calls_count{operation=" + operation + "}"));
        for (const std::string kind : {"cancelled", "timeout", "outcome_unknown", "unavailable",
                                       "transient", "caller_mistake", "other"}) {
            CHECK(
                start.has("psycache_errors_total{kind=" + kind + ",operation=" + operation + "}"));
        }
    }

    metered.feed().start_cache_get_span(named("a"))->record_cache_miss();
    const auto then = metered.scrape();
    CHECK(then.has("psycache_misses_total{span_name=a}"));
    CHECK(then.has("psycache_get_duration_seconds_count{span_name=a}"));
    CHECK_FALSE(then.has("psycache_hits_total{span_name=a}"));
    CHECK_FALSE(then.has("psycache_put_duration_seconds_count{span_name=a}"));
    CHECK_FALSE(then.has("psycache_item_size_bytes_count{span_name=a}"));
}

TEST_CASE("Every event moves its metrics and no other") {
    Metered metered;
    auto& feed = metered.feed();
    auto before = metered.scrape();
    const auto moved = [&] {
        auto now = metered.scrape();
        auto changes = now.since(before);
        before = std::move(now);
        return changes;
    };

    SECTION("get") {
        auto span = feed.start_cache_get_span(named("load"));
        CHECK(moved() == Values{{"psycache_calls_in_progress{operation=get}", 1}});
        span->record_cache_hit(300);
        CHECK(moved() == Values{{"psycache_hits_total{span_name=load}", 1},
                                {"psycache_item_size_bytes_count{span_name=load}", 1},
                                {"psycache_item_size_bytes_sum{span_name=load}", 300}});
        span.reset();
        CHECK(moved() == Values{{"psycache_calls_in_progress{operation=get}", -1},
                                {"psycache_get_duration_seconds_count{span_name=load}", 1}});

        span = feed.start_cache_get_span(named(""));
        span->record_cache_miss();
        span.reset();
        CHECK(moved() == Values{{"psycache_misses_total{span_name=}", 1},
                                {"psycache_get_duration_seconds_count{span_name=}", 1}});
    }
    SECTION("put") {
        auto span = feed.start_cache_put_span(named("store"));
        CHECK(moved() == Values{{"psycache_calls_in_progress{operation=put}", 1}});
        span->record_put(64);
        CHECK(moved() == Values{{"psycache_item_size_bytes_count{span_name=store}", 1},
                                {"psycache_item_size_bytes_sum{span_name=store}", 64}});
        span.reset();
        CHECK(moved() == Values{{"psycache_calls_in_progress{operation=put}", -1},
                                {"psycache_put_duration_seconds_count{span_name=store}", 1}});
    }
    SECTION("operations that not everybody uses have series once they are used") {
        auto span = feed.start_cache_get_span(SpanInfo{{}, "load", "take_many"});
        CHECK(moved()["psycache_calls_in_progress{operation=take}"] == 1);
        span->record_error(Errc::timed_out);
        span.reset();
        CHECK(moved() == Values{{"psycache_calls_in_progress{operation=take}", -1},
                                {"psycache_errors_total{kind=timeout,operation=take}", 1},
                                {"psycache_get_duration_seconds_count{span_name=load}", 1}});
        span = feed.start_cache_get_span(SpanInfo{{}, "load", "get_raw_many"});
        CHECK(moved() == Values{{"psycache_calls_in_progress{operation=get}", 1}});
        auto touch = feed.start_cache_touch_span(SpanInfo{{}, "", "touch"});
        CHECK(moved()["psycache_calls_in_progress{operation=touch}"] == 1);
    }
    SECTION("remove") {
        auto span = feed.start_cache_remove_span(named(""));
        CHECK(moved() == Values{{"psycache_calls_in_progress{operation=remove}", 1}});
        span->record_removed();
        CHECK(moved().empty());
        span.reset();
        CHECK(moved() == Values{{"psycache_calls_in_progress{operation=remove}", -1},
                                {"psycache_remove_duration_seconds_count", 1}});
    }
    SECTION("calls on groups of entries") {
        auto span = feed.start_cache_invalidation_span({"remove_tag", "red", "name"});
        CHECK(moved() == Values{{"psycache_calls_in_progress{operation=remove_tag}", 1}});
        span->record_invalidated(12);
        CHECK(moved() == Values{{"psycache_invalidated_entries_total{operation=remove_tag}", 12}});
        span.reset();
        CHECK(moved() ==
              Values{{"psycache_calls_in_progress{operation=remove_tag}", -1},
                     {"psycache_invalidation_duration_seconds_count{operation=remove_tag}", 1}});
        feed.start_cache_invalidation_span({"clear", "", ""})->record_invalidated(0);
        CHECK(moved() ==
              Values{{"psycache_invalidation_duration_seconds_count{operation=clear}", 1}});
    }
    SECTION("flush") {
        auto span = feed.start_cache_flush_span();
        CHECK(moved() == Values{{"psycache_calls_in_progress{operation=flush}", 1}});
        span->record_flush(12);
        CHECK(moved() ==
              Values{{"psycache_flushed_entries_count", 1}, {"psycache_flushed_entries_sum", 12}});
        span.reset();
        CHECK(moved() == Values{{"psycache_calls_in_progress{operation=flush}", -1},
                                {"psycache_flush_duration_seconds_count", 1}});
    }
    SECTION("cleanup") {
        auto span = feed.start_cache_cleanup_span();
        CHECK(moved() == Values{{"psycache_calls_in_progress{operation=cleanup}", 1}});
        span->record_cleanup(7);
        const auto changes = moved();
        REQUIRE(changes.size() == 2);
        CHECK(changes.at("psycache_cleanup_deleted_entries") == 7);
        const std::chrono::duration<double> now =
            std::chrono::system_clock::now().time_since_epoch();
        CHECK(changes.at("psycache_cleanup_last_run_timestamp_seconds") <= now.count());
        CHECK(changes.at("psycache_cleanup_last_run_timestamp_seconds") > now.count() - 60);
        span.reset();
        CHECK(moved() == Values{{"psycache_calls_in_progress{operation=cleanup}", -1},
                                {"psycache_cleanup_duration_seconds_count", 1}});
        // Of the last run, not of all.
        feed.start_cache_cleanup_span()->record_cleanup(2);
        CHECK(metered.scrape()["psycache_cleanup_deleted_entries"] == 2);
    }
    SECTION("a cleanup that fails leaves the last one's numbers") {
        feed.start_cache_cleanup_span()->record_cleanup(7);
        moved();
        feed.start_cache_cleanup_span()->record_error(Errc::timed_out);
        CHECK(moved() == Values{{"psycache_errors_total{kind=timeout,operation=cleanup}", 1},
                                {"psycache_cleanup_duration_seconds_count", 1}});
    }
    SECTION("errors") {
        feed.start_cache_get_span(named("a"))->record_error(Errc::connect_failed);
        CHECK(moved() == Values{{"psycache_errors_total{kind=unavailable,operation=get}", 1},
                                {"psycache_get_duration_seconds_count{span_name=a}", 1}});
        feed.start_cache_put_span(named("a"))->record_error(Errc::outcome_unknown);
        CHECK(moved() == Values{{"psycache_errors_total{kind=outcome_unknown,operation=put}", 1},
                                {"psycache_put_duration_seconds_count{span_name=a}", 1}});
        feed.start_cache_remove_span(named(""))->record_error(
            boost::asio::error::operation_aborted);
        CHECK(moved() == Values{{"psycache_errors_total{kind=cancelled,operation=remove}", 1},
                                {"psycache_remove_duration_seconds_count", 1}});
        feed.start_cache_flush_span()->record_error(Errc::protocol_error);
        CHECK(moved() == Values{{"psycache_errors_total{kind=other,operation=flush}", 1},
                                {"psycache_flush_duration_seconds_count", 1}});
    }
    SECTION("a wait for a connection") {
        feed.record_connection_wait({3ms, {}});
        CHECK(moved() == Values{{"psycache_connection_wait_seconds_count", 1}});
        CHECK(before["psycache_connection_wait_seconds_sum"] == Approx(0.003));
        feed.record_connection_wait({4s, Errc::acquire_timed_out});
        CHECK(moved() == Values{{"psycache_connection_wait_seconds_count", 1}});
        CHECK(before["psycache_connection_wait_seconds_sum"] == Approx(4.003));
    }
    SECTION("statements") {
        StatementInfo statement;
        statement.operation = "put";
        statement.calls = 33;
        statement.took = 250us;
        feed.record_statement(statement);
        CHECK(moved() == Values{{"psycache_statement_duration_seconds_count{operation=put}", 1},
                                {"psycache_statement_calls_count{operation=put}", 1},
                                {"psycache_statement_calls_sum{operation=put}", 33}});
        CHECK(before["psycache_statement_duration_seconds_sum{operation=put}"] == Approx(0.00025));
        statement.operation = "cleanup";
        statement.calls = 1;
        statement.retry = true;
        statement.error = Errc::connection_lost;
        feed.record_statement(statement);
        CHECK(moved() == Values{{"psycache_statement_duration_seconds_count{operation=cleanup}", 1},
                                {"psycache_statement_calls_count{operation=cleanup}", 1},
                                {"psycache_statement_calls_sum{operation=cleanup}", 1},
                                {"psycache_retries_total{operation=cleanup}", 1}});
        statement.operation = "take";
        feed.record_statement(statement);
        CHECK(moved()["psycache_statement_calls_count{operation=take}"] == 1);
    }
    SECTION("loads") {
        LoadInfo load;
        load.callers = 1;
        load.took = 30ms;
        feed.record_load(load);
        CHECK(moved() == Values{{"psycache_loads_total{outcome=stored,renewal=false}", 1},
                                {"psycache_load_duration_seconds_count", 1}});
        CHECK(before["psycache_load_duration_seconds_sum"] == Approx(0.03));
        load.outcome = LoadInfo::Outcome::failed;
        load.callers = 5;
        load.waited = 1ms;
        feed.record_load(load);
        CHECK(moved() == Values{{"psycache_loads_total{outcome=failed,renewal=false}", 1},
                                {"psycache_load_duration_seconds_count", 1},
                                {"psycache_load_joins_total", 4},
                                {"psycache_load_waits_total", 1}});
        load = {};
        load.outcome = LoadInfo::Outcome::elsewhere;
        load.callers = 3;
        load.waited = 1s;
        feed.record_load(load);
        CHECK(moved() == Values{{"psycache_loads_total{outcome=elsewhere,renewal=false}", 1},
                                {"psycache_load_joins_total", 2},
                                {"psycache_load_waits_total", 1}});
    }
    SECTION("a loader that takes less than the clock can tell has a duration, too") {
        LoadInfo load;
        load.outcome = LoadInfo::Outcome::nothing;
        load.callers = 1;
        feed.record_load(load);
        CHECK(moved() == Values{{"psycache_loads_total{outcome=nothing,renewal=false}", 1},
                                {"psycache_load_duration_seconds_count", 1}});
    }
    SECTION("an abandoned load has no callers, and a duration where that is known") {
        LoadInfo load;
        load.outcome = LoadInfo::Outcome::abandoned;
        feed.record_load(load);
        CHECK(moved() == Values{{"psycache_loads_total{outcome=abandoned,renewal=false}", 1}});
        load.took = 2s;
        feed.record_load(load);
        CHECK(moved() == Values{{"psycache_loads_total{outcome=abandoned,renewal=false}", 1},
                                {"psycache_load_duration_seconds_count", 1}});
    }
    SECTION("all who wait for a renewal have joined it") {
        LoadInfo load;
        load.outcome = LoadInfo::Outcome::late;
        load.renewal = true;
        load.took = 1ms;
        feed.record_load(load);
        CHECK(moved() == Values{{"psycache_loads_total{outcome=late,renewal=true}", 1},
                                {"psycache_load_duration_seconds_count", 1}});
        load.outcome = LoadInfo::Outcome::unstored;
        load.callers = 2;
        feed.record_load(load);
        CHECK(moved() == Values{{"psycache_loads_total{outcome=unstored,renewal=true}", 1},
                                {"psycache_load_duration_seconds_count", 1},
                                {"psycache_load_joins_total", 2}});
    }
    SECTION("stale hits") {
        feed.record_stale_hit();
        CHECK(moved() == Values{{"psycache_stale_hits_total", 1}});
    }
    SECTION("the pool") {
        PoolChange change;
        change.open = 5;
        feed.record_pool_change(change);
        CHECK(moved() == Values{{"psycache_pool_open_connections", 5}});
        change = {};
        change.idle = 4;
        feed.record_pool_change(change);
        CHECK(moved() == Values{{"psycache_pool_idle_connections", 4}});
        change = {};
        change.busy = 3;
        feed.record_pool_change(change);
        CHECK(moved() == Values{{"psycache_pool_busy_connections", 3}});
        change = {};
        change.connecting = 2;
        feed.record_pool_change(change);
        CHECK(moved() == Values{{"psycache_pool_connecting", 2}});
        change = {};
        change.waiting = 1;
        feed.record_pool_change(change);
        CHECK(moved() == Values{{"psycache_pool_waiting", 1}});
        change = {};
        change.idle = -4;
        change.busy = 1;
        feed.record_pool_change(change);
        CHECK(moved() == Values{{"psycache_pool_idle_connections", -4},
                                {"psycache_pool_busy_connections", 1}});
    }
}

TEST_CASE("A value on a bound is counted within that bound") {
    Metered metered;
    metered.feed().start_cache_put_span(named("a"))->record_put(256);
    metered.feed().start_cache_flush_span()->record_flush(0);
    const auto scrape = metered.scrape();
    CHECK(scrape["psycache_item_size_bytes_bucket{le=64.000000,span_name=a}"] == 0);
    CHECK(scrape["psycache_item_size_bytes_bucket{le=256.000000,span_name=a}"] == 1);
    CHECK(scrape["psycache_flushed_entries_bucket{le=0.000000}"] == 1);
}

TEST_CASE("A duration is the time until the span ends") {
    Metered metered;
    {
        const auto span = metered.feed().start_cache_remove_span(named(""));
        std::this_thread::sleep_for(20ms);
    }
    const auto scrape = metered.scrape();
    CHECK(scrape["psycache_remove_duration_seconds_sum"] >= 0.02);
    CHECK(scrape["psycache_remove_duration_seconds_sum"] < 20);
    CHECK(scrape["psycache_remove_duration_seconds_bucket{le=0.010000}"] == 0);
}

TEST_CASE("An error has one kind") {
    struct Row {
        boost::system::error_code code;
        std::string_view kind;
    };
    const Row rows[] = {
        {boost::asio::error::operation_aborted, "cancelled"},
        {Errc::timed_out, "timeout"},
        {Errc::acquire_timed_out, "timeout"},
        {sqlstate_code("57014"), "timeout"},
        {sqlstate_code("55P03"), "timeout"},
        {Errc::outcome_unknown, "outcome_unknown"},
        {Errc::connect_failed, "unavailable"},
        {Errc::connection_lost, "unavailable"},
        {Errc::authentication_failed, "unavailable"},
        {sqlstate_code("57P01"), "unavailable"},
        {sqlstate_code("53300"), "unavailable"},
        {Errc::queue_full, "transient"},
        {sqlstate_code("40001"), "transient"},
        {sqlstate_code("53200"), "transient"},
        {Errc::invalid_key, "caller_mistake"},
        {Errc::invalid_value, "caller_mistake"},
        {Errc::invalid_ttl, "caller_mistake"},
        {Errc::table_missing, "caller_mistake"},
        {Errc::permission_denied, "caller_mistake"},
        {Errc::pool_closed, "caller_mistake"},
        {Errc::connection_unusable, "caller_mistake"},
        {Errc::reentrant_call, "caller_mistake"},
        {sqlstate_code("42703"), "caller_mistake"},
        {Errc::unreadable_value, "other"},
        {Errc::protocol_error, "other"},
        {sqlstate_code("XX000"), "other"},
        {boost::asio::error::eof, "other"},
    };
    for (const auto& row : rows) {
        CAPTURE(row.code.message());
        CHECK(PrometheusInstrumentation::error_kind(row.code) == row.kind);
    }
}

TEST_CASE("Two instrumentations on one registry add up") {
    const auto registry = std::make_shared<prometheus::Registry>();
    PrometheusInstrumentation first(registry);
    first.start_cache_get_span(named("a"))->record_cache_miss();
    PrometheusInstrumentation second(registry);
    second.start_cache_get_span(named("a"))->record_cache_miss();
    second.start_cache_flush_span()->record_flush(3);
    first.start_cache_flush_span()->record_flush(4);
    PoolChange change;
    change.open = 2;
    first.record_pool_change(change);
    second.record_pool_change(change);

    const Scrape scrape(*registry);
    CHECK(scrape["psycache_misses_total{span_name=a}"] == 2);
    CHECK(scrape["psycache_flushed_entries_sum"] == 7);
    CHECK(scrape["psycache_pool_open_connections"] == 4);
    std::set<std::string> names;
    for (const auto& family : scrape.families()) {
        CAPTURE(family.name);
        CHECK(names.insert(family.name).second);
    }
}

TEST_CASE("A constant label tells caches apart on one registry") {
    const auto registry = std::make_shared<prometheus::Registry>();
    PrometheusInstrumentation users(registry, {{"cache", "users"}});
    PrometheusInstrumentation pages(registry, {{"cache", "pages"}, {"zone", "1"}});
    touch_all(users);
    touch_all(pages);
    pages.start_cache_get_span(named("name"))->record_cache_miss();
    pages.record_load({});
    users.record_stale_hit();

    const Scrape scrape(*registry);
    CHECK(scrape["psycache_misses_total{cache=users,span_name=name}"] == 1);
    CHECK(scrape["psycache_misses_total{cache=pages,span_name=name,zone=1}"] == 2);
    CHECK(scrape["psycache_loads_total{cache=users,outcome=stored,renewal=false}"] == 0);
    CHECK(scrape["psycache_loads_total{cache=pages,outcome=stored,renewal=false,zone=1}"] == 1);
    CHECK(scrape["psycache_stale_hits_total{cache=users}"] == 1);
    CHECK_FALSE(scrape.has("psycache_stale_hits_total"));
    for (const auto& [series, value] : scrape.values()) {
        CAPTURE(series, value);
        CHECK_THAT(series, Contains("cache=users") || Contains("cache=pages"));
    }
    // One family per name, or the text would describe a metric twice.
    std::set<std::string> names;
    for (const auto& family : scrape.families()) {
        CAPTURE(family.name);
        CHECK(names.insert(family.name).second);
    }
}

TEST_CASE("What was counted stays when the instrumentation is gone") {
    const auto registry = std::make_shared<prometheus::Registry>();
    std::make_unique<PrometheusInstrumentation>(registry)
        ->start_cache_get_span(named("a"))
        ->record_cache_miss();
    CHECK(Scrape(*registry)["psycache_misses_total{span_name=a}"] == 1);

    auto owner = std::make_shared<prometheus::Registry>();
    const std::weak_ptr<prometheus::Registry> watched = owner;
    auto last = std::make_unique<PrometheusInstrumentation>(std::move(owner));
    CHECK_FALSE(watched.expired());
    last->start_cache_get_span(named("a"))->record_cache_miss();
    last.reset();
    CHECK(watched.expired());
}

TEST_CASE("Wrong arguments are refused, and nothing is registered") {
    CHECK_THROWS_MATCHES(PrometheusInstrumentation(nullptr), std::invalid_argument,
                         Catch::Message("registry must not be null"));
    const auto registry = std::make_shared<prometheus::Registry>();
    const std::string name(GENERATE(as<std::string>(), "span_name", "operation", "kind", "outcome",
                                    "renewal", "le", "__own", "", "with-dash", "1st",
                                    "caf\xC3\xA9"));
    CAPTURE(name);
    try {
        const PrometheusInstrumentation instrumentation(registry, {{"fine", "x"}, {name, "x"}});
        FAIL("a wrong label was accepted");
    } catch (const std::invalid_argument& error) {
        CHECK_THAT(error.what(), Contains("constant_labels") && Contains("\"" + name + "\""));
    }
    CHECK(registry->Collect().empty());
}

TEST_CASE("A registry that throws takes one instrumentation") {
    const auto registry =
        std::make_shared<prometheus::Registry>(prometheus::Registry::InsertBehavior::Throw);
    PrometheusInstrumentation first(registry);
    CHECK_THROWS_AS(PrometheusInstrumentation(registry), std::invalid_argument);
    touch_all(first);
    CHECK(Scrape(*registry)["psycache_hits_total{span_name=name}"] == 1);
}

TEST_CASE("A metric of the same name and another type is refused") {
    const auto registry = std::make_shared<prometheus::Registry>();
    prometheus::BuildGauge().Name("psycache_hits_total").Help("Not ours.").Register(*registry);
    CHECK_THROWS_AS(PrometheusInstrumentation(registry), std::invalid_argument);
}

TEST_CASE("Span names may hold anything that is UTF-8") {
    Metered metered;
    metered.feed().start_cache_get_span(named("a \"b\"\\\n\xC3\xA9"))->record_cache_miss();
    const auto text = prometheus::TextSerializer().Serialize(metered.registry->Collect());
    CHECK_THAT(text, Contains("psycache_misses_total{span_name=\"a \\\"b\\\"\\\\\\n\xC3\xA9\"} 1"));
}

TEST_CASE("Threads count together") {
    constexpr int threads = 4;
    constexpr int rounds = 2000;
    Metered metered;
    auto& feed = metered.feed();
    const std::array<std::string, 3> names{"a", "b", "c"};
    std::vector<std::thread> running;
    for (int i = 0; i < threads; ++i) {
        running.emplace_back([&] {
            PoolChange more;
            more.open = 1;
            PoolChange less;
            less.open = -1;
            StatementInfo statement;
            statement.operation = "get";
            statement.calls = 2;
            LoadInfo load;
            load.callers = 3;
            for (int round = 0; round < rounds; ++round) {
                const auto& name = names[static_cast<std::size_t>(round) % names.size()];
                feed.start_cache_get_span(named(name))->record_cache_hit(10);
                feed.start_cache_get_span(named(name))->record_cache_miss();
                feed.start_cache_remove_span(named(""))->record_error(Errc::timed_out);
                feed.record_statement(statement);
                feed.record_load(load);
                feed.record_stale_hit();
                feed.record_pool_change(more);
                feed.record_pool_change(less);
                if (round % 500 == 0) {
                    (void)metered.registry->Collect();
                }
            }
        });
    }
    for (auto& thread : running) {
        thread.join();
    }

    const auto scrape = metered.scrape();
    constexpr double all = threads * rounds;
    const auto over_names = [&](const std::string& metric) {
        double sum = 0;
        for (const auto& name : names) {
            sum += scrape[metric + "{span_name=" + name + "}"];
        }
        return sum;
    };
    CHECK(over_names("psycache_hits_total") == all);
    CHECK(over_names("psycache_misses_total") == all);
    CHECK(over_names("psycache_get_duration_seconds_count") == 2 * all);
    CHECK(over_names("psycache_item_size_bytes_sum") == 10 * all);
    CHECK(scrape["psycache_remove_duration_seconds_count"] == all);
    CHECK(scrape["psycache_errors_total{kind=timeout,operation=remove}"] == all);
    CHECK(scrape["psycache_statement_calls_sum{operation=get}"] == 2 * all);
    CHECK(scrape["psycache_loads_total{outcome=stored,renewal=false}"] == all);
    CHECK(scrape["psycache_load_joins_total"] == 2 * all);
    CHECK(scrape["psycache_stale_hits_total"] == all);
    CHECK(scrape["psycache_pool_open_connections"] == 0);
    CHECK(scrape["psycache_calls_in_progress{operation=get}"] == 0);
    CHECK(scrape["psycache_calls_in_progress{operation=remove}"] == 0);
}
