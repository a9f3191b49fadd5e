// A program outside of the project. It needs no server: what it shows is that the headers are
// found, that the library links, and that exceptions and their types cross its border.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <iostream>
#include <stdexcept>
#include <string>
#include <string_view>

#include <psycache/psycache.hpp>

namespace asio = boost::asio;

namespace {

int failures = 0;

void expect(bool ok, std::string_view what) {
    if (!ok) {
        std::cerr << "failed: " << what << '\n';
        ++failures;
    }
}

// Inside the library: wraps the caller's coroutine around its own and throws through both.
asio::awaitable<void> refuse_a_key(psycache::AsyncPostgresCache cache) {
    try {
        co_await cache.get_raw(std::string("\0", 1));
        expect(false, "a key with NUL is refused");
    } catch (const psycache::Error& error) {
        expect(error.code() == psycache::Errc::invalid_key, "the code is invalid_key");
    }
}

}  // namespace

int main() {
    std::cout << psycache::init_db_sql();
    expect(psycache::init_db_sql().find("psycache") != std::string::npos, "SQL names the table");

    // Boost.JSON is part of the interface: the package has to bring it along.
    const boost::json::object value{{"answer", 42}};
    expect(boost::json::serialize(value) == R"({"answer":42})", "Boost.JSON links");

    asio::io_context context;
    psycache::CacheOptions options;
    options.schema = "";
    try {
        const psycache::AsyncPostgresCache cache(context.get_executor(), psycache::PoolOptions(),
                                                 options);
        expect(false, "an empty schema is refused");
    } catch (const std::invalid_argument& error) {
        expect(std::string_view(error.what()).find("schema") != std::string_view::npos,
               "the message names the field");
    }

    asio::co_spawn(
        context,
        refuse_a_key(psycache::AsyncPostgresCache(context.get_executor(), psycache::PoolOptions())),
        asio::detached);
    context.run();

    if (failures == 0) {
        std::cout << "psycache " << PSYCACHE_VERSION_MAJOR << '.' << PSYCACHE_VERSION_MINOR << '.'
                  << PSYCACHE_VERSION_PATCH << " works from outside\n";
    }
    return failures == 0 ? 0 : 1;
}
