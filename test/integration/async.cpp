// What only the asynchronous cache has: handles, tokens, executors, cancellation, shared
// statements.

#include <algorithm>
#include <atomic>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <stdexcept>

#include "support/both.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// A cache on a context that the test runs in its own thread.
class AsyncTest {
  public:
    explicit AsyncTest(std::size_t connections = 4)
        : cache_options(schema.cache_options()), pool_options(server_pool(connections)) {}

    AsyncPostgresCache& cache() {
        if (!cache_) {
            cache_.emplace(context.get_executor(), pool_options, cache_options);
        }
        return *cache_;
    }
    template <class F>
    auto run(F coro) {
        return run_coro(context, std::move(coro));
    }
    template <class T>
    Started<T> start(asio::awaitable<T> operation) {
        return test::start(context.get_executor(), std::move(operation));
    }

    TestSchema schema;
    CacheOptions cache_options;
    PoolOptions pool_options;
    asio::io_context context;

  private:
    std::optional<AsyncPostgresCache> cache_;
};

std::string key_of(int i) {
    return "key" + std::to_string(i);
}

}  // namespace

TEST_CASE("Calls end at their deadline though the context of their pool is not running") {
    TestSchema schema;
    auto options = schema.cache_options();
    options.timeout = 200ms * slowness;
    asio::io_context idle;  // that nobody runs
    AsyncPostgresCache cache(idle.get_executor(), server_pool(1), options);
    const std::vector<std::string> keys{"a", "b", "c"};
    for (int round = 0; round < 2; ++round) {
        asio::io_context context;
        const auto begin = Clock::now();
        CHECK(run_coro(context, failure_of(cache.get_raw("key"))).code() == Errc::timed_out);
        CHECK(run_coro(context, failure_of(cache.put_raw("key", numbered(1), 1h))).code() ==
              Errc::timed_out);
        CHECK(run_coro(context, failure_of(cache.get_raw_many(keys))).code() == Errc::timed_out);
        CHECK(Clock::now() - begin >= 600ms);
        CHECK(run_out(context));
        CHECK(Clock::now() - begin < 3s * slowness);
    }
    // What is run at last does nothing that its callers were told has not been done.
    CHECK(run_out(idle));
    CHECK(schema.rows() == 0);
    options.maintenance_timeout = 200ms * slowness;
    AsyncPostgresCache other(idle.get_executor(), server_pool(1), options);
    asio::io_context context;
    CHECK(run_coro(context, failure_of(other.flush())).code() == Errc::timed_out);
    CHECK(run_coro(context, failure_of(other.cleanup_expired())).code() == Errc::timed_out);
}

TEST_CASE("Copies of a handle share one cache") {
    AsyncTest test;
    AsyncPostgresCache copy = test.cache();
    AsyncPostgresCache moved = std::move(copy);
    copy = moved;
    test.run([&]() -> asio::awaitable<void> {
        co_await moved.put_raw("key", numbered(1), 1h);
        const auto value = co_await copy.get_raw("key");
        CHECK(value == numbered(1));
    });
    CHECK(test.cache().statistics().puts == 1);
    CHECK(moved.statistics().hits == 1);
}

TEST_CASE("A call keeps its cache alive when the handle is gone") {
    AsyncTest test;
    test.run([&]() -> asio::awaitable<void> {
        const auto executor = test.context.get_executor();
        co_await test.cache().put_raw("key", numbered(1), 1h);
        std::optional<AsyncPostgresCache> handle(std::in_place, executor, test.pool_options,
                                                 test.cache_options);
        auto get = test.start(handle->get_raw("key"));
        auto put = test.start(handle->put_raw("other", numbered(2), 1h));
        handle.reset();
        const auto value = co_await get.get();
        CHECK(value == numbered(1));
        co_await put.get();
        // An awaitable that is not awaited yet keeps it alive as well.
        handle.emplace(executor, test.pool_options, test.cache_options);
        auto later = handle->get_raw("other");
        handle.reset();
        const auto other = co_await std::move(later);
        CHECK(other == numbered(2));
    });
}

