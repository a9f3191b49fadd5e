// Stress for the thread sanitizer: everything at once, for a few seconds each.

#include <atomic>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "support/both.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// How long each test goes on.
constexpr auto span = 2s;

/// Waits for all and tells what they threw. Assertions of Catch2 belong to the main thread.
std::vector<std::string> ends_of(std::vector<std::future<void>>& futures) {
    std::vector<std::string> failures;
    for (auto& future : futures) {
        if (future.wait_for(span + patience) != std::future_status::ready) {
            failures.emplace_back("did not end in time");
            continue;
        }
        try {
            future.get();
        } catch (const std::exception& error) {
            failures.emplace_back(error.what());
        }
    }
    return failures;
}

/// Whether a failure is one that a cancelled or impatient caller has to expect.
bool expected(const Failure& failure) {
    return !failure || failure.code() == asio::error::operation_aborted ||
           failure.code() == Errc::timed_out || failure.code() == Errc::acquire_timed_out;
}

std::string key_of(unsigned long i) {
    return "key" + std::to_string(i);
}

}  // namespace

TEST_CASE("A cache under load from four threads with random cancellations and time-outs") {
    using namespace asio::experimental::awaitable_operators;
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    auto options = schema.cache_options();
    options.timeout = GENERATE(Duration(20ms), Duration(5s));
    options.instrumentations.push_back(std::make_shared<SpyInstrumentation>(journal));
    Threads threads(4);
    AsyncPostgresCache cache(threads.context().get_executor(), server_pool(3), options);
    std::atomic<int> wrong = 0;
    std::atomic<int> calls = 0;
    const auto end = Clock::now() + span;
    std::vector<std::future<void>> users;
    for (unsigned user = 0; user < 64; ++user) {
        users.push_back(threads.spawn([&, user]() -> asio::awaitable<void> {
            std::mt19937 random(user);
            auto executor = co_await asio::this_coro::executor;
            while (Clock::now() < end) {
                const auto key = key_of(random() % 50);
                asio::steady_timer timer(executor);
                timer.expires_after(std::chrono::microseconds(random() % 3000));
                const auto which = random() % 8;
                const bool cancels = random() % 2 == 0;
                const auto call = [&]() -> asio::awaitable<void> {
                    if (which < 4) {
                        const auto value = co_await cache.get_raw(key);
                        wrong += value && !value->contains("n") ? 1 : 0;
                    } else if (which < 6) {
                        co_await cache.put_raw(key, numbered(user), 1h);
                    } else if (which < 7) {
                        co_await cache.remove(key);
                    } else {
                        co_await cache.cleanup_expired();
                    }
                };
                Failure failure;
                if (cancels) {
                    auto either = failure_of(call()) || timer.async_wait(asio::use_awaitable);
                    const auto result = co_await std::move(either);
                    if (result.index() == 0) {
                        failure = std::get<0>(result);
                    }
                } else {
                    failure = co_await failure_of(call());
                }
                wrong += expected(failure) ? 0 : 1;
                ++calls;
            }
        }));
    }
    const auto failures = ends_of(users);
    CHECK(failures == std::vector<std::string>{});
    CHECK(wrong == 0);
    CHECK(calls > 64);
    CHECK(threads.finish());
    CHECK(journal->count(" open") == journal->count(" close"));
    CHECK(cache.statistics().queued == 0);
}

