// Many callers with few keys, who leave at any moment: what each of them reads can be explained.

#include <atomic>
#include <boost/asio/deferred.hpp>
#include <boost/asio/post.hpp>
#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <thread>

#include "support/both.hpp"
#include "support/history.hpp"

using namespace psycache;
using namespace psycache::test;

namespace {

using Words = std::vector<std::string>;

/// @returns a value with a number, now and then one that takes a while to be stored.
json::object historic(std::int64_t number, std::mt19937& random) {
    json::object value = numbered(number);
    if (random() % 16 == 0) {
        value["text"] = std::string(300'000, 'x');
    }
    return value;
}

/// How a write ended, as a history knows it.
History::Ending ending_of(const Failure& failure) {
    return failure ? History::Ending::left : History::Ending::acknowledged;
}

/// One caller: it writes and reads, and leaves some of its calls on the way.
asio::awaitable<void> live(AsyncPostgresCache cache, History& history, unsigned seed,
                           std::atomic<std::int64_t>& numbers, Clock::time_point end) {
    std::mt19937 random(seed);
    auto executor = co_await asio::this_coro::executor;
    while (Clock::now() < end) {
        const std::string key = "key" + std::to_string(random() % 4);
        const auto began = history.now();
        const auto what = random() % 8;
        if (what < 3) {
            auto get = cache.get_raw(key);
            const auto value = co_await std::move(get);
            history.read(key, value ? value->at("n").as_int64() : History::absent, began);
            continue;
        }
        const std::int64_t number = what == 3 ? History::absent : ++numbers;
        Failure failure;
        const bool leaves = random() % 3 == 0;
        const auto turns = random() % 6;
        const auto leave = [&](auto& started) -> asio::awaitable<void> {
            for (std::size_t turn = 0; turn < turns && leaves; ++turn) {
                auto next = asio::post(executor, asio::deferred);
                co_await std::move(next);
            }
            if (leaves) {
                started.cancel();
            }
            auto ending = started.failure();
            failure = co_await std::move(ending);
        };
        if (what == 3) {
            auto remove = start(executor, cache.remove(key));
            co_await leave(remove);
        } else {
            auto put = start(executor, cache.put_raw(key, historic(number, random), 1h));
            co_await leave(put);
        }
        history.wrote(key, number, began, ending_of(failure));
    }
}

}  // namespace

TEST_CASE("A history tells what cannot be explained from what can") {
    using Ending = History::Ending;
    History history;
    const auto first = history.now();
    history.wrote("a", 1, first, Ending::acknowledged);
    history.read("a", 1, history.now());
    CHECK(history.unexplained().empty());
    SECTION("a value that was never written") {
        history.read("a", 7, history.now());
        CHECK(history.unexplained().size() == 1);
    }
    SECTION("a miss after a put") {
        history.read("a", History::absent, history.now());
        CHECK(history.unexplained().size() == 1);
    }
    SECTION("an older value than one that was acknowledged") {
        history.wrote("a", 2, history.now(), Ending::acknowledged);
        history.read("a", 1, history.now());
        CHECK(history.unexplained().size() == 1);
    }
    SECTION("a write that its caller has left, before and after a later one") {
        history.wrote("a", 2, history.now(), Ending::left);
        history.read("a", 1, history.now());
        history.read("a", 2, history.now());
        CHECK(history.unexplained().empty());
        history.wrote("a", 3, history.now(), Ending::acknowledged);
        history.read("a", 2, history.now());
        CHECK(history.unexplained().size() == 1);
    }
    SECTION("a write whose connection broke may come late") {
        history.wrote("a", 2, history.now(), Ending::unknown);
        history.wrote("a", 3, history.now(), Ending::acknowledged);
        history.read("a", 2, history.now());
        CHECK(history.unexplained().empty());
    }
    SECTION("writes at the same time have no order") {
        const auto one = history.now();
        const auto other = history.now();
        history.wrote("a", 2, one, Ending::acknowledged);
        history.wrote("a", 3, other, Ending::acknowledged);
        history.read("a", 2, history.now());
        history.read("a", 3, history.now());
        CHECK(history.unexplained().empty());
    }
}

TEST_CASE("What callers read can be explained, though calls are left and rows are locked") {
    TestSchema schema;
    asio::io_context context;
    auto options = schema.cache_options();
    options.timeout = 10s * slowness;
    AsyncPostgresCache cache(context.get_executor(), server_pool(4), options);
    AsyncPostgresCache other(context.get_executor(), server_pool(2), options);
    History history;
    std::atomic<std::int64_t> numbers = 0;
    const auto end = Clock::now() + 2s * slowness;
    // Another session locks rows now and then, for longer than a statement waits.
    std::thread locker([&] {
        Psql sql;
        std::mt19937 random(7);
        while (Clock::now() < end) {
            sql.exec("BEGIN; SELECT 1 FROM " + schema.table() + " WHERE key = 'key" +
                     std::to_string(random() % 4) + "' FOR UPDATE; SELECT pg_sleep(0.03); COMMIT");
            std::this_thread::sleep_for(10ms);
        }
    });
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto executor = co_await asio::this_coro::executor;
        std::vector<Started<void>> callers;
        for (unsigned i = 0; i < 12; ++i) {
            callers.push_back(start(executor, live(cache, history, i, numbers, end)));
        }
        // What other processes see of it.
        const auto watch = [&]() -> asio::awaitable<void> {
            for (unsigned i = 0; Clock::now() < end; ++i) {
                const std::string key = "key" + std::to_string(i % 4);
                const auto began = history.now();
                auto get = other.get_raw(key);
                const auto value = co_await std::move(get);
                history.read(key, value ? value->at("n").as_int64() : History::absent, began);
            }
        };
        callers.push_back(start(executor, watch()));
        co_await all(callers);
    });
    locker.join();
    CHECK(history.reads() >= 50);
    CHECK(history.unexplained() == Words{});
    CHECK(run_out(context));
}
