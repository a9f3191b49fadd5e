// Rows that somebody else has locked: who waits, and who does not.

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <thread>
#include <vector>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;

namespace {

/// Holds rows of a schema's table, so that every write of them waits.
class RowLock {
  public:
    RowLock(const TestSchema& schema, const std::string& condition) {
        sql_.exec("BEGIN; SELECT key FROM " + schema.table() + " WHERE " + condition +
                  " FOR UPDATE");
    }
    void release() { sql_.exec("COMMIT"); }

  private:
    Psql sql_;
};

asio::awaitable<int> put_all(AsyncPostgresCache cache, std::vector<std::string> keys) {
    std::vector<Started<void>> started;
    auto executor = co_await asio::this_coro::executor;
    for (const std::string& key : keys) {
        started.push_back(start(executor, cache.put_raw(key, numbered(2), 1h)));
    }
    int stored = 0;
    for (auto& one : started) {
        auto ending = one.failure();
        const Failure failure = co_await std::move(ending);
        stored += failure ? 0 : 1;
    }
    co_return stored;
}

}  // namespace

TEST_CASE("A locked row holds up its own caller only, whatever else was put with it") {
    TestSchema schema;
    schema.insert_many("k", 64, "now() + interval '1 hour'");
    auto options = schema.cache_options();
    options.timeout = 10s * slowness;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(2), options);
    RowLock lock(schema, "key = 'k7'");
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto executor = co_await asio::this_coro::executor;
        auto locked = start(executor, cache.put_raw("k7", numbered(2), 1h));
        std::vector<std::string> keys;
        for (int i = 1; i <= 64; ++i) {
            if (i != 7) {
                keys.push_back("k" + std::to_string(i));
            }
        }
        for (int round = 0; round < 3; ++round) {
            auto others = put_all(cache, keys);
            const int stored = co_await std::move(others);
            CHECK(stored == 63);
            CHECK_FALSE(locked.done());
        }
        auto get = cache.get_raw("k7");
        const auto old = co_await std::move(get);
        const bool readable = old.has_value();
        CHECK(readable);
        CHECK_FALSE(locked.done());
        lock.release();
        auto end = locked.get();
        co_await std::move(end);
        auto again = cache.get_raw("k7");
        const auto value = co_await std::move(again);
        const bool stored = value == numbered(2);
        CHECK(stored);
    });
    CHECK(run_out(context));
}

TEST_CASE("Many callers of locked rows leave connections to all others") {
    TestSchema schema;
    schema.insert_many("k", 64, "now() + interval '1 hour'");
    auto options = schema.cache_options();
    options.timeout = 10s * slowness;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(2), options);
    RowLock lock(schema, "key IN ('k1', 'k2', 'k3', 'k4', 'k5', 'k6', 'k7', 'k8')");
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto executor = co_await asio::this_coro::executor;
        std::vector<Started<void>> puts;
        std::vector<Started<bool>> removes;
        for (int i = 0; i < 400; ++i) {
            const std::string key = "k" + std::to_string(i % 8 + 1);
            if (i % 16 < 8) {
                puts.push_back(start(executor, cache.put_raw(key, numbered(i), 1h)));
            } else {
                removes.push_back(start(executor, cache.remove(key)));
            }
        }
        for (int i = 9; i <= 64; ++i) {
            const std::string key = "k" + std::to_string(i);
            auto put = cache.put_raw(key, numbered(i), 1h);
            co_await std::move(put);
            auto get = cache.get_raw(key);
            const auto value = co_await std::move(get);
            const bool right = value == numbered(i);
            CHECK(right);
        }
        int done = 0;
        for (const auto& one : puts) {
            done += one.done() ? 1 : 0;
        }
        for (const auto& one : removes) {
            done += one.done() ? 1 : 0;
        }
        CHECK(done == 0);
        lock.release();
        co_await all(puts);
        co_await all(removes);
    });
    CHECK(cache.statistics().queued == 0);
    CHECK(cache.statistics().errors == 0);
    CHECK(run_out(context));
}

