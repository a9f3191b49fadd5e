// What only the blocking cache has: threads that wait.

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <functional>
#include <mutex>
#include <thread>

#include "support/both.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// Runs @p work(i) in @p count threads at once. @returns what they threw.
template <class F>
std::vector<std::string> in_threads(int count, const F& work) {
    Journal failures;
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) {
        threads.emplace_back([&, i] {
            try {
                work(i);
            } catch (const std::exception& error) {
                failures.write(error.what());
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    return failures.lines();
}

/// Runs a function in a thread; joins it at the end.
class Background {
  public:
    explicit Background(std::function<void()> work) : thread_(std::move(work)) {}
    ~Background() { thread_.join(); }

  private:
    std::thread thread_;
};

}  // namespace

TEST_CASE("Sixteen threads on a cache of size four lose nothing") {
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 4;
    PostgresCache cache(named.options, schema.cache_options());
    std::atomic<int> wrong = 0;
    std::atomic<bool> done = false;
    std::int64_t most_connections = 0;
    std::vector<std::string> failures;
    {
        Background watcher([&] {
            Psql sql;
            while (!done) {
                most_connections = std::max(most_connections, sql.connections(named.name));
                std::this_thread::sleep_for(1ms);
            }
        });
        failures = in_threads(16, [&](int thread) {
            for (int i = 0; i < 60; ++i) {
                const auto key = std::to_string(thread) + "/" + std::to_string(i % 7);
                cache.put_raw(key, numbered(i), 1h);
                wrong += cache.get_raw(key) == numbered(i) ? 0 : 1;
                if (i % 3 == 0) {
                    wrong += cache.remove(key) ? 0 : 1;
                    wrong += cache.get_raw(key) ? 1 : 0;
                    cache.put_raw(key, numbered(i), 1h);
                }
            }
        });
        done = true;
    }
    CHECK(failures == std::vector<std::string>{});
    CHECK(wrong == 0);
    CHECK(schema.rows() == 16 * 7);
    CHECK(most_connections >= 2);
    CHECK(most_connections <= 4);
    CHECK(cache.statistics().puts == 16 * 80);
    CHECK(cache.statistics().hits == 16 * 60);
    CHECK(cache.statistics().misses == 16 * 20);
    CHECK(cache.statistics().removes == 16 * 20);
    CHECK(cache.statistics().errors == 0);
}

TEST_CASE("A blocking cache opens nothing until it is used, and one connection for one thread") {
    TestSchema schema;
    NamedPool named;
    PostgresCache cache(named.options, schema.cache_options());
    CHECK(schema.sql().connections(named.name) == 0);
    for (int i = 0; i < 10; ++i) {
        cache.put_raw("key", numbered(i), 1h);
        cache.get_raw("key");
        cache.cleanup_expired();
    }
    CHECK(schema.sql().connections(named.name) == 1);
}

TEST_CASE("A blocking cache closes its connections when it is destroyed") {
    TestSchema schema;
    NamedPool named;
    {
        PostgresCache cache(named.options, schema.cache_options());
        CHECK(in_threads(8, [&](int i) {
                  cache.put_raw(std::to_string(i), numbered(i), 1h);
              }).empty());
        CHECK(schema.sql().connections(named.name) >= 1);
    }
    CHECK(eventually([&] { return schema.sql().connections(named.name) == 0; }));
}

TEST_CASE("A call from inside a call of the same cache is refused") {
    TestSchema schema;
    const auto flavour = GENERATE(Flavour::blocking, Flavour::blocking_borrowing);
    CAPTURE(flavour);

    /// Calls the cache that it observes.
    class Reentrant : public CacheInstrumentation {
      public:
        std::unique_ptr<CacheGetSpan> start_cache_get_span(const SpanInfo&) override {
            if (cache != nullptr) {
                failures.push_back(failure_of([&] { cache->get("inner"); }));
                failures.push_back(failure_of([&] { cache->put("inner", numbered(1), 1h); }));
                failures.push_back(failure_of([&] { cache->remove("inner"); }));
                failures.push_back(failure_of([&] { cache->cleanup(); }));
                failures.push_back(failure_of([&] { cache->flush(); }));
            }
            return nullptr;
        }
        AnyCache* cache = nullptr;
        std::vector<Failure> failures;
    };
    const auto reentrant = std::make_shared<Reentrant>();
    auto options = schema.cache_options();
    options.instrumentations.push_back(reentrant);
    const auto cache = make_cache(flavour, options, server_pool(1));
    cache->put("key", numbered(1), 1h);
    reentrant->cache = cache.get();

    CHECK(cache->get("key") == numbered(1));
    CHECK(reentrant->failures.size() == 5);
    for (const auto& failure : reentrant->failures) {
        CHECK(failure.code() == Errc::reentrant_call);
        CHECK(failure.code() == Condition::caller_mistake);
        CHECK(failure.typed());
    }
    reentrant->cache = nullptr;
    CHECK(cache->get("key") == numbered(1));
}

TEST_CASE("A call from inside a call of another cache works") {
    TestSchema schema;
    PostgresCache inner(server_pool(1), schema.cache_options());
    class Nested : public CacheInstrumentation {
      public:
        explicit Nested(PostgresCache& cache) : cache_(cache) {}
        std::unique_ptr<CachePutSpan> start_cache_put_span(const SpanInfo&) override {
            cache_.put_raw("inner", numbered(2), 1h);
            return nullptr;
        }

      private:
        PostgresCache& cache_;
    };
    auto options = schema.cache_options();
    options.instrumentations.push_back(std::make_shared<Nested>(inner));
    PostgresCache outer(server_pool(1), options);
    outer.put_raw("outer", numbered(1), 1h);
    CHECK(outer.get_raw("outer") == numbered(1));
    CHECK(outer.get_raw("inner") == numbered(2));
}

TEST_CASE("A blocking call inside an event loop works, as long as it takes") {
    TestSchema schema;
    PostgresCache cache(server_pool(1), schema.cache_options());
    run_coro([&]() -> asio::awaitable<void> {
        co_await pause(1us);
        cache.put_raw("key", numbered(1), 1h);
        co_await pause(1us);
        CHECK(cache.get_raw("key") == numbered(1));
    });
}

TEST_CASE("Threads beyond the connections wait their turn") {
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 2;
    auto options = schema.cache_options();
    options.timeout = 15s;
    PostgresCache cache(named.options, options);
    cache.put_raw("key", numbered(1), 1h);
    std::atomic<int> right = 0;
    TableLock lock(schema);
    std::vector<std::string> failures;
    {
        Background callers([&] {
            failures =
                in_threads(10, [&](int) { right += cache.get_raw("key") == numbered(1) ? 1 : 0; });
        });
        CHECK(eventually([&] { return lock.waiting() == 2; }));
        CHECK(schema.sql().connections(named.name) == 2);
        CHECK(right == 0);
        lock.release();
    }
    CHECK(failures == std::vector<std::string>{});
    CHECK(right == 10);
}

TEST_CASE("A thread that gets no connection in time is timed_out") {
    TestSchema schema;
    auto options = schema.cache_options();
    options.timeout = 400ms * slowness;
    PostgresCache cache(server_pool(1), options);
    cache.put_raw("key", numbered(1), 1h);
    TableLock lock(schema);
    std::mutex mutex;
    std::vector<Failure> failures;
    const auto started = Clock::now();
    CHECK(in_threads(4, [&](int) {
              const auto failure = failure_of([&] { cache.get_raw("key"); });
              const std::lock_guard guard(mutex);
              failures.push_back(failure);
          }).empty());
    CHECK(Clock::now() - started < 3s);
    REQUIRE(failures.size() == 4);
    for (const auto& failure : failures) {
        CHECK(failure.code() == Errc::timed_out);
        CHECK(failure.code() == Condition::timeout);
    }
    lock.release();
    CHECK(cache.get_raw("key") == numbered(1));
}

TEST_CASE("Blocking calls that timed out leak no connection and no descriptor") {
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 4;
    auto options = schema.cache_options();
    options.timeout = patience;
    PostgresCache cache(named.options, options);
    CHECK(in_threads(8, [&](int i) { cache.put_raw(std::to_string(i), numbered(i), 1h); }).empty());
    const auto descriptors = open_descriptors();
    {
        TableLock lock(schema);
        for (int round = 0; round < 3; ++round) {
            std::atomic<int> timed_out = 0;
            CHECK(in_threads(8, [&](int i) {
                      timed_out += failure_of([&] {
                                       cache.get_raw(std::to_string(i), CallOptions(150ms));
                                   }).code() == Errc::timed_out
                                       ? 1
                                       : 0;
                  }).empty());
            CHECK(timed_out == 8);
        }
        lock.release();
    }
    CHECK(eventually([&] { return schema.sql().connections(named.name) <= 4; }));
    CHECK(in_threads(8, [&](int i) { cache.put_raw(std::to_string(i), numbered(i), 1h); }).empty());
    CHECK(cache.get_raw("3") == numbered(3));
    CHECK(schema.sql().connections(named.name) <= 4);
    // One more or less may be open, but not one per time-out.
    CHECK(open_descriptors() <= descriptors + 16);
}

TEST_CASE("Threads that wait for a connection hear why none can be opened") {
    const auto most = GENERATE(std::size_t{1}, std::size_t{3});
    CAPTURE(most);
    PoolOptions pool;
    pool.dsn = "host=127.0.0.1 port=1 user=x dbname=x";
    pool.max_size = most;
    CacheOptions options;
    options.timeout = 15s;
    PostgresCache cache(pool, options);
    // The pauses between the attempts grow: one for each thread would last beyond the deadline.
    for (int round = 0; round < 4; ++round) {
        std::atomic<int> refused = 0;
        const auto started = Clock::now();
        CHECK(in_threads(24, [&](int) {
                  refused +=
                      failure_of([&] { cache.get_raw("key"); }).code() == Errc::connect_failed ? 1
                                                                                               : 0;
              }).empty());
        CHECK(refused == 24);
        CHECK(Clock::now() - started < 5s * slowness);
    }
    const auto now = cache.pool_statistics();
    // One for each thread would be 96.
    CHECK(now->connect_failures <= 40);
    CHECK(now->waiting == 0);
    CHECK(now->open == 0);
}

TEST_CASE("A blocking cache that failed to connect leaves nothing behind") {
    PoolOptions pool;
    pool.dsn = "host=127.0.0.1 port=1 user=x dbname=x";
    pool.max_size = 1;
    pool.connect_timeout = 500ms;
    PostgresCache cache(pool, CacheOptions());
    const auto descriptors = open_descriptors();
    for (int i = 0; i < 5; ++i) {
        CHECK(failure_of([&] { cache.get_raw("key"); }).code() == Errc::connect_failed);
    }
    CHECK(open_descriptors() <= descriptors + 8);
}

TEST_CASE("Keys and values are taken by view and by reference") {
    TestSchema schema;
    PostgresCache cache(server_pool(1), schema.cache_options());
    const std::string buffer = "prefix-key-suffix";
    const std::string_view key = std::string_view(buffer).substr(7, 3);
    const json::object value = numbered(1);
    cache.put_raw(key, value, 1h, "name");
    CHECK(value == numbered(1));
    CHECK(cache.get_raw("key") == value);
    CHECK(cache.get_raw(key, std::string_view("name")) == value);
    CHECK(cache.remove(key));
}

TEST_CASE("Connections of a blocking cache are retired as the pool's options say") {
    TestSchema schema;
    NamedPool named;
    const bool by_age = GENERATE(false, true);
    CAPTURE(by_age);
    (by_age ? named.options.max_lifetime : named.options.idle_timeout) = 50ms;
    PostgresCache cache(named.options, schema.cache_options());
    const auto backend = [&] {
        return schema.sql().value(
            "SELECT string_agg(pid::text, ',') FROM pg_stat_activity WHERE "
            "application_name = " +
            quote_literal(named.name));
    };
    cache.put_raw("key", numbered(1), 1h);
    const auto before = backend();
    std::this_thread::sleep_for(100ms);
    CHECK(cache.get_raw("key") == numbered(1));
    CHECK(eventually([&] { return schema.sql().connections(named.name) == 1; }));
    CHECK(backend() != before);
}

TEST_CASE("What a burst of threads has left is closed after idle_timeout") {
    const bool goes_on = GENERATE(true, false);
    CAPTURE(goes_on);
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 8;
    named.options.idle_timeout = 300ms;
    PostgresCache cache(named.options, schema.cache_options());
    const auto failures = in_threads(16, [&](int i) {
        for (int call = 0; call < 20; ++call) {
            cache.get_raw(std::to_string(i));
        }
    });
    CHECK(failures.empty());
    const auto opened = Psql().connections(named.name);
    CHECK(opened >= 2);
    if (goes_on) {
        // One thread goes on, with one connection.
        const auto one_left = [&] {
            cache.get_raw("key");
            return Psql().connections(named.name) == 1;
        };
        CHECK(eventually(one_left));
    } else {
        const auto none_left = [&] {
            return cache.pool_statistics()->open == 0 && Psql().connections(named.name) == 0;
        };
        CHECK(eventually(none_left));
    }
}