TEST_CASE("A call on a temporary handle is fine") {
    AsyncTest test;
    const auto temporary = [&] {
        return AsyncPostgresCache(test.context.get_executor(), test.pool_options,
                                  test.cache_options);
    };
    std::future<void> put =
        asio::co_spawn(test.context, temporary().put_raw("key", numbered(1), 1h), asio::use_future);
    REQUIRE(run_out(test.context));
    put.get();
    auto get = asio::co_spawn(test.context, temporary().get_raw("key"), asio::use_future);
    REQUIRE(run_out(test.context));
    CHECK(get.get() == numbered(1));
}

TEST_CASE("All completion tokens work through co_spawn") {
    AsyncTest test;
    auto& cache = test.cache();
    auto& context = test.context;

    SECTION("a callback") {
        std::optional<json::object> got;
        std::exception_ptr failed;
        asio::co_spawn(
            context, cache.put_raw("key", numbered(1), 1h), [&](std::exception_ptr error) {
                failed = error;
                asio::co_spawn(context, cache.get_raw("key"),
                               [&](std::exception_ptr e, std::optional<json::object> value) {
                                   failed = e;
                                   got = std::move(value);
                               });
            });
        REQUIRE(run_out(context));
        CHECK_FALSE(failed);
        CHECK(got == numbered(1));
    }
    SECTION("a future, with a value and with an error") {
        auto put = asio::co_spawn(context, cache.put_raw("key", numbered(1), 1h), asio::use_future);
        REQUIRE(run_out(context));
        put.get();
        auto get = asio::co_spawn(context, cache.get_raw("key"), asio::use_future);
        auto bad = asio::co_spawn(context, cache.get_raw("\xFF"), asio::use_future);
        REQUIRE(run_out(context));
        CHECK(get.get() == numbered(1));
        CHECK_THROWS_AS(bad.get(), Error);
    }
    SECTION("as_tuple") {
        test.run([&]() -> asio::awaitable<void> {
            const auto executor = context.get_executor();
            auto put = co_await asio::co_spawn(executor, cache.put_raw("key", numbered(1), 1h),
                                               asio::as_tuple(asio::use_awaitable));
            CHECK_FALSE(std::get<0>(put));
            auto get = co_await asio::co_spawn(executor, cache.get_raw("key"),
                                               asio::as_tuple(asio::use_awaitable));
            CHECK_FALSE(std::get<0>(get));
            CHECK(std::get<1>(get) == numbered(1));
            auto bad = co_await asio::co_spawn(executor, cache.get_raw("\xFF"),
                                               asio::as_tuple(asio::use_awaitable));
            CHECK(Failure(std::get<0>(bad)).code() == Errc::invalid_key);
        });
    }
    SECTION("detached") {
        asio::co_spawn(context, cache.put_raw("key", numbered(1), 1h), asio::detached);
        REQUIRE(run_out(context));
        CHECK(test.schema.has("key"));
    }
}

TEST_CASE("Sixty-four coroutines on four threads lose nothing") {
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 3;
    Threads threads(4);
    AsyncPostgresCache cache(threads.context().get_executor(), named.options,
                             schema.cache_options());
    std::atomic<int> wrong = 0;
    std::vector<std::future<void>> users;
    for (int user = 0; user < 64; ++user) {
        users.push_back(threads.spawn([&, user]() -> asio::awaitable<void> {
            const auto key = key_of(user);
            for (int i = 0; i < 30; ++i) {
                co_await cache.put_raw(key, numbered(i), 1h);
                const auto value = co_await cache.get_raw(key);
                wrong += value == numbered(i) ? 0 : 1;
                if (i % 10 == 9) {
                    const auto removed = co_await cache.remove(key);
                    const auto gone = co_await cache.get_raw(key);
                    wrong += removed && !gone ? 0 : 1;
                }
            }
        }));
    }
    for (auto& user : users) {
        REQUIRE(user.wait_for(patience) == std::future_status::ready);
        CHECK_NOTHROW(user.get());
    }
    CHECK(wrong == 0);
    CHECK(cache.statistics().puts == 64 * 30);
    CHECK(cache.statistics().errors == 0);
    CHECK(schema.sql().connections(named.name) <= 3);
    CHECK(threads.finish());
}