TEST_CASE("A write of a row that stays locked ends at its deadline, and its connection lives on") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    schema.insert("key", "{}");
    auto options = schema.cache_options();
    options.timeout = 1500ms * slowness;
    NamedPool named;
    named.options.max_size = 1;
    const auto cache = make_cache(flavour, options, named.options);
    CHECK(cache->get("key"));
    const auto pid = schema.sql().value(
        "SELECT pid FROM pg_stat_activity WHERE application_name = " + quote_literal(named.name));
    {
        RowLock lock(schema, "true");
        for (const auto& call : std::vector<std::function<void()>>{
                 [&] { cache->put("key", numbered(1), 1h); }, [&] { cache->remove("key"); }}) {
            const auto failure = failure_of(call);
            CHECK(failure.code() == Errc::timed_out);
            CHECK(failure.what().find("has the row locked") != std::string::npos);
        }
        CHECK(cache->get("key") == json::object());
        lock.release();
    }
    CHECK(eventually([&] { return !failure_of([&] { cache->put("key", numbered(2), 1h); }); }));
    CHECK(cache->get("key") == numbered(2));
    CHECK(schema.sql().value("SELECT pid FROM pg_stat_activity WHERE application_name = " +
                             quote_literal(named.name)) == pid);
}

TEST_CASE("Puts of free rows go on with any number of locked rows, and with one connection") {
    const auto connections = GENERATE(std::size_t{1}, std::size_t{2});
    CAPTURE(connections);
    constexpr int locked = 192;
    TestSchema schema;
    schema.insert_many("k", locked, "now() + interval '1 hour'");
    auto options = schema.cache_options();
    options.timeout = 5s * slowness;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(connections), options);
    RowLock lock(schema, "true");
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto executor = co_await asio::this_coro::executor;
        std::vector<Started<void>> waiting;
        for (int i = 1; i <= locked; ++i) {
            waiting.push_back(
                start(executor, cache.put_raw("k" + std::to_string(i), numbered(i), 1h)));
        }
        const auto begin = Clock::now();
        auto slowest = Clock::duration::zero();
        for (int i = 0; i < 300; ++i) {
            const auto started = Clock::now();
            auto put = cache.put_raw("free", numbered(i), 1h);
            co_await std::move(put);
            slowest = std::max(slowest, Clock::now() - started);
        }
        // Row after row was waited for: 0.1 s each.
        CHECK(Clock::now() - begin < 3s * slowness);
        CHECK(slowest < 1s * slowness);
        CHECK(cache.statistics().queued == locked);
        lock.release();
        co_await all(waiting);
    });
    CHECK(cache.statistics().errors == 0);
    CHECK(run_out(context));
}

TEST_CASE("A row is written soon after its lock is gone, however many others stay locked") {
    constexpr int locked = 1000;
    TestSchema schema;
    schema.insert_many("k", locked, "now() + interval '1 hour'");
    schema.insert("one", "{}");
    auto options = schema.cache_options();
    options.timeout = 20s * slowness;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(2), options);
    RowLock others(schema, "key <> 'one'");
    RowLock lock(schema, "key = 'one'");
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto executor = co_await asio::this_coro::executor;
        std::vector<Started<void>> waiting;
        for (int i = 1; i <= locked; ++i) {
            waiting.push_back(
                start(executor, cache.put_raw("k" + std::to_string(i), numbered(i), 1h)));
        }
        auto one = start(executor, cache.put_raw("one", numbered(1), 1h));
        const auto all_wait = [&] { return cache.statistics().queued == locked + 1; };
        auto settled = until(all_wait);
        const bool came = co_await std::move(settled);
        CHECK(came);
        co_await pause(500ms);  // the pauses between two looks have grown
        lock.release();
        const auto begin = Clock::now();
        auto end = one.get();
        co_await std::move(end);
        // 0.1 s on a quiet machine.
        CHECK(Clock::now() - begin < 500ms * slowness);
        others.release();
        co_await all(waiting);
    });
    CHECK(run_out(context));
}

