// What the metrics of real caches say, on the server of the tests.

#include <boost/asio/error.hpp>
#include <catch2/catch.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "scrape.hpp"
#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// The number of calls that are not yet, or not all, over.
double calls_in_progress(const Scrape& scrape) {
    double sum = 0;
    for (const std::string operation : {"get", "put", "remove", "flush", "cleanup"}) {
        sum += scrape["psycache_calls_in_progress{operation=" + operation + "}"];
    }
    return sum;
}

/// All errors, of every operation and kind.
double errors(const Scrape& scrape) {
    double sum = 0;
    for (const auto& [series, value] : scrape.values()) {
        if (series.rfind("psycache_errors_total{", 0) == 0) {
            sum += value;
        }
    }
    return sum;
}

void check_no_pool(const Scrape& scrape) {
    CHECK(scrape["psycache_pool_open_connections"] == 0);
    CHECK(scrape["psycache_pool_idle_connections"] == 0);
    CHECK(scrape["psycache_pool_busy_connections"] == 0);
    CHECK(scrape["psycache_pool_connecting"] == 0);
    CHECK(scrape["psycache_pool_waiting"] == 0);
}

asio::awaitable<int> loaded_after(Milliseconds time) {
    asio::steady_timer timer(co_await asio::this_coro::executor, time);
    co_await timer.async_wait(asio::use_awaitable);
    co_return 1;
}

}  // namespace

TEST_CASE("The metrics of a cache say what it has done") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    Metered metered;
    const auto cache = make_cache(flavour, metered.options(schema.cache_options()), server_pool());
    json::object large;
    large["text"] = std::string(1000, 'x');
    cache->put("key", large, 1h, "store");
    cache->put("short", numbered(1), 1h);
    CHECK(cache->get("key", "load"));
    CHECK(cache->get("key", "load"));
    CHECK(cache->get("short"));
    CHECK_FALSE(cache->get("absent", "load"));
    CHECK(cache->remove("short"));
    CHECK_FALSE(cache->remove("absent"));
    schema.insert_many("old", 3, "now() - interval '1 hour'");
    CHECK(cache->cleanup() == 3);
    schema.insert_many("more", 4, "now() + interval '1 hour'");
    CHECK(cache->flush() == 5);

    const auto scrape = metered.scrape();
    CHECK(scrape["psycache_hits_total{span_name=load}"] == 2);
    CHECK(scrape["psycache_hits_total{span_name=}"] == 1);
    CHECK(scrape["psycache_misses_total{span_name=load}"] == 1);
    CHECK_FALSE(scrape.has("psycache_misses_total{span_name=}"));
    CHECK(scrape["psycache_get_duration_seconds_count{span_name=load}"] == 3);
    CHECK(scrape["psycache_get_duration_seconds_count{span_name=}"] == 1);
    CHECK(scrape["psycache_get_duration_seconds_sum{span_name=load}"] > 0);
    CHECK(scrape["psycache_put_duration_seconds_count{span_name=store}"] == 1);
    CHECK(scrape["psycache_put_duration_seconds_count{span_name=}"] == 1);
    CHECK(scrape["psycache_item_size_bytes_count{span_name=load}"] == 2);
    CHECK(scrape["psycache_item_size_bytes_sum{span_name=load}"] >= 2000);
    CHECK(scrape["psycache_item_size_bytes_count{span_name=store}"] == 1);
    CHECK(scrape["psycache_item_size_bytes_sum{span_name=store}"] >= 1000);
    CHECK(scrape["psycache_item_size_bytes_count{span_name=}"] == 2);
    CHECK(scrape["psycache_remove_duration_seconds_count"] == 2);
    CHECK(scrape["psycache_flush_duration_seconds_count"] == 1);
    CHECK(scrape["psycache_flushed_entries_count"] == 1);
    CHECK(scrape["psycache_flushed_entries_sum"] == 5);
    CHECK(scrape["psycache_cleanup_duration_seconds_count"] == 1);
    CHECK(scrape["psycache_cleanup_deleted_entries"] == 3);
    CHECK(scrape["psycache_cleanup_last_run_timestamp_seconds"] ==
          Approx(schema.sql().real("SELECT extract(epoch FROM now())")).margin(120));

    CHECK(errors(scrape) == 0);
    CHECK(calls_in_progress(scrape) == 0);
    const auto statements = [&](const std::string& operation) {
        const auto labels = "{operation=" + operation + "}";
        CHECK(scrape["psycache_statement_calls_count" + labels] ==
              scrape["psycache_statement_duration_seconds_count" + labels]);
        CHECK(scrape["psycache_statement_duration_seconds_sum" + labels] > 0);
        CHECK(scrape["psycache_retries_total" + labels] == 0);
        return scrape["psycache_statement_calls_sum" + labels];
    };
    CHECK(statements("put") == 2);
    CHECK(statements("get") == 4);
    CHECK(statements("remove") == 2);
    CHECK(statements("cleanup") == 1);
    CHECK(statements("flush") == 1);
    CHECK(scrape["psycache_connection_wait_seconds_count"] >= 1);
}

