// Writes of one key take effect in the order in which they were made, whether or not their callers
// wait for them.

#include <boost/asio/deferred.hpp>
#include <boost/asio/post.hpp>
#include <catch2/catch.hpp>
#include <string>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;

namespace {

/// @returns a value that takes a while to be stored.
json::object large_value() {
    return {{"text", std::string(2 << 20, 'x')}};
}

/// Starts a put of a large value and leaves it as soon as it was sent.
asio::awaitable<bool> put_and_leave(AsyncPostgresCache cache, std::string key) {
    auto executor = co_await asio::this_coro::executor;
    const auto statements = cache.statistics().statements;
    auto put = start(executor, cache.put_raw(std::move(key), large_value(), 1h));
    while (cache.statistics().statements == statements && !put.done()) {
        auto turn = asio::post(executor, asio::deferred);
        co_await std::move(turn);
    }
    put.cancel();
    auto ending = put.failure();
    const Failure failure = co_await std::move(ending);
    co_return failure.code() == asio::error::operation_aborted;
}

}  // namespace

TEST_CASE("What is stored after a put that was cancelled stays") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(4), schema.cache_options());
    run_coro(context, [&]() -> asio::awaitable<void> {
        int cancelled = 0;
        for (int round = 0; round < 10; ++round) {
            const std::string key = "stored" + std::to_string(round);
            auto left = put_and_leave(cache, key);
            cancelled += co_await std::move(left) ? 1 : 0;
            auto put = cache.put_raw(key, numbered(round), 1h);
            co_await std::move(put);
            co_await pause(20ms);
            auto get = cache.get_raw(key);
            const auto value = co_await std::move(get);
            const bool right = value == numbered(round);
            CHECK(right);
        }
        CHECK(cancelled == 10);
    });
    CHECK(run_out(context));
}

TEST_CASE("What is removed after a put that was cancelled stays removed") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(4), schema.cache_options());
    run_coro(context, [&]() -> asio::awaitable<void> {
        for (int round = 0; round < 10; ++round) {
            const std::string key = "removed" + std::to_string(round);
            auto left = put_and_leave(cache, key);
            co_await std::move(left);
            auto remove = cache.remove(key);
            co_await std::move(remove);
            co_await pause(20ms);
            auto get = cache.get_raw(key);
            const auto value = co_await std::move(get);
            const bool gone = !value.has_value();
            CHECK(gone);
        }
    });
    CHECK(run_out(context));
}