TEST_CASE("Rows that another transaction has made but not committed are written when it has") {
    TestSchema schema;
    auto options = schema.cache_options();
    options.timeout = 10s * slowness;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(1), options);
    Psql maker;
    maker.exec("BEGIN; INSERT INTO " + schema.table() +
               " SELECT 'k' || i, '{}', now() + interval '1 hour' FROM generate_series(1, 50) i");
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto executor = co_await asio::this_coro::executor;
        std::vector<Started<void>> waiting;
        for (int i = 1; i <= 50; ++i) {
            waiting.push_back(
                start(executor, cache.put_raw("k" + std::to_string(i), numbered(1), 1h)));
        }
        const auto all_wait = [&] { return cache.statistics().queued == 50; };
        auto settled = until(all_wait);
        const bool came = co_await std::move(settled);
        CHECK(came);
        const auto begin = Clock::now();
        for (int i = 0; i < 50; ++i) {
            auto put = cache.put_raw("free", numbered(i), 1h);
            co_await std::move(put);
        }
        CHECK(Clock::now() - begin < 3s * slowness);
        // One of them may be tried at this moment.
        CHECK(cache.statistics().queued >= 49);
        maker.exec("COMMIT");
        co_await all(waiting);
    });
    CHECK(schema.rows("value = '{\"n\": 1}'") == 50);
    CHECK(run_out(context));
}

TEST_CASE("A limit of the role for locks ends the calls of locked rows only, at their own time") {
    const auto row = GENERATE(table<std::string, std::string>(
        {{"-clock_timeout=300ms", "55P03"}, {"-cstatement_timeout=300ms", "57014"}}));
    const std::string setting = std::get<0>(row);
    const std::string sqlstate = std::get<1>(row);
    CAPTURE(setting);
    TestSchema schema;
    schema.insert_many("k", 64, "now() + interval '1 hour'");
    auto pool = server_pool(2);
    pool.dsn = dsn_with({{"options", setting}});
    asio::io_context context;
    auto options = schema.cache_options();
    options.timeout = 5s * slowness;
    AsyncPostgresCache cache(context.get_executor(), pool, options);
    RowLock lock(schema, "substr(key, 2)::int <= 21");
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto executor = co_await asio::this_coro::executor;
        std::vector<Started<void>> puts;
        const auto begin = Clock::now();
        for (int i = 1; i <= 64; ++i) {
            puts.push_back(
                start(executor, cache.put_raw("k" + std::to_string(i), numbered(2), 1h)));
        }
        for (int i = 1; i <= 64; ++i) {
            auto ending = puts[static_cast<std::size_t>(i - 1)].failure();
            const Failure failure = co_await std::move(ending);
            CAPTURE(i, failure.what());
            if (i <= 21) {
                CHECK(failure.sqlstate() == sqlstate);
            } else {
                CHECK_FALSE(failure);
            }
        }
        CHECK(Clock::now() - begin >= 300ms);
        CHECK(Clock::now() - begin < 3s * slowness);
    });
    CHECK(schema.rows("value = '{\"n\": 2}'") == 43);
}

TEST_CASE("A limit that the role has for locks is the caller's error") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    schema.insert("key", "{}");
    auto pool = server_pool();
    pool.dsn = dsn_with({{"options", "-clock_timeout=300ms"}});
    const auto cache = make_cache(flavour, schema.cache_options(), pool);
    RowLock lock(schema, "true");
    const auto failure = failure_of([&] { cache->put("key", numbered(1), 1h); });
    CHECK(failure.sqlstate() == "55P03");
    CHECK(failure.code() == Condition::timeout);
    CHECK_NOTHROW(cache->put("other", numbered(1), 1h));
}

TEST_CASE("Writes that wait for the table leave a connection for gets") {
    TestSchema schema;
    schema.insert("key", "{}");
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(2), schema.cache_options());
    TableLock lock(schema, "SHARE");
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto executor = co_await asio::this_coro::executor;
        std::vector<Started<void>> puts;
        for (int i = 0; i < 200; ++i) {
            puts.push_back(start(executor, cache.put_raw(std::to_string(i), numbered(i), 1h)));
        }
        const auto waits = [&] { return lock.waiting() > 0; };
        auto stuck = until(waits);
        const bool came = co_await std::move(stuck);
        CHECK(came);
        for (int i = 0; i < 20; ++i) {
            auto get = cache.get_raw("key");
            const auto value = co_await std::move(get);
            const bool found = value.has_value();
            CHECK(found);
            co_await pause(2ms);
        }
        CHECK(lock.waiting() == 1);
        lock.release();
        co_await all(puts);
    });
}

