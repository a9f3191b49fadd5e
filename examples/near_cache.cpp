// Hot entries in the memory of the process, and another process that changes them.
//
// This program becomes two. One shows a price again and again and takes it from its own memory; the
// other one changes it, and the first hears of that from the database: by the triggers that
// TableOptions::notify makes, so that it would hear of a change by psql or by Python as well.
//
// The database is that of PSYCACHE_DSN.

#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>

#include <psycache/psycache.hpp>

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

psycache::PoolOptions pool_options() {
    psycache::PoolOptions options;
    if (const char* dsn = std::getenv("PSYCACHE_DSN")) {
        options.dsn = dsn;
    }
    return options;
}

const std::string key = "near cache example: price of 4711";

void expect(bool condition, const char* what) {
    if (!condition) {
        throw std::runtime_error(std::string("not as expected: ") + what);
    }
}

/// The other process.
void change_price() {
    psycache::PostgresCache cache(pool_options());
    cache.put_raw(key, json::object{{"cents", 1299}}, 1h);
}

asio::awaitable<void> pause(asio::steady_timer::duration duration) {
    asio::steady_timer timer(co_await asio::this_coro::executor);
    timer.expires_after(duration);
    co_await timer.async_wait(asio::use_awaitable);
}

asio::awaitable<void> show_price(psycache::AsyncPostgresCache cache, int start_other) {
    json::object price{{"cents", 999}};
    co_await cache.put_raw(key, std::move(price), 1h);

    // The first calls ask the server, and start the connection that listens. Once it does, what
    // they find is kept.
    for (int i = 0; i < 1000 && !cache.peek(key); ++i) {
        auto value = co_await cache.get_shared(key);
        expect(value && value->at("cents") == 999, "the price that was put");
        co_await pause(10ms);
    }
    expect(cache.peek(key) != nullptr, "a price in memory");
    const auto before = cache.statistics();
    for (int i = 0; i < 1000; ++i) {
        auto value = co_await cache.get_shared(key);
        expect(value != nullptr, "a price");
    }
    std::cout << "a thousand prices took " << cache.statistics().statements - before.statements
              << " statements\n";

    ::close(start_other);
    int cents = 999;
    for (int i = 0; i < 1000 && cents == 999; ++i) {
        auto value = co_await cache.get_shared(key);
        cents = static_cast<int>(value->at("cents").as_int64());
        co_await pause(10ms);
    }
    expect(cents == 1299, "what the other process has put");
    std::cout << "the other process has made it " << cents << " cents\n";
}

}  // namespace

int main() {
    // Before there is any thread or connection.
    int start[2];
    if (::pipe(start) != 0) {
        return 1;
    }
    const pid_t other = ::fork();
    if (other == 0) {
        ::close(start[1]);
        char nothing = 0;
        const auto end = ::read(start[0], &nothing, 1);  // until the first process closes it
        try {
            change_price();
        } catch (const std::exception& error) {
            std::cerr << error.what() << '\n';
            ::_exit(1);
        }
        ::_exit(end == 0 ? 0 : 1);
    }
    ::close(start[0]);
    try {
        psycache::TableOptions table;
        table.notify = true;
        psycache::init_db(pool_options().dsn, table);

        psycache::CacheOptions options;
        options.near_cache.emplace();
        options.near_cache->max_bytes = 16 << 20;
        options.near_cache->max_staleness = 1s;
        asio::io_context context;
        std::exception_ptr thrown;
        {
            psycache::AsyncPostgresCache cache(context.get_executor(), pool_options(), options);
            asio::co_spawn(context, show_price(cache, start[1]),
                           [&](std::exception_ptr error) { thrown = error; });
        }
        // Ends with the last handle: until then the connection that listens is work.
        context.run();
        if (thrown) {
            std::rethrow_exception(thrown);
        }
        int status = 0;
        ::waitpid(other, &status, 0);
        expect(status == 0, "the other process");
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
