// What the reference promises about cancellation, sentence by sentence, where a call is certain to
// stand at a known place.

#include <catch2/catch.hpp>
#include <optional>

#include <psycache/psycache.hpp>

#include "support/any_call.hpp"
#include "support/leave.hpp"
#include "support/schema.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

using Type = asio::cancellation_type;

/// A cache on a pool that the test can see, on a context that it runs itself.
class PoolTest {
  public:
    explicit PoolTest(std::size_t connections) {
        CacheOptions options = schema.cache_options();
        options.timeout = patience;
        options.instrumentations = {std::make_shared<SpyInstrumentation>(journal)};
        PoolOptions pool_options = server_pool(connections);
        pool_options.acquire_timeout = patience;
        pool_options.connect_timeout = patience / 2;
        pool = std::make_shared<ConnectionPool>(context.get_executor(), pool_options);
        cache.emplace(pool, options);
    }

    template <class F>
    auto run(F coro) {
        return run_coro(context, std::move(coro));
    }
    template <class T>
    Started<T> start(asio::awaitable<T> operation) {
        return test::start(context.get_executor(), listening(std::move(operation)));
    }
    /// Waits until so many statements hang on the table.
    static asio::awaitable<bool> hang(TableLock& lock, std::int64_t count) {
        const auto all_hang = [&] { return lock.waiting() >= count; };
        co_return co_await until(all_hang);
    }
    asio::awaitable<bool> somebody_waits() {
        const auto waits = [this] { return pool->statistics().waiting == 1; };
        co_return co_await until(waits);
    }

    TestSchema schema;
    std::shared_ptr<Journal> journal = std::make_shared<Journal>();
    asio::io_context context;
    std::shared_ptr<ConnectionPool> pool;
    std::optional<AsyncPostgresCache> cache;
};

Type any_type() {
    return GENERATE(Type::total, Type::partial, Type::terminal);
}

}  // namespace

TEST_CASE("A write that was sent stays for total and leaves at once for partial and terminal") {
    const std::string kind(GENERATE(as<std::string>(), "put_raw", "put_text", "remove",
                                    "put_raw_many", "remove_many"));
    const auto type = any_type();
    CAPTURE(kind, static_cast<unsigned>(type));
    PoolTest test(2);
    test.run([&]() -> asio::awaitable<void> {
        TableLock lock(test.schema);
        auto call = test.start(writes().at(kind)(*test.cache));
        const bool hangs = co_await PoolTest::hang(lock, 1);
        REQUIRE(hangs);
        call.cancel(type);
        if (type == Type::total) {
            co_await pause(10ms);
            CHECK_FALSE(call.done());
            lock.release();
            co_await call.get();
        } else {
            const auto failure = co_await call.failure();
            CHECK(failure.code() == asio::error::operation_aborted);
            CHECK(failure.typed());
            lock.release();
        }
    });
    CHECK(run_out(test.context));
    CHECK(test.cache->statistics().cancelled == (type == Type::total ? 0u : 1u));
    CHECK(test.pool->statistics().open == 1);
}

TEST_CASE("A read or a flush that was sent leaves at once for all types") {
    const std::string kind(
        GENERATE(as<std::string>(), "get_raw", "get_text", "get_raw_many", "flush"));
    const auto type = any_type();
    CAPTURE(kind, static_cast<unsigned>(type));
    PoolTest test(2);
    test.schema.insert("other", "{}");
    test.run([&]() -> asio::awaitable<void> {
        TableLock lock(test.schema);
        auto call = test.start((kind == "flush" ? maintenance() : reads()).at(kind)(*test.cache));
        const bool hangs = co_await PoolTest::hang(lock, 1);
        REQUIRE(hangs);
        call.cancel(type);
        const auto failure = co_await call.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
        CHECK(failure.typed());
        lock.release();
    });
    CHECK(run_out(test.context));
    CHECK(test.cache->statistics().cancelled == 1);
    CHECK(test.pool->statistics().open == 1);
    // The statement of a flush goes on without its caller.
    CHECK(test.schema.rows() == (kind == "flush" ? 0 : 1));
}