TEST_CASE("Ten thousand mixed calls with faults leave no span open and no number behind") {
    using namespace asio::experimental::awaitable_operators;
    constexpr int each = 160;
    constexpr unsigned users = 64;
    TestSchema schema;
    const auto journal = std::make_shared<Journal>();
    const auto tally = std::make_shared<TallyInstrumentation>();
    auto options = schema.cache_options();
    options.timeout = 50ms;
    options.max_queued_calls = 48;
    options.instrumentations = {std::make_shared<SpyInstrumentation>(journal, "A"), tally,
                                std::make_shared<SpyInstrumentation>(journal, "B")};
    NamedPool pool;
    pool.options.max_size = 3;
    std::atomic<int> calls = 0;
    std::atomic<int> failed = 0;
    CacheStatistics statistics;
    {
        Threads threads(4);
        AsyncPostgresCache cache(threads.context().get_executor(), pool.options, options);
        std::vector<std::future<void>> ends;
        for (unsigned user = 0; user < users; ++user) {
            ends.push_back(threads.spawn([&, user]() -> asio::awaitable<void> {
                std::mt19937 random(user);
                auto executor = co_await asio::this_coro::executor;
                for (int i = 0; i < each; ++i) {
                    const auto which = random() % 16;
                    const auto key = which == 15 ? std::string("\xFF") : key_of(random() % 50);
                    const auto call = [&]() -> asio::awaitable<void> {
                        if (which < 7 || which == 15) {
                            co_await cache.get_raw(key, "name");
                        } else if (which < 12) {
                            co_await cache.put_raw(key, numbered(user), 1h);
                        } else if (which < 13) {
                            co_await cache.remove(key);
                        } else if (which < 14) {
                            co_await cache.cleanup_expired();
                        } else {
                            co_await cache.flush();
                        }
                    };
                    Failure failure;
                    if (random() % 4 == 0) {
                        asio::steady_timer timer(executor);
                        timer.expires_after(std::chrono::microseconds(random() % 1000));
                        auto either = failure_of(call()) || timer.async_wait(asio::use_awaitable);
                        const auto result = co_await std::move(either);
                        if (result.index() == 0) {
                            failure = std::get<0>(result);
                        } else {
                            ++failed;
                        }
                    } else {
                        failure = co_await failure_of(call());
                    }
                    failed += failure ? 1 : 0;
                    ++calls;
                }
            }));
        }
        std::atomic<bool> stop = false;
        std::thread faults([&] {
            while (!stop) {
                {
                    TableLock lock(schema);
                    std::this_thread::sleep_for(60ms);
                    lock.release();
                }
                Psql().exec(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
                    "application_name = " +
                    quote_literal(pool.name));
                std::this_thread::sleep_for(30ms);
            }
        });
        const auto failures = ends_of(ends);
        stop = true;
        faults.join();
        CHECK(failures == std::vector<std::string>{});
        CHECK(threads.finish());
        statistics = cache.statistics();
    }
    CHECK(calls == users * each);
    CHECK(failed > 100);
    for (const std::string provider : {"A ", "B "}) {
        CHECK(journal->count(provider) > 0);
        for (const std::string operation : {"get", "put", "remove", "flush", "cleanup"}) {
            const std::string prefix = provider + operation;
            CAPTURE(prefix);
            CHECK(journal->count(prefix + " open") > 0);
            CHECK(journal->count(prefix + " open") == journal->count(prefix + " close"));
        }
    }
    CHECK(journal->count(" error ") == 2 * statistics.errors);
    CHECK(tally->sum() == PoolChange());
}

TEST_CASE("Acknowledged writes are read while other callers are cancelled") {
    TestSchema schema;
    Threads threads(4);
    AsyncPostgresCache cache(threads.context().get_executor(), server_pool(2),
                             schema.cache_options());
    std::atomic<int> wrong = 0;
    const auto end = Clock::now() + span;
    std::vector<std::future<void>> users;
    for (unsigned user = 0; user < 16; ++user) {
        users.push_back(threads.spawn([&, user]() -> asio::awaitable<void> {
            const auto key = "mine" + std::to_string(user);
            for (int i = 0; Clock::now() < end; ++i) {
                co_await cache.put_raw(key, numbered(i), 1h);
                const auto value = co_await cache.get_raw(key);
                wrong += value == numbered(i) ? 0 : 1;
            }
        }));
    }
    for (unsigned user = 0; user < 16; ++user) {
        users.push_back(threads.spawn([&, user]() -> asio::awaitable<void> {
            std::mt19937 random(user);
            auto executor = co_await asio::this_coro::executor;
            while (Clock::now() < end) {
                auto call = start(executor, cache.get_raw("mine" + std::to_string(random() % 16)));
                auto other = start(executor, cache.put_raw("others", numbered(user), 1h));
                co_await pause(std::chrono::microseconds(random() % 500));
                call.cancel();
                other.cancel();
                const auto get_failure = co_await call.failure();
                const auto put_failure = co_await other.failure();
                wrong += expected(get_failure) && expected(put_failure) ? 0 : 1;
            }
        }));
    }
    CHECK(ends_of(users) == std::vector<std::string>{});
    CHECK(wrong == 0);
    CHECK(threads.finish());
}

