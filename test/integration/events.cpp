// What instrumentations are told of that happens underneath the calls, and the numbers of pools.

#include <catch2/catch.hpp>
#include <numeric>
#include <thread>

#include "support/both.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// Options of a cache and of a pool with one tally.
struct Tallied {
    explicit Tallied(const TestSchema& schema) : options(schema.cache_options()) {
        options.instrumentations.push_back(tally);
    }

    std::shared_ptr<TallyInstrumentation> tally = std::make_shared<TallyInstrumentation>();
    CacheOptions options;
};

/// The calls of all statements together.
std::size_t calls_of(const std::vector<TallyInstrumentation::Statement>& statements) {
    return std::accumulate(
        statements.begin(), statements.end(), std::size_t{0},
        [](std::size_t sum, const auto& statement) { return sum + statement.calls; });
}

}  // namespace

TEST_CASE("Every kind of statement is told with its calls") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    Tallied tallied(schema);
    const auto cache = make_cache(flavour, tallied.options, server_pool());
    cache->put("a", numbered(1), 1h);
    cache->get("a");
    cache->get("b");
    cache->remove("a");
    cache->cleanup();
    cache->flush();
    const auto once = [&](std::string_view operation, std::size_t times) {
        const auto statements = tallied.tally->statements(operation);
        CHECK(statements.size() == times);
        for (const auto& statement : statements) {
            CHECK(statement.calls == 1);
            CHECK_FALSE(statement.retry);
            CHECK_FALSE(statement.error);
        }
    };
    once("put", 1);
    once("get", 2);
    once("remove", 1);
    once("cleanup", 1);
    once("flush", 1);
    CHECK(tallied.tally->waits().size() == 6);
    for (const auto& wait : tallied.tally->waits()) {
        CHECK_FALSE(wait.error);
        CHECK(wait.waited >= Duration::zero());
    }
}

TEST_CASE("Calls that share a statement are told as one statement with many calls") {
    TestSchema schema;
    Tallied tallied(schema);
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(1), tallied.options);
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.get_raw("warm");
        std::vector<Started<std::optional<json::object>>> started;
        for (int i = 0; i < 64; ++i) {
            started.push_back(start(context.get_executor(), cache.get_raw(std::to_string(i))));
        }
        for (auto& one : started) {
            co_await one.get();
        }
    });
    const auto statements = tallied.tally->statements("get");
    CHECK(calls_of(statements) == 65);
    CHECK(statements.size() < 10);
}

TEST_CASE("A statement that is sent once more is told both times") {
    TestSchema schema;
    Tallied tallied(schema);
    NamedPool pool;
    pool.options.max_size = 1;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), pool.options, tallied.options);
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
    const auto statements = tallied.tally->statements("get");
    REQUIRE(statements.size() == 2);
    CHECK(statements[0].error);
    CHECK_FALSE(statements[0].retry);
    CHECK_FALSE(statements[1].error);
    CHECK(statements[1].retry);
    CHECK(cache.statistics().retries == 1);
}

TEST_CASE("A wait for a connection that cannot be opened is told with its error") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema(Table::none);
    Tallied tallied(schema);
    PoolOptions pool;
    pool.dsn = "host=127.0.0.1 port=1 user=x dbname=x";
    {
        const auto cache = make_cache(flavour, tallied.options, pool);
        CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::connect_failed);
    }
    const auto waits = tallied.tally->waits();
    REQUIRE(waits.size() == 1);
    CHECK(waits[0].error == Errc::connect_failed);
    CHECK(tallied.tally->statements("get").empty());
    CHECK(tallied.tally->sum() == PoolChange());
}

TEST_CASE("The changes of a pool add up to its numbers, and to nothing when it is gone") {
    TestSchema schema;
    Tallied tallied(schema);
    const auto& tally = *tallied.tally;
    asio::io_context context;
    {
        AsyncPostgresCache cache(context.get_executor(), server_pool(2), tallied.options);
        CHECK(tally.sum() == PoolChange());
        run_coro(context, [&]() -> asio::awaitable<void> {
            co_await cache.put_raw("key", numbered(1), 1h);
            TableLock lock(schema);
            auto first = start(context.get_executor(), cache.get_raw("key"));
            const auto blocked = [&] { return lock.waiting() == 1; };
            const bool is_blocked = co_await until(blocked);
            REQUIRE(is_blocked);
            CHECK(tally.sum().busy == 1);
            CHECK(tally.sum().open == static_cast<std::ptrdiff_t>(cache.pool_statistics()->open));
            lock.release();
            co_await first.get();
        });
        run_out(context);
        const auto now = cache.pool_statistics();
        REQUIRE(now);
        CHECK(now->busy == 0);
        CHECK(now->max_size == 2);
        CHECK(tally.sum().open == static_cast<std::ptrdiff_t>(now->open));
        CHECK(tally.sum().idle == static_cast<std::ptrdiff_t>(now->idle));
        CHECK(tally.sum().busy == 0);
        CHECK(tally.sum().waiting == 0);
        CHECK(tally.sum().connecting == 0);
    }
    CHECK(tally.sum() == PoolChange());
}