TEST_CASE("A cache works on a strand, for its pool and for its callers") {
    TestSchema schema;
    Threads threads(4);
    auto strand = asio::make_strand(threads.context());
    AsyncPostgresCache cache(strand, server_pool(), schema.cache_options());
    std::atomic<int> wrong = 0;
    auto done = asio::co_spawn(
        strand,
        [&]() -> asio::awaitable<void> {
            for (int i = 0; i < 20; ++i) {
                co_await cache.put_raw("key", numbered(i), 1h);
                wrong += strand.running_in_this_thread() ? 0 : 1;
                const auto value = co_await cache.get_raw("key");
                wrong += value == numbered(i) && strand.running_in_this_thread() ? 0 : 1;
            }
        },
        asio::use_future);
    REQUIRE(done.wait_for(patience) == std::future_status::ready);
    CHECK_NOTHROW(done.get());
    CHECK(wrong == 0);
    CHECK(threads.finish());
}

TEST_CASE("A call resumes on the executor of its caller, also from another context") {
    TestSchema schema;
    Threads cache_threads(2);
    Threads caller_threads(2);
    AsyncPostgresCache cache(cache_threads.context().get_executor(), server_pool(),
                             schema.cache_options());
    std::atomic<int> wrong = 0;
    std::vector<std::future<void>> callers;
    for (int caller = 0; caller < 8; ++caller) {
        auto strand = asio::make_strand(caller_threads.context());
        callers.push_back(asio::co_spawn(
            strand,
            [&, strand, caller]() -> asio::awaitable<void> {
                const auto key = key_of(caller);
                for (int i = 0; i < 20; ++i) {
                    co_await cache.put_raw(key, numbered(i), 1h);
                    wrong += strand.running_in_this_thread() ? 0 : 1;
                    const auto value = co_await cache.get_raw(key);
                    wrong += value == numbered(i) ? 0 : 1;
                    wrong += strand.running_in_this_thread() ? 0 : 1;
                }
                const auto failure = co_await failure_of(cache.get_raw("\xFF"));
                wrong += failure && strand.running_in_this_thread() ? 0 : 1;
                co_await cache.cleanup_expired();
                wrong += strand.running_in_this_thread() ? 0 : 1;
            },
            asio::use_future));
    }
    for (auto& caller : callers) {
        REQUIRE(caller.wait_for(patience) == std::future_status::ready);
        CHECK_NOTHROW(caller.get());
    }
    CHECK(wrong == 0);
}

TEST_CASE("A context that is destroyed with calls in flight leaves nothing behind") {
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 2;
    const auto descriptors = open_descriptors();
    for (int turns = 0; turns < 60; turns += 2) {
        asio::io_context context;
        AsyncPostgresCache cache(context.get_executor(), named.options, schema.cache_options());
        for (int i = 0; i < 5; ++i) {
            asio::co_spawn(context, cache.put_raw(key_of(i), numbered(i), 1h), asio::detached);
            asio::co_spawn(context, cache.get_raw(key_of(i)), asio::detached);
        }
        asio::co_spawn(context, cache.cleanup_expired(), asio::detached);
        asio::co_spawn(context, cache.flush(), asio::detached);
        for (int i = 0; i < turns; ++i) {
            context.run_one_for(5ms);
        }
    }
    CHECK(eventually([&] { return schema.sql().connections(named.name) == 0; }));
    CHECK(eventually([&] { return open_descriptors() <= descriptors; }));
}