TEST_CASE("A pool under load from four threads with random cancellations loses no connection") {
    NamedPool named;
    named.options.max_size = 3;
    named.options.max_lifetime = GENERATE(Duration(30ms), no_expiry);
    Threads threads(4);
    ConnectionPool pool(threads.context().get_executor(), named.options);
    std::atomic<int> wrong = 0;
    std::atomic<int> at_once = 0;
    const auto end = Clock::now() + span;
    std::vector<std::future<void>> users;
    for (unsigned user = 0; user < 32; ++user) {
        users.push_back(threads.spawn([&, user]() -> asio::awaitable<void> {
            std::mt19937 random(user);
            auto executor = co_await asio::this_coro::executor;
            const auto use = [&]() -> asio::awaitable<void> {
                auto lease = co_await pool.connect();
                wrong += ++at_once <= 3 ? 0 : 1;
                wrong += PQstatus(lease.native_handle()) == CONNECTION_OK ? 0 : 1;
                std::this_thread::yield();
                --at_once;
            };
            while (Clock::now() < end) {
                auto call = start(executor, use());
                co_await pause(std::chrono::microseconds(random() % 400));
                if (random() % 2 == 0) {
                    call.cancel();
                }
                const auto failure = co_await call.failure();
                wrong += expected(failure) ? 0 : 1;
                const auto statistics = pool.statistics();
                wrong += statistics.open <= 3 ? 0 : 1;
                wrong += statistics.idle + statistics.busy == statistics.open ? 0 : 1;
            }
        }));
    }
    CHECK(ends_of(users) == std::vector<std::string>{});
    CHECK(wrong == 0);
    CHECK(threads.finish());
    CHECK(pool.statistics().busy == 0);
    CHECK(pool.statistics().waiting == 0);
    CHECK(pool.statistics().open <= 3);
}

TEST_CASE("A blocking cache under load with time-outs, while its table is locked now and then") {
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 4;
    auto options = schema.cache_options();
    options.timeout = 30ms;
    PostgresCache cache(named.options, options);
    std::atomic<int> wrong = 0;
    const auto end = Clock::now() + span;
    std::vector<std::thread> threads;
    for (unsigned thread = 0; thread < 12; ++thread) {
        threads.emplace_back([&, thread] {
            std::mt19937 random(thread);
            while (Clock::now() < end) {
                const auto key = key_of(random() % 20);
                const auto failure = failure_of([&] {
                    switch (random() % 4) {
                        case 0:
                            cache.put_raw(key, numbered(thread), 1h);
                            break;
                        case 1:
                            cache.remove(key);
                            break;
                        case 2:
                            static_cast<void>(cache.statistics());
                            break;
                        default:
                            cache.get_raw(key);
                    }
                });
                wrong += expected(failure) ? 0 : 1;
            }
        });
    }
    while (Clock::now() < end) {
        TableLock lock(schema);
        std::this_thread::sleep_for(40ms);
        lock.release();
        std::this_thread::sleep_for(40ms);
    }
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK(wrong == 0);
    const auto works = [&] {
        return !failure_of([&] { cache.put_raw("after", numbered(1), 1h); });
    };
    CHECK(eventually(works));
    CHECK(eventually([&] { return schema.sql().connections(named.name) <= 4; }));
}

