// Large calls of many keys: they wait their turn, and let others have theirs.

#include <algorithm>
#include <boost/asio/deferred.hpp>
#include <catch2/catch.hpp>
#include <cmath>
#include <ctime>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

std::vector<std::string> bulk_keys(std::size_t count, const std::string& prefix = "key") {
    std::vector<std::string> all;
    all.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        // Too long to be stored inside of a std::string.
        all.push_back(prefix + "-that-has-more-characters-" + std::to_string(i));
    }
    return all;
}

std::vector<Entry> bulk_entries(std::size_t count) {
    std::vector<Entry> all;
    all.reserve(count);
    for (auto& key : bulk_keys(count)) {
        all.emplace_back(std::move(key), numbered(1), 1h);
    }
    return all;
}

/// What this thread has worked so far; what others take of the processor does not count.
std::chrono::nanoseconds worked() {
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

/// Runs an operation beside a coroutine that wants to run all the time. @returns for how long that
/// was kept from it at most.
template <class T>
asio::awaitable<std::chrono::nanoseconds> longest_stall(asio::any_io_executor executor,
                                                        asio::awaitable<T> operation) {
    auto since = worked();
    auto started = start(executor, std::move(operation));
    auto longest = 0ns;
    while (!started.done()) {
        auto turn = asio::post(executor, asio::deferred);
        co_await std::move(turn);
        const auto now = worked();
        longest = std::max(longest, now - since);
        since = now;
    }
    co_await started.get();
    co_return longest;
}

CacheOptions patient(const TestSchema& schema) {
    auto options = schema.cache_options();
    options.timeout = 60s * slowness;
    return options;
}

}  // namespace

TEST_CASE("Calls of many keys wait their turn, each as one call") {
    TestSchema schema;
    asio::io_context context;
    auto options = patient(schema);
    options.max_queued_calls = 20;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), options);
    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto executor = context.get_executor();
        std::vector<Started<void>> puts;
        for (int i = 0; i < 20; ++i) {
            puts.push_back(start(executor, cache.put_raw_many(bulk_entries(1000))));
        }
        for (auto& one : puts) {
            co_await one.get();
        }
        // Those beyond are too many, while none of them can be answered.
        TableLock lock(schema);
        std::vector<Started<std::vector<std::optional<json::object>>>> gets;
        for (int i = 0; i < 40; ++i) {
            gets.push_back(start(executor, cache.get_raw_many(bulk_keys(1000))));
        }
        const auto refused = [&] {
            return std::count_if(gets.begin(), gets.end(),
                                 [](const auto& one) { return one.done(); }) >= 10;
        };
        const bool some_refused = co_await until(refused);
        CHECK(some_refused);
        lock.release();
        int answered = 0;
        for (auto& one : gets) {
            const auto failure = co_await one.failure();
            CHECK((!failure || failure.code() == Errc::queue_full));
            answered += failure ? 0 : 1;
        }
        CHECK(answered >= 20);
    });
}

TEST_CASE("The event loop goes on beside a call of many keys") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), patient(schema));
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.get_raw("warm");
        const auto executor = context.get_executor();
        const auto limit = 60ms * slowness;
        auto get = cache.get_raw_many(bulk_keys(100'000));
        const auto of_get = co_await longest_stall(executor, std::move(get));
        CHECK(of_get < limit);
        auto remove = cache.remove_many(bulk_keys(100'000));
        const auto of_remove = co_await longest_stall(executor, std::move(remove));
        CHECK(of_remove < limit);
        auto put = cache.put_raw_many(bulk_entries(20'000));
        const auto of_put = co_await longest_stall(executor, std::move(put));
        CHECK(of_put < limit);
    });
}

TEST_CASE("All of many entries are checked before the first is stored") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, patient(schema), server_pool());
    auto wrong = bulk_entries(5000);
    wrong.back().value["x"] = std::nan("");
    const auto failure = failure_of([&] { cache->put_many(wrong); });
    CHECK(failure.code() == Errc::invalid_value);
    CHECK_THAT(failure.what(), Catch::Contains("entry 4999"));
    auto keys = bulk_keys(100'000);
    keys.back() = "\xff";
    CHECK(failure_of([&] { cache->get_many(keys); }).code() == Errc::invalid_key);
    CHECK(failure_of([&] { cache->remove_many(keys); }).code() == Errc::invalid_key);
    CHECK(cache->statistics().statements == 0);
    CHECK(schema.rows() == 0);
}

TEST_CASE("Of several entries with one key the last one counts, however far apart they are") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, patient(schema), server_pool());
    auto entries = bulk_entries(5000);
    for (const std::size_t place : {0u, 1u, 1023u, 1024u, 3000u, 4999u}) {
        entries[place] = Entry("same", numbered(static_cast<std::int64_t>(place)), 1h);
    }
    cache->put_many(entries);
    CHECK(schema.rows() == 4995);
    CHECK(cache->get("same") == numbered(4999));

    std::vector<std::string> keys(3000, "absent");
    for (const std::size_t place : {0u, 1u, 1500u, 2999u}) {
        keys[place] = "same";
    }
    const auto values = cache->get_many(keys);
    REQUIRE(values.size() == keys.size());
    CHECK(std::count(values.begin(), values.end(), numbered(4999)) == 4);
    CHECK(values[1500] == numbered(4999));
    CHECK(cache->remove_many(keys) == 1);
}

TEST_CASE("Large values make small slices") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, patient(schema), server_pool());
    json::object large;
    large["text"] = std::string(1'200'000, 'x');
    std::vector<Entry> entries;
    for (int i = 0; i < 7; ++i) {
        entries.emplace_back(std::to_string(i), large, 1h);
    }
    cache->put_many(entries);
    CHECK(schema.rows() == 7);
    CHECK(cache->get("6") == large);
}

TEST_CASE("A large call that is cancelled ends, whatever it is at") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), patient(schema));
    std::uint64_t cancelled = 0;
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.get_raw("warm");
        for (int turns = 0; turns < 2000; turns = turns * 2 + 1) {
            auto started = start(context.get_executor(), cache.get_raw_many(bulk_keys(60'000)));
            for (int i = 0; i < turns && !started.done(); ++i) {
                auto turn = asio::post(context, asio::deferred);
                co_await std::move(turn);
            }
            if (started.done()) {
                break;  // the slower the machine, the more it does in a turn
            }
            ++cancelled;
            started.cancel();
            const auto failure = co_await started.failure();
            CHECK(failure.code() == asio::error::operation_aborted);
        }
        const auto none = co_await cache.get_raw("key");
        CHECK(none == std::nullopt);
    });
    CHECK(cache.statistics().cancelled == cancelled);
    CHECK(cancelled >= 8);
}