TEST_CASE("A server that is not there counts as unavailable") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    Metered metered;
    PoolOptions pool;
    pool.dsn = "host=127.0.0.1 port=1 user=x dbname=x";
    {
        const auto cache = make_cache(flavour, metered.options({}), pool);
        CHECK(failure_of([&] { cache->get("key", "load"); }));
        CHECK(failure_of([&] { cache->put("key", numbered(1), 1h); }));
        CHECK(failure_of([&] { cache->remove("key"); }));
        CHECK(failure_of([&] { cache->flush(); }));
        CHECK(failure_of([&] { cache->cleanup(); }));
    }
    const auto scrape = metered.scrape();
    for (const std::string operation : {"get", "put", "remove", "flush", "cleanup"}) {
        CAPTURE(operation);
        CHECK(scrape["psycache_errors_total{kind=unavailable,operation=" + operation + "}"] == 1);
        CHECK(scrape["psycache_statement_calls_count{operation=" + operation + "}"] == 0);
    }
    CHECK(errors(scrape) == 5);
    CHECK(calls_in_progress(scrape) == 0);
    // A call that failed took its time all the same.
    CHECK(scrape["psycache_get_duration_seconds_count{span_name=load}"] == 1);
    CHECK(scrape["psycache_cleanup_duration_seconds_count"] == 1);
    CHECK(scrape["psycache_cleanup_last_run_timestamp_seconds"] == 0);
    CHECK(scrape["psycache_flushed_entries_count"] == 0);
    CHECK_FALSE(scrape.has("psycache_misses_total{span_name=load}"));
    CHECK(scrape["psycache_connection_wait_seconds_count"] >= 1);
    check_no_pool(scrape);
}

TEST_CASE("A miss for an outage counts as an error") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    Metered metered;
    PoolOptions pool;
    pool.dsn = "host=127.0.0.1 port=1 user=x dbname=x";
    auto options = metered.options({});
    options.on_outage = OnOutage::miss;
    CHECK_FALSE(make_cache(flavour, options, pool)->get("key", "load"));
    const auto scrape = metered.scrape();
    CHECK(scrape["psycache_errors_total{kind=unavailable,operation=get}"] == 1);
    CHECK_FALSE(scrape.has("psycache_misses_total{span_name=load}"));
}

TEST_CASE("Calls on a locked table count as timed out, and as in progress until then") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    Metered metered;
    auto options = metered.options(schema.cache_options());
    options.timeout = 300ms * slowness;
    const auto cache = make_cache(flavour, options, server_pool());
    cache->get("warm");
    TableLock lock(schema);
    std::thread caller([&] {
        failure_of([&] { cache->get("key"); });
        failure_of([&] { cache->put("key", numbered(1), 1h); });
    });
    CHECK(eventually(
        [&] { return metered.scrape()["psycache_calls_in_progress{operation=get}"] == 1; }));
    caller.join();
    lock.release();

    const auto scrape = metered.scrape();
    CHECK(scrape["psycache_errors_total{kind=timeout,operation=get}"] == 1);
    CHECK(scrape["psycache_errors_total{kind=timeout,operation=put}"] == 1);
    CHECK(errors(scrape) == 2);
    CHECK(calls_in_progress(scrape) == 0);
    CHECK(scrape["psycache_get_duration_seconds_count{span_name=}"] == 2);
    CHECK(scrape["psycache_get_duration_seconds_sum{span_name=}"] >= 0.3);
}

TEST_CASE("A table that is missing counts as a mistake of the caller") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema(Table::none);
    Metered metered;
    const auto cache = make_cache(flavour, metered.options(schema.cache_options()), server_pool());
    CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::table_missing);
    CHECK(metered.scrape()["psycache_errors_total{kind=caller_mistake,operation=get}"] == 1);
}