TEST_CASE("Cleanup tasks and threads start and stop at random") {
    TestSchema schema;
    Threads threads(3);
    AsyncPostgresCache async(threads.context().get_executor(), server_pool(2),
                             schema.cache_options());
    PostgresCache blocking(server_pool(2), schema.cache_options());
    std::atomic<int> wrong = 0;
    const auto end = Clock::now() + span;
    std::vector<std::future<void>> users;
    for (unsigned user = 0; user < 8; ++user) {
        users.push_back(threads.spawn([&, user]() -> asio::awaitable<void> {
            std::mt19937 random(user);
            auto executor = co_await asio::this_coro::executor;
            while (Clock::now() < end) {
                auto service =
                    random() % 2 == 0
                        ? async.start_cleanup_task(Duration(1 + random() % 2000))
                        : async.start_cleanup_task(executor, Duration(1 + random() % 2000));
                co_await pause(std::chrono::microseconds(random() % 5000));
                switch (random() % 3) {
                    case 0: {
                        const bool stopped = co_await service.stop();
                        wrong += stopped ? 0 : 1;
                        break;
                    }
                    case 1: {
                        auto first = start(executor, service.stop(Duration(random() % 1000)));
                        auto second = start(executor, service.stop(std::nullopt));
                        if (random() % 2 == 0) {
                            first.cancel();
                        }
                        co_await first.failure();
                        const bool stopped = co_await second.get();
                        wrong += stopped ? 0 : 1;
                        break;
                    }
                    default:
                        break;  // destroyed
                }
            }
        }));
    }
    std::vector<std::thread> plain;
    for (unsigned thread = 0; thread < 3; ++thread) {
        plain.emplace_back([&, thread] {
            std::mt19937 random(thread);
            while (Clock::now() < end) {
                auto service = blocking.start_cleanup_thread(Duration(1 + random() % 2000));
                std::this_thread::sleep_for(std::chrono::microseconds(random() % 5000));
                if (random() % 2 == 0) {
                    wrong += service.stop(10s) ? 0 : 1;
                }
            }
        });
    }
    for (auto& thread : plain) {
        thread.join();
    }
    CHECK(ends_of(users) == std::vector<std::string>{});
    CHECK(wrong == 0);
    CHECK(threads.finish());
}

TEST_CASE("A cache is destroyed while its calls are in flight") {
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 2;
    Journal unexpected;
    std::atomic<int> ended = 0;
    int started = 0;
    bool backlog_shrinks = true;
    {
        Threads threads(3);
        const auto end = Clock::now() + span;
        for (unsigned round = 0; backlog_shrinks && Clock::now() < end; ++round) {
            std::optional<AsyncPostgresCache> cache(std::in_place, threads.context().get_executor(),
                                                    named.options, schema.cache_options());
            for (unsigned i = 0; i < 8; ++i) {
                const auto done = [&](std::exception_ptr error, const Failure& failure) {
                    if (error || !expected(failure)) {
                        unexpected.write(error ? "an exception" : failure.what());
                    }
                    ++ended;
                };
                asio::co_spawn(asio::make_strand(threads.context()),
                               failure_of(cache->put_raw(key_of(i), numbered(i), 1h)), done);
                asio::co_spawn(asio::make_strand(threads.context()),
                               failure_of(cache->get_raw(key_of(i))), done);
                started += 2;
            }
            auto service = cache->start_cleanup_task(1ms);
            std::this_thread::sleep_for(std::chrono::microseconds(round % 7 * 500));
            cache.reset();
            // A few caches at a time: the server has room for so many connections only.
            backlog_shrinks = eventually([&] { return started - ended <= 64; });
        }
        CHECK(backlog_shrinks);
        CHECK(threads.finish());
    }
    CHECK(unexpected.lines() == std::vector<std::string>{});
    CHECK(ended == started);
    CHECK(eventually([&] { return schema.sql().connections(named.name) == 0; }));
}

TEST_CASE("A context is stopped and destroyed while its threads run calls") {
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 2;
    const auto descriptors = open_descriptors();
    const auto end = Clock::now() + span;
    for (unsigned round = 0; Clock::now() < end; ++round) {
        asio::io_context context;
        AsyncPostgresCache cache(context.get_executor(), named.options, schema.cache_options());
        for (unsigned i = 0; i < 16; ++i) {
            asio::co_spawn(asio::make_strand(context), cache.put_raw(key_of(i), numbered(i), 1h),
                           asio::detached);
            asio::co_spawn(asio::make_strand(context), cache.get_raw(key_of(i)), asio::detached);
        }
        std::vector<std::thread> threads;
        for (int i = 0; i < 3; ++i) {
            threads.emplace_back([&] { context.run(); });
        }
        std::this_thread::sleep_for(std::chrono::microseconds(round % 20 * 300));
        context.stop();
        for (auto& thread : threads) {
            thread.join();
        }
    }
    CHECK(eventually([&] { return schema.sql().connections(named.name) == 0; }));
    CHECK(eventually([&] { return open_descriptors() <= descriptors; }));
}

