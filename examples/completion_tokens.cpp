// The same calls without co_await in the caller: callbacks, futures, and answers without
// exceptions.
//
// Every call of AsyncPostgresCache is a coroutine. asio::co_spawn starts it and takes any
// completion token of Asio; the token decides how the answer arrives.
//
// The database is that of PSYCACHE_DSN.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/json/object.hpp>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <future>
#include <iostream>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>

#include <psycache/psycache.hpp>

namespace asio = boost::asio;
namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

using Value = std::optional<json::object>;

void expect(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("not as expected: " + what);
    }
}

// use_future: for a thread that may block. Somebody else has to run the context meanwhile.
void with_futures(const asio::any_io_executor& executor, psycache::AsyncPostgresCache cache,
                  const std::string& key) {
    const json::object value = {{"asked with", "use_future"}};
    std::future<void> put =
        asio::co_spawn(executor, cache.put_raw(key, value, 1min), asio::use_future);
    put.get();  // throws what the call failed with

    std::future<Value> got = asio::co_spawn(executor, cache.get_raw(key), asio::use_future);
    expect(got.get() == value, "the future holds the value");
    std::cout << "use_future: a hit\n";
}

// A callback: called on the executor, with the exception (null if there was none) and the answer.
void with_a_callback(const asio::any_io_executor& executor, psycache::AsyncPostgresCache cache,
                     const std::string& key) {
    std::promise<bool> done;
    asio::co_spawn(executor, cache.get_raw(key + ":never put"),
                   [&done](std::exception_ptr failure, Value answer) {
                       if (failure) {
                           done.set_exception(failure);
                       } else {
                           done.set_value(answer.has_value());
                       }
                   });
    expect(!done.get_future().get(), "the callback is told of the miss");
    std::cout << "callback: a miss\n";
}

// as_tuple: a coroutine that wants to look at the error rather than catch it.
asio::awaitable<void> without_exceptions(psycache::AsyncPostgresCache cache) {
    const std::string no_text = "\xFF";  // keys are UTF-8
    auto executor = co_await asio::this_coro::executor;
    auto call = cache.get_raw(no_text);
    auto result =
        co_await asio::co_spawn(executor, std::move(call), asio::as_tuple(asio::use_awaitable));
    auto& [failure, answer] = result;
    expect(failure != nullptr && !answer, "an error instead of an answer");
    std::cout << "as_tuple: an error and no exception\n";
}

}  // namespace

int main() {
    try {
        psycache::PoolOptions options;
        if (const char* dsn = std::getenv("PSYCACHE_DSN")) {
            options.dsn = dsn;
        }
        psycache::init_db(options.dsn);

        asio::io_context context;
        auto work = asio::make_work_guard(context);
        std::thread thread([&context] { context.run(); });
        std::exception_ptr failure;
        try {
            psycache::AsyncPostgresCache cache(context.get_executor(), options);
            const std::string key = "completion_tokens:" + std::to_string(std::random_device{}());
            with_futures(context.get_executor(), cache, key);
            with_a_callback(context.get_executor(), cache, key);
            asio::co_spawn(context, without_exceptions(cache), asio::use_future).get();
        } catch (...) {
            failure = std::current_exception();
        }
        work.reset();
        thread.join();
        if (failure) {
            std::rethrow_exception(failure);
        }
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "completion_tokens: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
