// The quickstart: a coroutine that makes the cache's table, stores JSON in it and reads it back.
//
//     PSYCACHE_DSN=postgresql:///app example_quickstart
//
// An empty DSN means what it means to psql: PGHOST, PGDATABASE ... and the service file.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>

#include <psycache/psycache.hpp>

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

/// The examples are tests as well: what is not as expected ends the program with an error.
void expect(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("not as expected: " + what);
    }
}

asio::awaitable<void> sleep_for(std::chrono::milliseconds time) {
    auto executor = co_await asio::this_coro::executor;
    asio::steady_timer timer(executor, time);
    co_await timer.async_wait(asio::use_awaitable);
}

asio::awaitable<void> quickstart(std::shared_ptr<psycache::ConnectionPool> pool) {
    // Once per database: safe to repeat, and safe when many processes do it at the same moment.
    co_await psycache::init_db(*pool);
    std::cout << "The table is there.\n";

    // A cache is a cheap handle. Copy it, keep it, use it from any thread.
    psycache::AsyncPostgresCache cache(pool);

    // Keys of this run only, so that it always begins with a miss.
    const std::string run = std::to_string(std::random_device{}());
    const std::string user_key = "quickstart:user:" + run;
    const std::string session_key = "quickstart:session:" + run;

    // A miss is no error: it is an empty optional.
    auto user = co_await cache.get_raw(user_key);
    std::cout << "user before the put: " << (user ? "a hit" : "a miss") << '\n';
    expect(!user, "a miss before the first put");

    // Values are JSON objects. This entry lives for ten minutes, by the server's clock.
    json::object value = {{"name", "Ada"}, {"languages", {"en", "fr"}}, {"logins", 7}};
    co_await cache.put_raw(user_key, value, 10min);
    user = co_await cache.get_raw(user_key);
    expect(user == value, "the value that was put");
    std::cout << "user after the put:  " << json::serialize(*user) << '\n';

    // What has expired is a miss, whether or not it has been cleaned up yet.
    json::object token = {{"token", "f3a9"}};
    co_await cache.put_raw(session_key, token, 100ms);
    co_await sleep_for(200ms);
    auto session = co_await cache.get_raw(session_key);
    std::cout << "session, 200 ms after a put for 100 ms: " << (session ? "a hit" : "a miss")
              << '\n';
    expect(!session, "a miss after the expiry");

    // An entry can be taken away before it expires; the answer tells whether it was there.
    const bool removed = co_await cache.remove(user_key);
    std::cout << "removed the user: " << std::boolalpha << removed << '\n';
    expect(removed, "the entry was there to be removed");

    const auto counted = cache.statistics();
    std::cout << "All in all " << counted.hits << " hit, " << counted.misses << " misses, "
              << counted.puts << " puts.\n";
}

}  // namespace

int main() {
    try {
        psycache::PoolOptions options;
        if (const char* dsn = std::getenv("PSYCACHE_DSN")) {
            options.dsn = dsn;
        }

        asio::io_context context;
        auto pool = std::make_shared<psycache::ConnectionPool>(context.get_executor(), options);

        // run() returns when the coroutine has ended: an idle pool is no outstanding work.
        std::exception_ptr failure;
        asio::co_spawn(context, quickstart(pool), [&](std::exception_ptr e) { failure = e; });
        context.run();
        if (failure) {
            std::rethrow_exception(failure);
        }
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "quickstart: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