TEST_CASE("A call that is cancelled while it waits for a connection leaves at once, unsent") {
    const std::string kind(GENERATE(as<std::string>(), "put_raw", "put_text", "remove",
                                    "put_raw_many", "remove_many", "get_raw", "get_raw_many"));
    const auto type = any_type();
    CAPTURE(kind, static_cast<unsigned>(type));
    PoolTest test(1);
    test.schema.insert("key", "{\"n\": 0}");
    test.schema.insert("key0", "{\"n\": 0}");
    test.run([&]() -> asio::awaitable<void> {
        ConnectionLease lease = co_await test.pool->connect();
        const auto& calls = writes().contains(kind) ? writes() : reads();
        auto call = test.start(calls.at(kind)(*test.cache));
        const bool waits = co_await test.somebody_waits();
        REQUIRE(waits);
        call.cancel(type);
        const auto failure = co_await call.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
        CHECK(failure.typed());
    });
    CHECK(run_out(test.context));
    CHECK(test.schema.rows() == 2);
    CHECK(test.schema.rows("value = '{\"n\": 0}'") == 2);
    CHECK(test.cache->statistics().statements == 0);
    CHECK(test.pool->statistics().busy == 0);
}

TEST_CASE("A flush that is cancelled while it waits for a connection deletes nothing") {
    const auto type = any_type();
    CAPTURE(static_cast<unsigned>(type));
    PoolTest test(1);
    test.schema.insert("key", "{}");
    test.run([&]() -> asio::awaitable<void> {
        ConnectionLease lease = co_await test.pool->connect();
        auto call = test.start(test.cache->flush());
        const bool waits = co_await test.somebody_waits();
        REQUIRE(waits);
        call.cancel(type);
        const auto failure = co_await call.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
        CHECK(failure.typed());
    });
    CHECK(run_out(test.context));
    CHECK(test.schema.rows() == 1);
    CHECK(test.pool->statistics().busy == 0);
}

TEST_CASE("A cleanup that is cancelled while it waits for a connection starts no batch") {
    const auto type = any_type();
    CAPTURE(static_cast<unsigned>(type));
    PoolTest test(1);
    test.schema.insert_many("old", 10, "'-infinity'");
    test.run([&]() -> asio::awaitable<void> {
        ConnectionLease lease = co_await test.pool->connect();
        auto call = test.start(test.cache->cleanup_expired());
        const bool waits = co_await test.somebody_waits();
        REQUIRE(waits);
        call.cancel(type);
        lease = ConnectionLease();
        const auto failure = co_await call.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
    });
    CHECK(run_out(test.context));
    CHECK(test.schema.rows() == 10);
}

TEST_CASE("A cleanup that is cancelled while it waits for a connection leaves at once") {
    PoolTest test(1);
    test.run([&]() -> asio::awaitable<void> {
        ConnectionLease lease = co_await test.pool->connect();
        auto call = test.start(test.cache->cleanup_expired());
        const bool waits = co_await test.somebody_waits();
        REQUIRE(waits);
        call.cancel();
        // No batch is running that could be waited for.
        const auto has_left = [&] { return call.done(); };
        const bool left = co_await until(has_left, 1s * slowness);
        CHECK(left);
        lease = ConnectionLease();
        co_await call.failure();
    });
}

TEST_CASE("Of a put of many, total cancels what has not been sent and lets the rest be stored") {
    PoolTest test(1);
    test.run([&]() -> asio::awaitable<void> {
        TableLock lock(test.schema);
        auto call = test.start(test.cache->put_raw_many(numbered_entries(300)));
        const bool hangs = co_await PoolTest::hang(lock, 1);
        REQUIRE(hangs);
        call.cancel(Type::total);
        co_await pause(10ms);
        CHECK_FALSE(call.done());
        lock.release();
        const auto failure = co_await call.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
        CHECK(failure.typed());
    });
    CHECK(run_out(test.context));
    const auto stored = test.schema.rows();
    CHECK(stored >= 1);
    CHECK(stored <= 128);
}

TEST_CASE("A put of very many that is cancelled between two parts fails as any other call") {
    PoolTest test(9);  // one of them is kept for gets
    test.run([&]() -> asio::awaitable<void> {
        TableLock lock(test.schema);
        // All that is handed over at once has been sent, and does not listen to total.
        auto call = test.start(test.cache->put_raw_many(numbered_entries(1500)));
        const bool hang = co_await PoolTest::hang(lock, 8);
        REQUIRE(hang);
        call.cancel(Type::total);
        lock.release();
        const auto failure = co_await call.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
        CHECK(failure.typed());
    });
    CHECK(run_out(test.context));
    CHECK(test.schema.rows() == 1024);
    CHECK(test.cache->statistics().cancelled == 1);
    CHECK(test.journal->count("A put error") == 1);
    CHECK(test.journal->count("A put close") == 1);
}