TEST_CASE("Callers on several contexts share one cache") {
    TestSchema schema;
    Threads home(2);
    // A machine that stands still for a while fails nobody, a call that is forgotten does.
    auto pool = server_pool(2);
    pool.acquire_timeout = patience;
    auto options = schema.cache_options();
    options.timeout = patience;
    AsyncPostgresCache cache(home.context().get_executor(), pool, options);
    Journal unexpected;
    const auto end = Clock::now() + span;
    {
        std::vector<std::thread> plain;
        for (unsigned thread = 0; thread < 4; ++thread) {
            plain.emplace_back([&, thread] {
                // A context of the thread's own, that comes and goes.
                std::mt19937 random(thread);
                while (Clock::now() < end) {
                    try {
                        asio::io_context own;
                        const auto key = key_of(thread);
                        run_coro(own, [&]() -> asio::awaitable<void> {
                            const auto n = static_cast<std::int64_t>(random());
                            co_await cache.put_raw(key, numbered(n), 1h);
                            const auto value = co_await cache.get_raw(key);
                            if (value != numbered(n)) {
                                unexpected.write(value ? "another value" : "no value");
                            }
                        });
                    } catch (const std::exception& error) {
                        unexpected.write(error.what());
                    }
                }
            });
        }
        for (auto& thread : plain) {
            thread.join();
        }
    }
    CHECK(unexpected.lines() == std::vector<std::string>{});
    CHECK(home.finish());
}

TEST_CASE("Callers whose calls shared a statement go on side by side where threads run the loop") {
    // More of them than there are workers: those that go on inside of one take turns.
    constexpr int together = 5;
    constexpr int callers = 16;
    TestSchema schema;
    Threads threads(6);
    AsyncPostgresCache cache(threads.context().get_executor(), server_pool(2),
                             schema.cache_options());
    std::mutex mutex;
    std::condition_variable came;
    int here = 0;
    bool met = false;
    const auto meet = [&] {
        std::unique_lock lock(mutex);
        ++here;
        met = met || here >= together;
        came.notify_all();
        // For a shorter time than after which another worker comes to help.
        came.wait_for(lock, 5ms, [&] { return met; });
        --here;
    };
    // Time alone would judge the machine.
    constexpr int rounds = 500;
    const auto deadline = Clock::now() + patience;
    for (int n = 0; n < rounds || Clock::now() < deadline; ++n) {
        std::vector<std::future<void>> round;
        for (int i = 0; i < callers; ++i) {
            // No strand: a caller on one is always posted to it.
            auto caller = [&, i]() -> asio::awaitable<void> {
                co_await cache.get_raw(std::to_string(i));
                meet();
            };
            round.push_back(asio::co_spawn(threads.context(), std::move(caller), asio::use_future));
        }
        for (auto& one : round) {
            one.get();
        }
        const std::lock_guard lock(mutex);
        if (met) {
            break;
        }
    }
    CHECK(met);
}

TEST_CASE("init_db from many threads while the cache is used") {
    TestSchema schema;
    PostgresCache cache(server_pool(2), schema.cache_options());
    std::atomic<int> wrong = 0;
    const auto end = Clock::now() + 1s;
    std::vector<std::thread> plain;
    for (int thread = 0; thread < 4; ++thread) {
        plain.emplace_back([&, thread] {
            while (Clock::now() < end) {
                try {
                    if (thread % 2 == 0) {
                        init_db(dsn(), schema.table_options());
                    } else {
                        cache.put_raw("key", numbered(thread), 1h);
                        wrong += cache.get_raw("key") ? 0 : 1;
                    }
                } catch (const std::exception&) {
                    ++wrong;
                }
            }
        });
    }
    for (auto& thread : plain) {
        thread.join();
    }
    CHECK(wrong == 0);
}

TEST_CASE("A connection that comes back while a caller joins the line is not missed") {
    Threads home(4);
    PoolOptions options = server_pool(1);
    options.acquire_timeout = 3s;
    ConnectionPool pool(home.context().get_executor(), options);
    // In every round two callers want the only connection, once each: nobody comes later to help
    // one who was forgotten.
    const auto borrow = [&]() -> asio::awaitable<void> {
        ConnectionLease lease = co_await pool.connect();
        lease = ConnectionLease();
    };
    const auto end = Clock::now() + span;
    while (Clock::now() < end) {
        auto one = asio::co_spawn(home.context(), borrow(), asio::use_future);
        auto other = asio::co_spawn(home.context(), borrow(), asio::use_future);
        CHECK_NOTHROW(one.get());
        CHECK_NOTHROW(other.get());
    }
    CHECK(pool.statistics().acquire_timeouts == 0);
    pool.close();
    CHECK(home.finish());
}
