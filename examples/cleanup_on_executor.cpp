// Cleaning up on an executor that the program has already: first the bare loop, stopped through its
// cancellation slot like any other coroutine; then the same loop behind a handle.
//
// Expired entries are never answered, cleaned up or not. Cleaning up gives their room back.
//
// The database is that of PSYCACHE_DSN.

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <psycache/psycache.hpp>

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

void expect(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("not as expected: " + what);
    }
}

/// Tells how many runs have ended well. This is what metrics would be built on.
class CountRuns : public psycache::CacheInstrumentation {
  public:
    std::unique_ptr<psycache::CacheCleanupSpan> start_cache_cleanup_span() override {
        return std::make_unique<Span>(*this);
    }

    int runs() const { return runs_; }

  private:
    class Span : public psycache::CacheCleanupSpan {
      public:
        explicit Span(CountRuns& counter) : counter_(counter) {}
        void record_cleanup(std::uint64_t /*entries*/) override { ++counter_.runs_; }

      private:
        CountRuns& counter_;
    };

    std::atomic<int> runs_ = 0;
};

/// @returns whether so many runs were counted within 30 seconds.
asio::awaitable<bool> wait_for_runs(std::shared_ptr<CountRuns> counter, int wanted) {
    auto executor = co_await asio::this_coro::executor;
    asio::steady_timer timer(executor);
    const auto deadline = std::chrono::steady_clock::now() + 30s;
    while (counter->runs() < wanted && std::chrono::steady_clock::now() < deadline) {
        timer.expires_after(5ms);
        co_await timer.async_wait(asio::use_awaitable);
    }
    co_return counter->runs() >= wanted;
}

asio::awaitable<void> put_expired(psycache::AsyncPostgresCache cache, std::string key) {
    boost::json::object value = {{"state", "expired"}};
    co_await cache.put_raw(std::move(key), value, -1s);
}

/// What stops the bare loop, and how it ended.
struct Loop {
    explicit Loop(asio::any_io_executor executor)
        : ended(executor, asio::steady_timer::time_point::max()) {}

    asio::cancellation_signal stop;
    asio::steady_timer ended;  // expires when the loop has ended
    boost::system::error_code reason;
};

// The loop is a coroutine like any other: spawn it where you like, stop it by its slot.
asio::awaitable<void> bare_loop(psycache::AsyncPostgresCache cache,
                                std::shared_ptr<CountRuns> counter, std::string key) {
    co_await put_expired(cache, key);

    auto executor = co_await asio::this_coro::executor;
    auto loop = std::make_shared<Loop>(executor);
    auto on_end = [loop](std::exception_ptr failure) {
        try {
            std::rethrow_exception(failure);  // it ends by cancellation only, so there is one
        } catch (const boost::system::system_error& error) {
            loop->reason = error.code();
        }
        loop->ended.expires_at(asio::steady_timer::time_point::min());
    };
    // The loop is spawned on the strand that this coroutine runs on: a signal must not be emitted
    // while the coroutine behind its slot is running on another thread.
    asio::co_spawn(executor, cache.run_cleanup(50ms),
                   asio::bind_cancellation_slot(loop->stop.slot(), on_end));

    const bool ran = co_await wait_for_runs(counter, 2);  // one at once, one after the interval
    loop->stop.emit(asio::cancellation_type::terminal);
    boost::system::error_code ignored;
    co_await loop->ended.async_wait(asio::redirect_error(asio::use_awaitable, ignored));

    expect(ran, "two runs of the bare loop");
    expect(loop->reason == asio::error::operation_aborted, "the loop ends as cancelled");
    const bool was_there = co_await cache.remove(key);
    expect(!was_there, "the expired entry was cleaned up");
    std::cout << "the bare loop ran " << counter->runs() << " times\n";
}

// The same behind a handle, which waits for the running batch when it stops.
asio::awaitable<void> with_a_handle(psycache::AsyncPostgresCache cache,
                                    std::shared_ptr<CountRuns> counter, std::string key) {
    co_await put_expired(cache, key);

    const int before = counter->runs();
    auto executor = co_await asio::this_coro::executor;
    psycache::AsyncCleanupService service = cache.start_cleanup_task(executor, 50ms);
    const bool ran = co_await wait_for_runs(counter, before + 2);
    const bool ended = co_await service.stop();

    expect(ran, "two runs of the task");
    expect(ended, "the task ends within five seconds");
    const bool was_there = co_await cache.remove(key);
    expect(!was_there, "the expired entry was cleaned up");
    std::cout << "the task ran " << counter->runs() - before << " times\n";
}

asio::awaitable<void> both(psycache::AsyncPostgresCache cache, std::shared_ptr<CountRuns> counter) {
    const std::string run = std::to_string(std::random_device{}());
    co_await bare_loop(cache, counter, "cleanup_on_executor:bare:" + run);
    co_await with_a_handle(cache, counter, "cleanup_on_executor:handle:" + run);
}

}  // namespace

int main() {
    try {
        psycache::PoolOptions pool_options;
        if (const char* dsn = std::getenv("PSYCACHE_DSN")) {
            pool_options.dsn = dsn;
        }
        psycache::init_db(pool_options.dsn);

        auto counter = std::make_shared<CountRuns>();
        psycache::CacheOptions options;
        options.instrumentations.push_back(counter);
        options.log = [](psycache::LogLevel, std::string_view line) {
            std::cerr << line << '\n';  // a run that failed says so here; the loop goes on
        };

        asio::io_context context;
        psycache::AsyncPostgresCache cache(context.get_executor(), pool_options, options);
        std::exception_ptr failure;
        asio::co_spawn(asio::make_strand(context), both(cache, counter),
                       [&](std::exception_ptr e) { failure = e; });
        context.run();
        if (failure) {
            std::rethrow_exception(failure);
        }
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "cleanup_on_executor: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