TEST_CASE("A shared pool tells those that its options name, each once") {
    TestSchema schema;
    Tallied tallied(schema);
    asio::io_context context;
    auto pool_options = server_pool(1);
    const bool named = GENERATE(true, false);
    CAPTURE(named);
    if (named) {
        pool_options.instrumentations.push_back(tallied.tally);
    }
    SECTION("made first") {
        const auto pool = std::make_shared<ConnectionPool>(context.get_executor(), pool_options);
        AsyncPostgresCache cache(pool, tallied.options);
        run_coro(context, cache.get_raw("key"));
        run_out(context);
        CHECK(tallied.tally->sum().open == (named ? 1 : 0));
        CHECK(cache.pool_statistics()->open == 1);
    }
    SECTION("made by the cache") {
        AsyncPostgresCache cache(context.get_executor(), pool_options, tallied.options);
        run_coro(context, cache.get_raw("key"));
        run_out(context);
        CHECK(tallied.tally->sum().open == 1);
    }
}

TEST_CASE("The connections of a blocking cache are told and counted as one pool") {
    TestSchema schema;
    Tallied tallied(schema);
    const auto& tally = *tallied.tally;
    tallied.options.timeout = 1s;
    {
        PostgresCache cache(server_pool(2), tallied.options);
        REQUIRE(cache.pool_statistics());
        CHECK(cache.pool_statistics()->open == 0);
        CHECK(cache.pool_statistics()->max_size == 2);
        cache.get_raw("warm");
        {
            TableLock lock(schema);
            std::vector<std::thread> threads;
            for (int i = 0; i < 3; ++i) {
                threads.emplace_back([&] { failure_of([&] { cache.get_raw("key"); }); });
            }
            CHECK(
                eventually([&] { return lock.waiting() == 2 && cache.statistics().queued == 1; }));
            CHECK(tally.sum().busy == 2);
            CHECK(cache.pool_statistics()->busy == 2);
            CHECK(cache.pool_statistics()->waiting == 0);
            lock.release();
            for (auto& thread : threads) {
                thread.join();
            }
        }
        CHECK(tally.sum().waiting == 0);
        CHECK(tally.sum().busy == 0);
        const auto now = cache.pool_statistics();
        CHECK(now->busy == 0);
        CHECK(now->connects >= 2);
        CHECK(tally.sum().open == static_cast<std::ptrdiff_t>(now->open));
        auto service = cache.start_cleanup_thread(1h);
        CHECK(eventually([&] { return tally.statements("cleanup").size() == 1; }));
        CHECK(cache.pool_statistics()->connects == now->connects + 1);
    }
    CHECK(tally.sum() == PoolChange());
}

TEST_CASE("Caches on connections of an application have no numbers of a pool") {
    TestSchema schema;
    asio::io_context context;
    const auto connections = std::make_shared<AppConnections>(dsn(), 1);
    const AsyncPostgresCache async(connections->pool(context.get_executor()),
                                   schema.cache_options());
    const PostgresCache blocking(connections->pool(), schema.cache_options());
    CHECK_FALSE(async.pool_statistics());
    CHECK_FALSE(blocking.pool_statistics());
}

TEST_CASE("The span of a blocking call that waits for others begins with the wait") {
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    const auto tally = std::make_shared<TallyInstrumentation>();
    auto options = schema.cache_options();
    options.timeout = 400ms * slowness;
    options.instrumentations = {std::make_shared<SpyInstrumentation>(journal), tally};
    PostgresCache cache(server_pool(1), options);
    cache.get_raw("warm");
    journal->clear();
    TableLock lock(schema);
    std::thread first([&] { failure_of([&] { cache.get_raw("a", "first"); }); });
    CHECK(eventually([&] { return lock.waiting() == 1; }));
    std::thread second([&] { failure_of([&] { cache.put_raw("b", numbered(1), 1h, "second"); }); });
    CHECK(eventually([&] { return journal->contains("A put open key=b name=second"); }));
    CHECK_FALSE(journal->contains("close"));
    first.join();
    second.join();
    lock.release();
    // The statements go on without them, one after the other, whoever runs the loop.
    CHECK_FALSE(failure_of([&] { cache.get_raw("c"); }));
    const auto timed_out = "error psycache:" + std::to_string(static_cast<int>(Errc::timed_out));
    CHECK(journal->contains("A get " + timed_out));
    CHECK(journal->count(" open") == 3);
    CHECK(journal->count(" close") == 3);
    CHECK(eventually([&] { return tally->sum().waiting == 0; }));
    CHECK(tally->most_waiting() == 1);
}

TEST_CASE("What an instrumentation throws underneath the calls hurts nobody and is logged once") {
    class Thrower : public CacheInstrumentation {
        void record_connection_wait(const ConnectionWait&) override { throw 1; }
        void record_statement(const StatementInfo&) override { throw std::runtime_error("no"); }
        void record_pool_change(const PoolChange&) override { throw 2; }
    };
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    LogCapture of_cache;
    LogCapture of_pool;
    Tallied tallied(schema);
    tallied.options.instrumentations.insert(tallied.options.instrumentations.begin(),
                                            std::make_shared<Thrower>());
    tallied.options.log = of_cache.sink();
    auto pool = server_pool(1);
    pool.log = of_pool.sink();
    {
        const auto cache = make_cache(flavour, tallied.options, pool);
        cache->put("key", numbered(1), 1h);
        CHECK(cache->get("key") == numbered(1));
        CHECK(cache->flush() == 1);
    }
    CHECK(tallied.tally->statements("get").size() == 1);
    CHECK(tallied.tally->sum() == PoolChange());
    CHECK(of_cache.journal().count("instrumentation") == 1);
    CHECK(of_pool.journal().count("instrumentation") == 1);
}
