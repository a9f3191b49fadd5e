// A cache that is ended in good order, and calls with a deadline of their own.

#include <catch2/catch.hpp>
#include <stdexcept>
#include <thread>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;

TEST_CASE("A drained cache finishes its calls, takes no more, and has closed its connections") {
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 2;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), named.options, schema.cache_options());
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto executor = co_await asio::this_coro::executor;
        std::vector<Started<void>> puts;
        for (int i = 0; i < 500; ++i) {
            puts.push_back(start(executor, cache.put_raw(std::to_string(i), numbered(i), 1h)));
        }
        auto turn = pause(1us);
        co_await std::move(turn);
        auto draining = cache.drain(10s);
        const bool ended = co_await std::move(draining);
        CHECK(ended);
        for (auto& put : puts) {
            CHECK(put.done());
            auto end = put.get();
            co_await std::move(end);
        }
        auto late = failure_of(cache.get_raw("1"));
        const auto failure = co_await std::move(late);
        CHECK(failure.code() == Errc::pool_closed);
        CHECK(failure.what().find("drained") != std::string::npos);
        auto flushing = failure_of(cache.flush());
        const auto refused = co_await std::move(flushing);
        CHECK(refused.code() == Errc::pool_closed);
    });
    CHECK(run_out(context));
    CHECK(schema.rows() == 500);
    CHECK(eventually([&] { return schema.sql().connections(named.name) == 0; }));
}

TEST_CASE("Draining ends at its time-out where a call does not") {
    TestSchema schema;
    schema.insert("key", "{}");
    auto options = schema.cache_options();
    options.timeout = 3s * slowness;
    TableLock lock(schema);
    const auto flavour = GENERATE(0, 1);
    if (flavour == 0) {
        asio::io_context context;
        AsyncPostgresCache cache(context.get_executor(), server_pool(2), options);
        run_coro(context, [&]() -> asio::awaitable<void> {
            auto executor = co_await asio::this_coro::executor;
            auto get = start(executor, cache.get_raw("key"));
            const auto waits = [&] { return lock.waiting() == 1; };
            auto waiting = until(waits);
            const bool came = co_await std::move(waiting);
            CHECK(came);
            auto draining = cache.drain(50ms);
            const bool ended = co_await std::move(draining);
            CHECK_FALSE(ended);
            lock.release();
            auto end = get.get();
            const auto value = co_await std::move(end);
            CHECK(value == json::object());
        });
    } else {
        PostgresCache cache(server_pool(2), options);
        std::optional<json::object> value;
        std::thread caller([&] { value = cache.get_raw("key"); });
        CHECK(eventually([&] { return lock.waiting() == 1; }));
        CHECK_FALSE(cache.drain(50ms));
        CHECK(failure_of([&] { cache.get_raw("other"); }).code() == Errc::pool_closed);
        lock.release();
        caller.join();
        CHECK(value == json::object());
        CHECK(cache.drain(5s));
        CHECK_THROWS_AS(cache.drain(0s), std::invalid_argument);
    }
}

TEST_CASE("A call may have a deadline of its own") {
    TestSchema schema;
    schema.insert("key", "{}");
    auto options = schema.cache_options();
    options.timeout = 20s;
    options.maintenance_timeout = 20s;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(4), options);
    PostgresCache blocking(server_pool(4), options);
    TableLock lock(schema);
    CallOptions soon(100ms);
    soon.span_name = "soon";
    const auto begin = Clock::now();
    CHECK(run_coro(context, failure_of(cache.get_raw("key", soon))).code() == Errc::timed_out);
    CHECK(run_coro(context, failure_of(cache.remove("key", soon))).code() == Errc::timed_out);
    CHECK(run_coro(context, failure_of(cache.flush(soon))).code() == Errc::timed_out);
    CHECK(failure_of([&] { blocking.get_raw("key", soon); }).code() == Errc::timed_out);
    CHECK(failure_of([&] { blocking.put_raw("key", {}, 1h, soon); }).code() == Errc::timed_out);
    CHECK(failure_of([&] { blocking.cleanup_expired(soon); }).code() == Errc::timed_out);
    CHECK(Clock::now() - begin < 10s);
    lock.release();
    CHECK_THROWS_AS(blocking.get_raw("key", CallOptions(0s)), std::invalid_argument);
    CHECK_THROWS_AS(run_coro(context, cache.get_raw("key", CallOptions(no_expiry))),
                    std::invalid_argument);
    CHECK_NOTHROW(blocking.get_raw("key", "a name"));
}