TEST_CASE("A cancelled call counts as cancelled") {
    TestSchema schema;
    Metered metered;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(),
                             metered.options(schema.cache_options()));
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.get_raw("warm");
        TableLock lock(schema);
        auto get = start(context.get_executor(), cache.get_raw("key", "load"));
        const auto blocked = [&] { return lock.waiting() == 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        CHECK(metered.scrape()["psycache_calls_in_progress{operation=get}"] == 1);
        get.cancel();
        const auto failure = co_await get.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
        lock.release();
    });
    const auto scrape = metered.scrape();
    CHECK(scrape["psycache_errors_total{kind=cancelled,operation=get}"] == 1);
    CHECK(errors(scrape) == 1);
    CHECK(calls_in_progress(scrape) == 0);
    CHECK(scrape["psycache_get_duration_seconds_count{span_name=load}"] == 1);
}

TEST_CASE("Calls at the same time are seen to share statements") {
    TestSchema schema;
    Metered metered;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(1),
                             metered.options(schema.cache_options()));
    // So that the connection is there when they come.
    run_coro(context, cache.put_raw("key", numbered(1), 1h));
    run_coro(context, [&]() -> asio::awaitable<void> {
        std::vector<Started<std::optional<json::object>>> started;
        for (int i = 0; i < 64; ++i) {
            started.push_back(start(context.get_executor(), cache.get_raw("key")));
        }
        for (auto& one : started) {
            co_await one.get();
        }
    });
    const auto scrape = metered.scrape();
    CHECK(scrape["psycache_hits_total{span_name=}"] == 64);
    CHECK(scrape["psycache_statement_calls_sum{operation=get}"] == 64);
    CHECK(scrape["psycache_statement_calls_count{operation=get}"] >= 1);
    CHECK(scrape["psycache_statement_calls_count{operation=get}"] < 64);
    CHECK(scrape["psycache_connection_wait_seconds_count"] < 64);
}

TEST_CASE("A statement that is sent once more counts as a retry") {
    TestSchema schema;
    Metered metered;
    NamedPool pool;
    pool.options.max_size = 1;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), pool.options,
                             metered.options(schema.cache_options()));
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.put_raw("key", numbered(1), 1h);
        TableLock lock(schema);
        auto get = start(context.get_executor(), cache.get_raw("key"));
        const auto blocked = [&] { return lock.waiting() == 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        Psql().terminate(pool.name);
        lock.release();
        const auto value = co_await get.get();
        CHECK(value == numbered(1));
    });
    const auto scrape = metered.scrape();
    CHECK(scrape["psycache_retries_total{operation=get}"] == 1);
    CHECK(scrape["psycache_statement_calls_count{operation=get}"] == 2);
    CHECK(scrape["psycache_hits_total{span_name=}"] == 1);
    CHECK(errors(scrape) == 0);
}

TEST_CASE("Loads are seen with those who join them, and stale hits") {
    TestSchema schema;
    Metered metered;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(2),
                             metered.options(schema.cache_options()));
    CreateOptions options(1h);
    options.early = 0;
    const auto loader = [] { return loaded_after(50ms); };
    run_coro(context, [&]() -> asio::awaitable<void> {
        std::vector<Started<int>> callers;
        for (int i = 0; i < 3; ++i) {
            callers.push_back(
                start(context.get_executor(), cache.get_or_create<int>("key", options, loader)));
        }
        for (auto& caller : callers) {
            co_await caller.get();
        }
    });
    auto scrape = metered.scrape();
    CHECK(scrape["psycache_loads_total{outcome=stored,renewal=false}"] == 1);
    CHECK(scrape["psycache_load_joins_total"] == 2);
    CHECK(scrape["psycache_load_waits_total"] == 0);
    CHECK(scrape["psycache_load_duration_seconds_count"] == 1);
    CHECK(scrape["psycache_load_duration_seconds_sum"] >= 0.05);
    CHECK(scrape["psycache_load_duration_seconds_bucket{le=0.025000}"] == 0);
    CHECK(scrape["psycache_stale_hits_total"] == 0);
    CHECK(scrape["psycache_statement_calls_sum{operation=get_or_create}"] == 3);

    // All of its time to live that is left is that of stale values.
    options.stale_for = 2h;
    run_coro(context, cache.get_or_create<int>("key", options, loader));
    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto renewed = [&] {
            return metered.scrape()["psycache_loads_total{outcome=stored,renewal=true}"] == 1;
        };
        const bool is_renewed = co_await until(renewed);
        CHECK(is_renewed);
    });
    scrape = metered.scrape();
    CHECK(scrape["psycache_stale_hits_total"] == 1);
    CHECK(scrape["psycache_load_duration_seconds_count"] == 2);
    CHECK(scrape["psycache_load_joins_total"] == 2);

    options.stale_for = 0s;
    const auto failing = []() -> asio::awaitable<int> {
        co_await loaded_after(0ms);
        throw std::runtime_error("the loader has failed");
    };
    CHECK_THROWS_AS(run_coro(context, cache.get_or_create<int>("other", options, failing)),
                    std::runtime_error);
    scrape = metered.scrape();
    CHECK(scrape["psycache_loads_total{outcome=failed,renewal=false}"] == 1);
    CHECK(scrape["psycache_load_duration_seconds_count"] == 3);
}

