// Blocking code, as it is found in programs that were not written for coroutines: several threads
// share one PostgresCache, and a thread of the library's own cleans up behind them.
//
// The database is that of PSYCACHE_DSN.

#include <atomic>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <psycache/psycache.hpp>

namespace json = boost::json;
using namespace std::chrono_literals;

namespace {

void expect(bool condition, const std::string& what) {
    if (!condition) {
        throw std::runtime_error("not as expected: " + what);
    }
}

/// A price list that takes a while to compute, and may be a minute old.
class PriceList {
  public:
    explicit PriceList(psycache::PostgresCache& cache)
        : cache_(cache), run_(std::to_string(std::random_device{}())) {}

    json::object prices(int country) {
        const std::string key = "blocking:prices:" + run_ + ":" + std::to_string(country);
        // "prices" is the name under which metrics and traces will know this place.
        if (auto cached = cache_.get_raw(key, "prices")) {
            return *cached;
        }
        json::object computed = compute(country);
        cache_.put_raw(key, computed, 1min, "prices");
        return computed;
    }

    int computed() const { return computed_; }

  private:
    json::object compute(int country) {
        ++computed_;
        std::this_thread::sleep_for(20ms);
        return {{"country", country}, {"prices", {9.99, 19.99, 99.99}}};
    }

    psycache::PostgresCache& cache_;
    const std::string run_;  // keys of this run only
    std::atomic<int> computed_ = 0;
};

void blocking(const std::string& dsn) {
    psycache::init_db(dsn);

    psycache::PoolOptions options;
    options.dsn = dsn;
    options.max_size = 4;  // four calls at the same time; the fifth thread waits for its turn
    psycache::PostgresCache cache(options);

    // Expired entries are never answered, cleaned up or not. This frees their room, at once and
    // then every five minutes, until `cleanup` is destroyed or told to stop.
    psycache::CleanupService cleanup = cache.start_cleanup_thread(5min);

    // One cache for all threads.
    constexpr int countries = 5;
    constexpr int thread_count = 8;
    constexpr int rounds = 25;
    PriceList list(cache);
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < thread_count; ++i) {
        threads.emplace_back([&list, &wrong, i] {
            try {
                for (int round = 0; round < rounds; ++round) {
                    const int country = (i + round) % countries;
                    if (list.prices(country).at("country") != country) {
                        ++wrong;
                    }
                }
            } catch (const psycache::Error& error) {
                // what() names the operation, the cause and the remedy, and no key and no value.
                std::cerr << "a thread ended early: " << error.what() << '\n';
                ++wrong;
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }

    const auto counted = cache.statistics();
    std::cout << thread_count * rounds << " price lists were wanted, " << list.computed()
              << " computed; " << counted.hits << " hits, " << counted.misses << " misses\n";
    expect(wrong == 0, "every thread gets the right prices");
    expect(list.computed() < thread_count * rounds / 2, "most of them come from the cache");

    // A wrong argument is found before anything is sent, and has a code of its own.
    try {
        cache.put_raw("blocking:zero", {{"text", json::string("\0", 1)}}, 1min);
        expect(false, "JSONB cannot hold NUL");
    } catch (const psycache::Error& error) {
        expect(error.code() == psycache::Errc::invalid_value, "Errc::invalid_value");
        expect(error.code() == psycache::Condition::caller_mistake, "Condition::caller_mistake");
        std::cout << "refused, as it must be: " << error.what() << '\n';
    }

    expect(cleanup.stop(), "the cleanup thread ends within five seconds");
}

}  // namespace

int main() {
    try {
        const char* dsn = std::getenv("PSYCACHE_DSN");
        blocking(dsn != nullptr ? dsn : "");
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "blocking: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