TEST_CASE("A call that is in flight leaves at once when it is cancelled") {
    AsyncTest test;
    auto& cache = test.cache();
    const std::string operation(GENERATE(as<std::string>(), "get", "put", "remove", "flush"));
    CAPTURE(operation);
    test.run([&]() -> asio::awaitable<void> {
        co_await cache.put_raw("key", numbered(1), 1h);
        TableLock lock(test.schema);
        const auto call = [&]() -> asio::awaitable<void> {
            if (operation == "get") {
                co_await cache.get_raw("key");
            } else if (operation == "put") {
                co_await cache.put_raw("key", numbered(2), 1h);
            } else if (operation == "remove") {
                co_await cache.remove("key");
            } else {
                co_await cache.flush();
            }
        };
        auto running = test.start(call());
        const auto blocked = [&] { return lock.waiting() >= 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        const auto started = Clock::now();
        running.cancel();
        const auto failure = co_await running.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
        CHECK(Clock::now() - started < 1s);
        lock.release();
        co_await cache.put_raw("after", numbered(3), 1h);
        const auto value = co_await cache.get_raw("after");
        if (operation != "flush") {  // which may run now
            CHECK(value == numbered(3));
        }
    });
    CHECK(cache.statistics().cancelled == 1);
    CHECK(cache.statistics().timeouts == 0);
}

TEST_CASE("A call that is queued is not sent when it is cancelled, and nobody else is hurt") {
    AsyncTest test(1);
    auto& cache = test.cache();
    const auto type = GENERATE(asio::cancellation_type::terminal, asio::cancellation_type::partial,
                               asio::cancellation_type::total);
    CAPTURE(static_cast<unsigned>(type));
    test.run([&]() -> asio::awaitable<void> {
        co_await cache.put_raw("key", numbered(0), 1h);
        TableLock lock(test.schema);
        const auto put = [&](int i) -> asio::awaitable<void> {
            co_await asio::this_coro::reset_cancellation_state(asio::enable_total_cancellation());
            co_await cache.put_raw(key_of(i), numbered(i), 1h);
        };
        // Those that come first hold the connection; later ones wait in the queue.
        std::vector<Started<void>> first;
        for (int i = 0; i < 12; ++i) {
            first.push_back(test.start(put(i)));
            co_await pause(2ms);
        }
        const auto blocked = [&] { return lock.waiting() >= 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        std::vector<Started<void>> queued;
        for (int i = 100; i < 120; ++i) {
            queued.push_back(test.start(put(i)));
        }
        const auto in_queue = [&] { return cache.statistics().queued >= 20; };
        const bool waiting = co_await until(in_queue);
        REQUIRE(waiting);
        for (std::size_t i = 0; i < queued.size(); i += 2) {
            queued[i].cancel(type);
        }
        for (std::size_t i = 0; i < queued.size(); i += 2) {
            const auto failure = co_await queued[i].failure();
            CHECK(failure.code() == asio::error::operation_aborted);
        }
        lock.release();
        for (auto& other : first) {
            co_await other.get();
        }
        for (std::size_t i = 1; i < queued.size(); i += 2) {
            co_await queued[i].get();
        }
    });
    for (int i = 100; i < 120; ++i) {
        CHECK(test.schema.has(key_of(i)) == (i % 2 == 1));
    }
    CHECK(cache.statistics().cancelled == 10);
    CHECK(cache.statistics().errors == 10);
}

TEST_CASE("A put that was sent does not listen to total cancellation") {
    AsyncTest test;
    auto& cache = test.cache();
    test.run([&]() -> asio::awaitable<void> {
        co_await cache.put_raw("key", numbered(0), 1h);
        TableLock lock(test.schema);
        const auto put = [&]() -> asio::awaitable<void> {
            co_await asio::this_coro::reset_cancellation_state(asio::enable_total_cancellation());
            co_await cache.put_raw("key", numbered(1), 1h);
        };
        auto running = test.start(put());
        const auto blocked = [&] { return lock.waiting() >= 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        running.cancel(asio::cancellation_type::total);
        co_await pause(20ms);
        CHECK_FALSE(running.done());
        lock.release();
        co_await running.get();
        const auto value = co_await cache.get_raw("key");
        CHECK(value == numbered(1));
    });
}

TEST_CASE("Callers that leave a shared statement do not hurt those that stay") {
    AsyncTest test(1);
    auto& cache = test.cache();
    std::vector<Started<std::optional<json::object>>> gets;
    test.schema.insert_many("key", 60, "'infinity'");
    test.run([&]() -> asio::awaitable<void> {
        co_await cache.get_raw("warm");
        TableLock lock(test.schema);
        for (int i = 1; i <= 60; ++i) {
            gets.push_back(test.start(cache.get_raw(key_of(i))));
        }
        const auto blocked = [&] { return lock.waiting() >= 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        for (std::size_t i = 0; i < gets.size(); i += 3) {
            gets[i].cancel();
        }
        for (std::size_t i = 0; i < gets.size(); i += 3) {
            const auto failure = co_await gets[i].failure();
            CHECK(failure.code() == asio::error::operation_aborted);
        }
        lock.release();
        for (std::size_t i = 0; i < gets.size(); ++i) {
            if (i % 3 != 0) {
                const auto value = co_await gets[i].get();
                CHECK(value == object(R"({"a": 1})"));
            }
        }
    });
    CHECK(cache.statistics().errors == 20);
}

TEST_CASE("Operators || and && of Asio work with a cache") {
    using namespace asio::experimental::awaitable_operators;
    TestSchema schema;
    AsyncTest test;
    auto& cache = test.cache();
    test.run([&]() -> asio::awaitable<void> {
        co_await cache.put_raw("key", numbered(1), 1h);
        {
            auto both = cache.get_raw("key") && cache.get_raw("absent");
            const auto result = co_await std::move(both);
            CHECK(std::get<0>(result) == numbered(1));
            CHECK(std::get<1>(result) == std::nullopt);
        }
        {
            asio::steady_timer timer(test.context, 30s);
            auto either = cache.get_raw("key") || timer.async_wait(asio::use_awaitable);
            const auto result = co_await std::move(either);
            CHECK(result.index() == 0);
        }
        TableLock lock(test.schema);
        {
            asio::steady_timer timer(test.context, 50ms);
            auto either = cache.get_raw("key") || timer.async_wait(asio::use_awaitable);
            const auto started = Clock::now();
            const auto result = co_await std::move(either);
            CHECK(result.index() == 1);
            CHECK(Clock::now() - started < 2s);
        }
        lock.release();
        const auto value = co_await cache.get_raw("key");
        CHECK(value == numbered(1));
    });
    CHECK(cache.statistics().cancelled == 1);
}

TEST_CASE("Operator || works on strands of a context that several threads run") {
    using namespace asio::experimental::awaitable_operators;
    TestSchema schema;
    Threads threads(4);
    AsyncPostgresCache cache(threads.context().get_executor(), server_pool(),
                             schema.cache_options());
    threads.run([&]() -> asio::awaitable<void> { co_await cache.put_raw("key", numbered(1), 1h); });
    std::atomic<int> wrong = 0;
    std::atomic<int> timers = 0;
    std::vector<std::future<void>> users;
    for (int user = 0; user < 16; ++user) {
        users.push_back(threads.spawn([&, user]() -> asio::awaitable<void> {
            auto executor = co_await asio::this_coro::executor;
            for (int i = 0; i < 25; ++i) {
                asio::steady_timer timer(executor, std::chrono::microseconds(i * 40 + user));
                auto either = cache.get_raw("key") || timer.async_wait(asio::use_awaitable);
                const auto result = co_await std::move(either);
                if (result.index() == 0) {
                    wrong += std::get<0>(result) == numbered(1) ? 0 : 1;
                } else {
                    ++timers;
                }
            }
        }));
    }
    for (auto& user : users) {
        REQUIRE(user.wait_for(patience) == std::future_status::ready);
        CHECK_NOTHROW(user.get());
    }
    CHECK(wrong == 0);
    CHECK(cache.statistics().cancelled <= static_cast<std::uint64_t>(timers.load()));
    const auto after = threads.run(
        [&]() -> asio::awaitable<std::optional<json::object>> { return cache.get_raw("key"); });
    CHECK(after == numbered(1));
    CHECK(threads.finish());
}

TEST_CASE("A write that the server refuses hurts no other write of its statement") {
    AsyncTest test(1);
    auto& cache = test.cache();
    test.schema.sql().exec("ALTER TABLE " + test.schema.table() +
                           " ADD CHECK (NOT starts_with(key, 'bad')), ADD CHECK (value->>'n' <> "
                           "'666')");
    test.run([&]() -> asio::awaitable<void> {
        std::vector<Started<void>> good;
        std::vector<Started<void>> bad;
        for (int i = 0; i < 60; ++i) {
            if (i % 20 == 7) {
                bad.push_back(
                    test.start(cache.put_raw("bad" + std::to_string(i), numbered(i), 1h)));
            } else if (i % 20 == 13) {
                bad.push_back(test.start(cache.put_raw(key_of(i), numbered(666), 1h)));
            } else {
                good.push_back(test.start(cache.put_raw(key_of(i), numbered(i), 1h)));
            }
        }
        for (auto& put : good) {
            const auto failure = co_await put.failure();
            CHECK_FALSE(failure);
        }
        for (auto& put : bad) {
            const auto failure = co_await put.failure();
            CHECK(failure.sqlstate() == "23514");
        }
    });
    CHECK(test.schema.rows() == 54);
    CHECK(cache.statistics().puts == 54);
    CHECK(cache.statistics().errors == 6);
}

TEST_CASE("A call with bad arguments hurts no other call") {
    AsyncTest test(1);
    auto& cache = test.cache();
    test.run([&]() -> asio::awaitable<void> {
        std::vector<Started<void>> good;
        std::vector<Started<void>> bad;
        json::object refused;
        refused["x"] = std::string(1, '\0');
        for (int i = 0; i < 40; ++i) {
            good.push_back(test.start(cache.put_raw(key_of(i), numbered(i), 1h)));
            bad.push_back(test.start(cache.put_raw(key_of(i), refused, 1h)));
            bad.push_back(test.start(cache.put_raw(key_of(i) + "\xFF", numbered(i), 1h)));
        }
        for (auto& put : good) {
            co_await put.get();
        }
        for (auto& put : bad) {
            const auto failure = co_await put.failure();
            CHECK((failure.code() == Errc::invalid_value || failure.code() == Errc::invalid_key));
        }
    });
    CHECK(test.schema.rows() == 40);
}

TEST_CASE("Of many puts of one key at once all are acknowledged and one of them is stored") {
    AsyncTest test(GENERATE(1u, 4u));
    auto& cache = test.cache();
    test.run([&]() -> asio::awaitable<void> {
        for (int round = 0; round < 5; ++round) {
            std::vector<Started<void>> puts;
            for (int i = 0; i < 64; ++i) {
                puts.push_back(test.start(cache.put_raw("key", numbered(round * 100 + i), 1h)));
            }
            for (auto& put : puts) {
                co_await put.get();
            }
            const auto value = co_await cache.get_raw("key");
            REQUIRE(value);
            const auto n = value->at("n").as_int64();
            CHECK(n >= round * 100);
            CHECK(n < round * 100 + 64);
        }
    });
    CHECK(test.schema.rows() == 1);
    CHECK(cache.statistics().puts == 5 * 64);
}

TEST_CASE("Many gets of one key at once all get its value") {
    AsyncTest test(1);
    auto& cache = test.cache();
    test.run([&]() -> asio::awaitable<void> {
        const auto value = object(R"({"deep": {"list": [1, 2, {"x": "y"}]}})");
        co_await cache.put_raw("key", value, 1h);
        std::vector<Started<std::optional<json::object>>> gets;
        for (int i = 0; i < 200; ++i) {
            gets.push_back(test.start(cache.get_raw(i % 2 == 0 ? "key" : "absent")));
        }
        for (std::size_t i = 0; i < gets.size(); ++i) {
            const auto got = co_await gets[i].get();
            if (i % 2 == 0) {
                CHECK(got == value);
            } else {
                CHECK(got == std::nullopt);
            }
        }
    });
    CHECK(cache.statistics().hits == 100);
    CHECK(cache.statistics().misses == 100);
    CHECK(cache.statistics().statements < 60);
}

TEST_CASE("Removes of one key at once agree that it was there") {
    AsyncTest test;
    auto& cache = test.cache();
    test.run([&]() -> asio::awaitable<void> {
        co_await cache.put_raw("key", numbered(1), 1h);
        std::vector<Started<bool>> removes;
        for (int i = 0; i < 32; ++i) {
            removes.push_back(test.start(cache.remove("key")));
        }
        int there = 0;
        for (auto& remove : removes) {
            const bool removed = co_await remove.get();
            there += removed ? 1 : 0;
        }
        CHECK(there >= 1);
        const auto value = co_await cache.get_raw("key");
        CHECK(value == std::nullopt);
        const bool again = co_await cache.remove("key");
        CHECK_FALSE(again);
    });
}

TEST_CASE("Calls that arrive together share statements, a lone call does not wait for others") {
    AsyncTest test(2);
    auto& cache = test.cache();
    test.run([&]() -> asio::awaitable<void> {
        co_await cache.get_raw("warm");
        const auto before = cache.statistics().statements;
        std::vector<Started<std::optional<json::object>>> gets;
        for (int i = 0; i < 1000; ++i) {
            gets.push_back(test.start(cache.get_raw(key_of(i))));
        }
        for (auto& get : gets) {
            co_await get.get();
        }
        CHECK(cache.statistics().statements - before <= 100);
        co_await cache.get_raw("alone");
    });
}

TEST_CASE("What a completion handler throws comes out of run(), and the others are answered") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), schema.cache_options());
    int answered = 0;
    int failed = 0;
    for (int i = 0; i < 8; ++i) {
        asio::co_spawn(context, cache.get_raw(key_of(i)),
                       [&, i](const std::exception_ptr& thrown, const auto& /*value*/) {
                           failed += thrown ? 1 : 0;
                           ++answered;
                           if (i == 3) {
                               throw std::runtime_error("the handler's own");
                           }
                       });
    }
    CHECK_THROWS_WITH(context.run_for(10s * slowness), "the handler's own");
    context.run_for(10s * slowness);
    CHECK(answered == 8);
    CHECK(failed == 0);
    CHECK(cache.statistics().errors == 0);
    // The cache goes on as before.
    asio::co_spawn(context, cache.get_raw(key_of(0)),
                   [&](const std::exception_ptr& thrown, const auto& /*value*/) {
                       failed += thrown ? 1 : 0;
                       ++answered;
                   });
    context.restart();
    context.run_for(10s * slowness);
    CHECK(answered == 9);
    CHECK(failed == 0);
}

TEST_CASE("A large value among small ones comes back, as do the others") {
    AsyncTest test(2);
    auto& cache = test.cache();
    test.run([&]() -> asio::awaitable<void> {
        json::object large;
        large["text"] = std::string(2 << 20, 'x');
        std::vector<Started<void>> puts;
        for (int i = 0; i < 50; ++i) {
            if (i % 10 == 3) {
                puts.push_back(test.start(cache.put_raw(key_of(i), large, 1h)));
            } else {
                puts.push_back(test.start(cache.put_raw(key_of(i), numbered(i), 1h)));
            }
        }
        for (auto& put : puts) {
            co_await put.get();
        }
        std::vector<Started<std::optional<json::object>>> gets;
        for (int i = 0; i < 50; ++i) {
            gets.push_back(test.start(cache.get_raw(key_of(i))));
        }
        for (int i = 0; i < 50; ++i) {
            const auto value = co_await gets[static_cast<std::size_t>(i)].get();
            const bool right = i % 10 == 3 ? value == large : value == numbered(i);
            CHECK(right);
        }
    });
}

TEST_CASE("Mixed calls at once agree with a model, and see what was acknowledged before") {
    AsyncTest test(GENERATE(1u, 4u));
    auto& cache = test.cache();
    test.run([&]() -> asio::awaitable<void> {
        int wrong = 0;
        const auto user = [&](unsigned number) -> asio::awaitable<void> {
            std::mt19937 random(number);
            std::map<std::string, std::int64_t> model;
            for (int i = 0; i < 120; ++i) {
                const auto key = std::to_string(number) + "/" + std::to_string(random() % 5);
                switch (random() % 5) {
                    case 0:
                    case 1:
                        co_await cache.put_raw(key, numbered(i), 1h);
                        model[key] = i;
                        break;
                    case 2: {
                        const bool there = co_await cache.remove(key);
                        wrong += there == (model.erase(key) == 1) ? 0 : 1;
                        break;
                    }
                    default: {
                        const auto value = co_await cache.get_raw(key);
                        const auto expected = model.find(key);
                        const bool right =
                            expected == model.end() ? !value : value == numbered(expected->second);
                        wrong += right ? 0 : 1;
                    }
                }
            }
        };
        std::vector<Started<void>> users;
        for (unsigned i = 0; i < 40; ++i) {
            users.push_back(test.start(user(i)));
        }
        for (auto& each : users) {
            co_await each.get();
        }
        CHECK(wrong == 0);
    });
    CHECK(cache.statistics().errors == 0);
}

TEST_CASE("Writers of the same keys in any order, in two caches, do not deadlock") {
    TestSchema schema;
    Threads threads(2);
    std::vector<AsyncPostgresCache> caches;
    for (int i = 0; i < 2; ++i) {
        caches.emplace_back(threads.context().get_executor(), server_pool(2),
                            schema.cache_options());
    }
    std::vector<std::future<void>> writers;
    for (unsigned writer = 0; writer < 32; ++writer) {
        writers.push_back(threads.spawn([&, writer]() -> asio::awaitable<void> {
            std::mt19937 random(writer);
            for (int i = 0; i < 40; ++i) {
                const auto key = key_of(static_cast<int>(random() % 40));
                if (random() % 4 == 0) {
                    co_await caches[writer % 2].remove(key);
                } else {
                    co_await caches[writer % 2].put_raw(key, numbered(i), 1h);
                }
            }
        }));
    }
    for (auto& writer : writers) {
        REQUIRE(writer.wait_for(patience) == std::future_status::ready);
        CHECK_NOTHROW(writer.get());
    }
    CHECK(threads.finish());
}

TEST_CASE("A cancelled cleanup ends after its batch") {
    AsyncTest test;
    auto& cache = test.cache();
    test.schema.insert_many("expired", 5000, "'-infinity'");
    test.run([&]() -> asio::awaitable<void> {
        co_await cache.get_raw("warm");
        TableLock lock(test.schema);
        auto cleanup = test.start(cache.cleanup_expired());
        const auto blocked = [&] { return lock.waiting() >= 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        cleanup.cancel();
        co_await pause(20ms);
        CHECK_FALSE(cleanup.done());
        lock.release();
        const auto failure = co_await cleanup.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
    });
    const auto left = test.schema.rows();
    CHECK(left >= 3000);
    CHECK(left < 5000);
}
