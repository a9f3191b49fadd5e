// The example of the README, as a program. test/package/readme_test.sh compares the two.

#include <boost/asio.hpp>
#include <boost/json.hpp>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>

#include <psycache/psycache.hpp>

using namespace std::chrono_literals;

// [readme]
boost::asio::awaitable<void> greet(std::shared_ptr<psycache::ConnectionPool> pool) {
    co_await psycache::init_db(*pool);         // makes the table, unless it is there
    psycache::AsyncPostgresCache cache(pool);  // a cheap handle: copy it, share it

    boost::json::object value = {{"text", "Hello"}, {"to", {"Ada", "Grace"}}};
    co_await cache.put_raw("greeting", value, 10min);

    auto hit = co_await cache.get_raw("greeting");  // std::optional<boost::json::object>
    if (hit) {
        std::cout << *hit << '\n';
    }
}
// [readme]

int main() {
    const char* dsn = std::getenv("PSYCACHE_DSN");
    psycache::PoolOptions options;
    options.dsn = dsn != nullptr ? dsn : "";

    boost::asio::io_context context;
    auto pool = std::make_shared<psycache::ConnectionPool>(context.get_executor(), options);
    int result = EXIT_SUCCESS;
    boost::asio::co_spawn(context, greet(pool), [&](std::exception_ptr failure) {
        try {
            if (failure) {
                std::rethrow_exception(failure);
            }
        } catch (const std::exception& error) {
            std::cerr << error.what() << '\n';
            result = EXIT_FAILURE;
        }
    });
    context.run();
    return result;
}