TEST_CASE("Gets find a connection while writes and a cleanup wait for the table") {
    TestSchema schema;
    schema.insert("key", "{}");
    auto options = schema.cache_options();
    options.timeout = 1s * slowness;
    options.maintenance_timeout = 2s * slowness;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(2), options);
    TableLock lock(schema, "EXCLUSIVE");
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto executor = co_await asio::this_coro::executor;
        std::vector<Started<void>> puts;
        std::vector<Started<std::uint64_t>> cleanups;
        for (int i = 0; i < 100; ++i) {
            puts.push_back(start(executor, cache.put_raw(std::to_string(i), numbered(i), 1h)));
            if (i % 25 == 0) {
                cleanups.push_back(start(executor, cache.cleanup_expired()));
            }
        }
        const auto waits = [&] { return lock.waiting() > 0; };
        auto stuck = until(waits);
        const bool came = co_await std::move(stuck);
        CHECK(came);
        for (int i = 0; i < 50; ++i) {
            auto get = cache.get_raw("key");
            const auto value = co_await std::move(get);
            const bool found = value.has_value();
            CHECK(found);
            co_await pause(2ms);
        }
        lock.release();
        for (auto& one : puts) {
            auto end = one.failure();
            co_await std::move(end);
        }
        co_await all(cleanups);
    });
    CHECK(run_out(context));
}

TEST_CASE("Gets of threads find a connection while writes of threads wait for the table") {
    TestSchema schema;
    schema.insert("key", "{}");
    auto options = schema.cache_options();
    options.timeout = 2s * slowness;
    PostgresCache cache(server_pool(4), options);
    TableLock lock(schema, "EXCLUSIVE");
    std::vector<std::thread> writers;
    for (int i = 0; i < 8; ++i) {
        writers.emplace_back(
            [&, i] { failure_of([&] { cache.put_raw(std::to_string(i), numbered(i), 1h); }); });
    }
    CHECK(eventually([&] { return lock.waiting() == 3; }));
    for (int i = 0; i < 20; ++i) {
        CHECK(cache.get_raw("key"));
    }
    lock.release();
    for (auto& writer : writers) {
        writer.join();
    }
}

TEST_CASE("Statements that were given up do not pile up on the server") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    auto options = schema.cache_options();
    options.timeout = 100ms;
    NamedPool named;
    named.options.max_size = 2;
    const auto cache = make_cache(flavour, options, named.options);
    schema.insert("key", "{}");
    TableLock lock(schema);
    // Long enough for every connection to be given up several times.
    const auto end = Clock::now() + 9s;
    while (Clock::now() < end) {
        CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::timed_out);
    }
    CHECK(schema.sql().connections(named.name) <= 4);
    lock.release();
    CHECK(eventually([&] { return !failure_of([&] { cache->get("key"); }); }));
}

TEST_CASE("A cache destroyed with its context drops the calls that wait for a lock") {
    TestSchema schema;
    schema.insert("key", "{}");
    RowLock lock(schema, "true");
    const auto before = open_descriptors();
    std::optional<Psql> watch(std::in_place);
    {
        asio::io_context context;
        AsyncPostgresCache cache(context.get_executor(), server_pool(1), schema.cache_options());
        int ended = 0;
        for (int i = 0; i < 3; ++i) {
            asio::co_spawn(context, cache.put_raw("key", numbered(1), 1h),
                           [&](std::exception_ptr) { ++ended; });
        }
        const auto tried = Clock::now() + 300ms;
        while (context.run_one_until(tried) != 0) {
        }
        // Between two tries all of them wait.
        const auto deadline = Clock::now() + patience;
        while (cache.statistics().queued != 3 && Clock::now() < deadline) {
            context.run_one_for(5ms);
        }
        CHECK(ended == 0);
        CHECK(cache.statistics().queued == 3);
    }
    watch.reset();
    CHECK(open_descriptors() == before);
    lock.release();
}
