// What a call of very many keys costs those beside it: how long the event loop stands still, and
// how much memory it takes. Run by hand: test/support/with_postgres bench_bulk [KEYS] [CHARACTERS]

#include <libpq-fe.h>

#include <algorithm>
#include <any>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

#include <psycache/async_postgres_cache.hpp>
#include <psycache/table.hpp>

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

namespace {

double milliseconds(Clock::duration duration) {
    return std::chrono::duration<double, std::milli>(duration).count();
}

/// @returns what this thread has worked so far: on a busy machine a look at the clock also counts
/// how long others have had the processor.
Clock::duration worked() {
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

/// @returns a line of /proc/self/status in MB.
double memory(const char* what) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with(what)) {
            return std::strtod(line.c_str() + std::strlen(what) + 1, nullptr) / 1024;
        }
    }
    return 0;
}

/// Runs an operation beside a coroutine that looks at the clock in every turn of the event loop.
template <class T>
void measure(const char* name, asio::io_context& context, asio::awaitable<T> operation) {
    bool done = false;
    std::exception_ptr thrown;
    Clock::duration longest{0};
    Clock::duration most_worked{0};
    std::ofstream("/proc/self/clear_refs") << "5";  // the peak begins anew
    const double before = memory("VmRSS");
    const auto began = Clock::now();
    double peak = 0;
    std::any kept;  // what its end costs is for its owner to say
    auto ended = [&](std::exception_ptr error, auto... result) {
        thrown = error;
        ((kept = std::move(result)), ...);
        peak = memory("VmHWM");
        done = true;
    };
    auto ticker = [&]() -> asio::awaitable<void> {
        const auto executor = co_await asio::this_coro::executor;
        auto worked_before = worked();
        auto since = Clock::now();
        while (!done) {
            auto turn = asio::post(executor, asio::deferred);
            co_await std::move(turn);
            const auto now = Clock::now();
            longest = std::max(longest, now - since);
            since = now;
            const auto worked_now = worked();
            most_worked = std::max(most_worked, worked_now - worked_before);
            worked_before = worked_now;
        }
    };
    asio::co_spawn(context, ticker, [](std::exception_ptr) {});
    asio::co_spawn(context, std::move(operation), ended);
    context.restart();
    context.run();
    if (thrown) {
        std::rethrow_exception(thrown);
    }
    std::printf(
        "%-12s %8.0f ms   longest stall %7.1f ms (%7.1f ms of work)   peak %7.1f MB above %.1f "
        "MB\n",
        name, milliseconds(Clock::now() - began), milliseconds(longest), milliseconds(most_worked),
        peak - before, before);
}

}  // namespace

int main(int argc, char** argv) try {
    const std::size_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1'000'000;
    const std::size_t characters = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 20;
    psycache::PoolOptions pool;
    pool.dsn = std::getenv("PSYCACHE_TEST_DSN");
    psycache::init_db(pool.dsn);
    asio::io_context context;
    psycache::CacheOptions options;
    options.timeout = std::chrono::minutes(10);
    psycache::AsyncPostgresCache cache(context.get_executor(), pool, options);

    std::vector<std::string> keys;
    for (std::size_t i = 0; i < count; ++i) {
        keys.push_back("a-key-of-usual-length-" + std::to_string(i));
    }
    measure("get absent", context, cache.get_raw_many(keys));
    {
        std::vector<psycache::Entry> entries;
        boost::json::object value;
        value["text"] = std::string(characters, 'x');
        for (const auto& key : keys) {
            entries.emplace_back(key, value, std::chrono::hours(1));
        }
        measure("put", context, cache.put_raw_many(std::move(entries)));
    }
    // Else the server chooses its plans for an empty table.
    PGconn* connection = PQconnectdb(pool.dsn.c_str());
    PQclear(PQexec(connection, "ANALYZE"));
    PQfinish(connection);
    measure("get", context, cache.get_raw_many(keys));
    measure("remove", context, cache.remove_many(keys));
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "bench_bulk: %s\n", error.what());
    return 1;
}