TEST_CASE("A load that waits for another process is seen, and is no duration of its own") {
    TestSchema schema;
    Metered loads;
    Metered waits;
    asio::io_context context;
    AsyncPostgresCache one(context.get_executor(), server_pool(2),
                           loads.options(schema.cache_options()));
    AsyncPostgresCache other(context.get_executor(), server_pool(2),
                             waits.options(schema.cache_options()));
    run_coro(context, [&]() -> asio::awaitable<void> {
        const CreateOptions options(1h);
        bool is_loading = false;
        bool may_end = false;
        const auto ending = [&] { return may_end; };
        const auto slow = [&]() -> asio::awaitable<int> {
            is_loading = true;
            const bool ends = co_await until(ending);
            CHECK(ends);
            co_return 1;
        };
        const auto not_called = [] { return loaded_after(0ms); };
        auto first = start(context.get_executor(), one.get_or_create<int>("key", options, slow));
        const auto begun = [&] { return is_loading; };
        const bool has_begun = co_await until(begun);
        REQUIRE(has_begun);
        auto second =
            start(context.get_executor(), other.get_or_create<int>("key", options, not_called));
        const auto waiting = [&] { return other.statistics().load_waits == 1; };
        const bool is_waiting = co_await until(waiting);
        CHECK(is_waiting);
        may_end = true;
        const int loaded = co_await first.get();
        const int seen = co_await second.get();
        CHECK(loaded == 1);
        CHECK(seen == 1);
    });
    CHECK(loads.scrape()["psycache_loads_total{outcome=stored,renewal=false}"] == 1);
    CHECK(loads.scrape()["psycache_load_waits_total"] == 0);
    const auto scrape = waits.scrape();
    CHECK(scrape["psycache_loads_total{outcome=elsewhere,renewal=false}"] == 1);
    CHECK(scrape["psycache_load_waits_total"] == 1);
    CHECK(scrape["psycache_load_joins_total"] == 0);
    CHECK(scrape["psycache_load_duration_seconds_count"] == 0);
}

TEST_CASE("Connections are seen while a cache has them, and are gone with it") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    Metered metered;
    auto cache = make_cache(flavour, metered.options(schema.cache_options()), server_pool());
    check_no_pool(metered.scrape());
    cache->get("warm");
    {
        TableLock lock(schema);
        std::thread caller([&] { failure_of([&] { cache->get("key"); }); });
        CHECK(eventually([&] { return lock.waiting() == 1; }));
        const auto scrape = metered.scrape();
        CHECK(scrape["psycache_pool_open_connections"] == 1);
        CHECK(scrape["psycache_pool_busy_connections"] == 1);
        CHECK(scrape["psycache_pool_idle_connections"] == 0);
        lock.release();
        caller.join();
    }
    const auto scrape = metered.scrape();
    CHECK(scrape["psycache_pool_open_connections"] == 1);
    CHECK(scrape["psycache_pool_idle_connections"] == 1);
    CHECK(scrape["psycache_pool_busy_connections"] == 0);
    CHECK(scrape["psycache_pool_waiting"] == 0);
    cache.reset();
    CHECK(eventually([&] { return metered.scrape()["psycache_pool_open_connections"] == 0; }));
    check_no_pool(metered.scrape());
}

TEST_CASE("A pool that caches share is seen through its own options") {
    TestSchema schema;
    Metered metered;
    asio::io_context context;
    {
        auto options = server_pool(1);
        options.instrumentations.push_back(metered.instrumentation);
        const auto pool = std::make_shared<ConnectionPool>(context.get_executor(), options);
        AsyncPostgresCache cache(pool, metered.options(schema.cache_options()));
        run_coro(context, cache.get_raw("key"));
        run_out(context);
        CHECK(metered.scrape()["psycache_pool_open_connections"] == 1);
        CHECK(metered.scrape()["psycache_pool_idle_connections"] == 1);
    }
    run_out(context);
    check_no_pool(metered.scrape());
}
