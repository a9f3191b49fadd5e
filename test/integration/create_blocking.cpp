// get_or_create in threads: who loads, who waits.

#include <atomic>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <future>
#include <mutex>
#include <stdexcept>
#include <thread>

#include <psycache/psycache.hpp>

#include "support/run_coro.hpp"
#include "support/schema.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// A loader that counts its calls, and ends when it is told.
class GatedLoader {
  public:
    int operator()() {
        std::unique_lock lock(mutex_);
        const int number = ++calls_;
        changed_.notify_all();
        if (!changed_.wait_for(lock, patience, [this] { return open_; })) {
            throw std::runtime_error("the test has forgotten its loader");
        }
        if (fails_) {
            throw std::runtime_error("the loader has failed");
        }
        return number;
    }
    auto function() {
        return [this] { return (*this)(); };
    }
    void open(bool to_fail = false) {
        const std::lock_guard lock(mutex_);
        open_ = true;
        fails_ = to_fail;
        changed_.notify_all();
    }
    int calls() {
        const std::lock_guard lock(mutex_);
        return calls_;
    }
    bool wait_for_call() {
        return eventually([&] { return calls() > 0; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    int calls_ = 0;
    bool open_ = false;
    bool fails_ = false;
};

struct ThreadProcess {
    explicit ThreadProcess(const TestSchema& schema, std::size_t connections = 2)
        : cache(server_pool(connections), schema.cache_options()) {}

    int get(const CreateOptions& options = CreateOptions(1h)) {
        return cache.get_or_create<int>("key", options, loader.function());
    }
    std::future<int> start(const CreateOptions& options = CreateOptions(1h)) {
        return std::async(std::launch::async, [this, options] { return get(options); });
    }

    GatedLoader loader;
    PostgresCache cache;
};

CreateOptions stale_in_threads(Duration ttl, Duration stale_for) {
    CreateOptions options(ttl);
    options.stale_for = stale_for;
    options.early = 0;
    return options;
}

}  // namespace

TEST_CASE("Threads that want a missing value have it loaded once") {
    TestSchema schema;
    ThreadProcess process(schema);
    ThreadProcess other(schema);
    std::vector<std::future<int>> callers;
    for (int i = 0; i < 16; ++i) {
        callers.push_back(process.start());
    }
    REQUIRE(process.loader.wait_for_call());
    auto elsewhere = other.start();
    REQUIRE(eventually([&] { return process.cache.statistics().load_joins == 15; }));
    REQUIRE(eventually([&] { return other.cache.statistics().load_waits == 1; }));
    // Those who wait hold no connection.
    process.cache.put("another", 1, 1h);
    CHECK(process.cache.get<int>("another") == 1);
    process.loader.open();
    for (auto& caller : callers) {
        CHECK(caller.get() == 1);
    }
    CHECK(elsewhere.get() == 1);
    CHECK(process.get() == 1);
    CHECK(process.loader.calls() == 1);
    CHECK(other.loader.calls() == 0);
    CHECK(process.cache.statistics().loads == 1);
}

TEST_CASE("A thread leaves at its time-out, and the load goes on for the others") {
    TestSchema schema;
    ThreadProcess process(schema);
    auto first = process.start();
    REQUIRE(process.loader.wait_for_call());
    CreateOptions impatient(1h);
    impatient.timeout = 50ms;
    CHECK(failure_of([&] { process.get(impatient); }).code() == Errc::timed_out);
    process.loader.open();
    CHECK(first.get() == 1);
}

TEST_CASE("What a loader throws reaches all threads that wait for it, as itself") {
    TestSchema schema;
    ThreadProcess process(schema);
    CreateOptions options(1h);
    options.retry_after_error = 200ms;
    std::vector<std::future<int>> callers;
    for (int i = 0; i < 4; ++i) {
        callers.push_back(process.start(options));
    }
    REQUIRE(process.loader.wait_for_call());
    REQUIRE(eventually([&] { return process.cache.statistics().load_joins == 3; }));
    process.loader.open(true);
    for (auto& caller : callers) {
        CHECK_THROWS_WITH(caller.get(), "the loader has failed");
    }
    CHECK_THROWS_WITH(process.get(options), "the loader has failed");
    CHECK(process.loader.calls() == 1);
    process.loader.open();
    CHECK(eventually([&] {
        try {
            return process.get(options) == 2;
        } catch (const std::runtime_error&) {
            return false;
        }
    }));
}

TEST_CASE("A thread gets a stale value at once, and another thread loads it anew") {
    TestSchema schema;
    ThreadProcess process(schema);
    const auto options = stale_in_threads(1h, 10min);
    process.cache.put("key", 0, 5min);
    for (int i = 0; i < 5; ++i) {
        CHECK(process.get(options) == 0);
    }
    REQUIRE(process.loader.wait_for_call());
    CHECK(process.loader.calls() == 1);
    SECTION("it is stored") {
        process.loader.open();
        CHECK(eventually([&] { return schema.expires_in("key") > 4000; }));
        CHECK(process.get(options) == 1);
        CHECK(eventually([&] { return schema.rows() == 1; }));
    }
    SECTION("it fails: the stale one goes on being answered") {
        process.loader.open(true);
        CHECK(eventually([&] { return process.cache.statistics().load_failures == 1; }));
        CHECK(process.get(options) == 0);
        CHECK(process.loader.calls() == 1);
    }
    SECTION("the cache goes: its destructor waits for the loader") {
        std::thread opens([&] {
            std::this_thread::sleep_for(50ms);
            process.loader.open();
        });
        auto gone = std::make_unique<ThreadProcess>(schema);
        gone->loader.open();
        gone->get(options);
        gone.reset();
        opens.join();
    }
}

TEST_CASE("A loader may use the cache, but not wait for its own key") {
    TestSchema schema;
    PostgresCache cache(server_pool(1), schema.cache_options());
    const CreateOptions options(1h);
    const int value = cache.get_or_create<int>("outer", options, [&] {
        return cache.get_or_create<int>("inner", options, [] { return 20; }) + 1;
    });
    CHECK(value == 21);
    CHECK(cache.get<int>("inner") == 20);
    const auto itself = [&] {
        cache.get_or_create<int>("self", options, [&] {
            return cache.get_or_create<int>("self", options, [] { return 1; });
        });
    };
    CHECK(failure_of(itself).code() == Errc::reentrant_call);
    CHECK(cache.get_or_create<std::optional<int>>(
              "nothing", options, [] { return std::optional<int>(); }) == std::nullopt);
    CHECK(cache.statistics().load_failures == 1);
}

TEST_CASE("Ten threads on twenty keys load each value once, in two processes") {
    TestSchema schema;
    ThreadProcess one(schema);
    ThreadProcess other(schema);
    constexpr int keys = 20;
    std::atomic<int> loads{0};
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 10; ++i) {
        threads.emplace_back([&, i] {
            PostgresCache& cache = i % 2 == 0 ? one.cache : other.cache;
            for (int round = 0; round < 3; ++round) {
                for (int key = 0; key < keys; ++key) {
                    const int value = cache.get_or_create<int>("key " + std::to_string(key),
                                                               CreateOptions(1h), [&loads, key] {
                                                                   ++loads;
                                                                   std::this_thread::sleep_for(5ms);
                                                                   return key;
                                                               });
                    wrong += value == key ? 0 : 1;
                }
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK(wrong == 0);
    CHECK(loads == keys);
}

TEST_CASE("Threads have many missing values loaded by one call of the loader") {
    TestSchema schema;
    PostgresCache cache(server_pool(2), schema.cache_options());
    std::vector<std::vector<std::string>> asked;
    const auto load = [&](std::vector<std::string> keys) {
        asked.push_back(keys);
        std::vector<std::optional<int>> values;
        for (const auto& key : keys) {
            values.push_back(key == "nothing" ? std::nullopt : std::optional(int(key.size())));
        }
        return values;
    };
    using Values = std::vector<std::optional<int>>;
    cache.put("there", 100, 1h);
    const auto get = [&](const std::vector<std::string>& keys, const CreateOptions& options) {
        return cache.get_or_create_many<std::optional<int>>(keys, options, load);
    };
    CHECK(get({"a", "there", "nothing", "bb"}, CreateOptions(1h)) ==
          Values{1, 100, std::nullopt, 2});
    CHECK(asked == std::vector<std::vector<std::string>>{{"a", "nothing", "bb"}});
    CHECK(get({"bb", "a"}, CreateOptions(1h)) == Values{2, 1});
    CHECK(asked.size() == 1);
    schema.sql().exec("UPDATE " + schema.table() + " SET expires_at = now() + interval '1 minute'");
    CHECK(get({"there", "bb"}, stale_in_threads(1h, 10min)) == Values{100, 2});
    CHECK(eventually([&] { return schema.rows("expires_at > now() + interval '1 hour'") == 2; }));
    CHECK(cache.get<int>("there") == 5);
}
