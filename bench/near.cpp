// What it costs to find an entry in memory, and how often what is asked for is there:
// bench_near [times|ratios]. It looks inside of the library; no server is needed. bench_near calls
// makes the public calls beside a plain get, on the server of PSYCACHE_TEST_DSN or PSYCACHE_DSN,
// whose default schema must have the table.

#include <time.h>

#include <algorithm>
#include <barrier>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <boost/unordered/unordered_flat_map.hpp>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <limits>
#include <list>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include <psycache/psycache.hpp>

#include "core/key_hash.hpp"
#include "near/near_store.hpp"

namespace {

using psycache::detail::NearStore;
using psycache::detail::TimePoint;
using Clock = psycache::detail::Clock;
using Value = NearStore::Value;
using Trace = std::vector<std::uint32_t>;

constexpr std::size_t key_count = 100'000;

struct TextHash {
    using is_transparent = void;
    using is_avalanching = void;
    std::size_t operator()(std::string_view text) const noexcept {
        return std::hash<std::string_view>()(text);
    }
};

std::vector<std::string> make_keys(std::size_t count) {
    std::vector<std::string> keys;
    for (std::size_t i = 0; i < count; ++i) {
        keys.push_back("user:" + std::to_string(1'000'000 + i) + ":profile");
    }
    return keys;
}

Trace zipf(std::size_t length, double exponent, unsigned seed) {
    std::vector<double> sums;
    double sum = 0;
    for (std::size_t i = 1; i <= key_count; ++i) {
        sums.push_back(sum += std::pow(static_cast<double>(i), -exponent));
    }
    // So that what is asked for often does not lie side by side in memory.
    std::mt19937 dice(seed);
    Trace names(key_count);
    for (std::size_t i = 0; i < key_count; ++i) {
        names[i] = static_cast<std::uint32_t>(i);
    }
    std::shuffle(names.begin(), names.end(), std::mt19937(1));
    std::uniform_real_distribution<double> uniform(0, sum);
    Trace trace;
    for (std::size_t i = 0; i < length; ++i) {
        const auto place = std::lower_bound(sums.begin(), sums.end(), uniform(dice));
        trace.push_back(names[static_cast<std::size_t>(place - sums.begin()) % key_count]);
    }
    return trace;
}

/// Processor time, so that it does not matter what else runs on the machine.
double thread_nanoseconds() {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

/// @returns nanoseconds of one call by the slowest thread, in the best of several rounds.
template <class Find>
double measure(const std::vector<Trace>& traces, const Find& find) {
    constexpr int rounds = 15;
    double best = std::numeric_limits<double>::max();
    for (int round = 0; round < rounds; ++round) {
        std::vector<double> taken(traces.size());
        std::barrier together(static_cast<std::ptrdiff_t>(traces.size()));
        std::vector<std::thread> threads;
        for (std::size_t i = 0; i < traces.size(); ++i) {
            threads.emplace_back([&, i] {
                std::size_t misses = 0;
                together.arrive_and_wait();
                const double start = thread_nanoseconds();
                for (const std::uint32_t key : traces[i]) {
                    misses += find(key) ? 0 : 1;
                }
                taken[i] = (thread_nanoseconds() - start) / static_cast<double>(traces[i].size());
                if (misses > 0) {
                    std::printf("%zu misses\n", misses);
                }
            });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
        best = std::min(best, *std::max_element(taken.begin(), taken.end()));
    }
    return best;
}

void compare_times() {
    const auto keys = make_keys(key_count);
    NearStore store(std::size_t{256} << 20);
    boost::unordered_flat_map<std::string, Value, TextHash, std::equal_to<>> bare;
    std::unordered_map<std::string, Value, TextHash, std::equal_to<>> shared;
    std::shared_mutex mutex;
    for (std::size_t i = 0; i < keys.size(); ++i) {
        const Value value = std::make_shared<const boost::json::value>(
            boost::json::object{{"id", i}, {"name", "somebody"}});
        store.fill(store.mark(keys[i]), keys[i], value, TimePoint::max(), TimePoint::max());
        bare.emplace(keys[i], value);
        shared.emplace(keys[i], value);
    }
    const TimePoint now = Clock::now();
    const auto near_find = [&](std::uint32_t key) {
        return store.find(keys[key], now).value != nullptr;
    };
    const auto near_peek = [&](std::uint32_t key) {
        return store.find(keys[key], Clock::now()).value != nullptr;
    };
    const auto bare_find = [&](std::uint32_t key) {
        const auto place = bare.find(std::string_view(keys[key]));
        const Value value = place == bare.end() ? nullptr : place->second;
        return value != nullptr;
    };
    const auto shared_find = [&](std::uint32_t key) {
        const std::shared_lock lock(mutex);
        const auto place = shared.find(std::string_view(keys[key]));
        const Value value = place == shared.end() ? nullptr : place->second;
        return value != nullptr;
    };
    const auto hash_only = [&](std::uint32_t key) {
        return psycache::detail::key_hash(keys[key]) != 0;
    };

    constexpr std::size_t length = 200'000;
    struct Row {
        const char* name;
        std::vector<Trace> traces;
    };
    for (const Row& row : {
             Row{"one hot key, 1 thread", {Trace(length, 7)}},
             Row{"one hot key, 2 threads", {Trace(length, 7), Trace(length, 7)}},
             Row{"1,000 keys in turn, 1 thread", {[] {
                     Trace trace(length);
                     for (std::size_t i = 0; i < length; ++i) {
                         trace[i] = static_cast<std::uint32_t>(i * 7 % 1000);
                     }
                     return trace;
                 }()}},
             Row{"Zipf 1.0, 1 thread", {zipf(length, 1.0, 1)}},
             Row{"Zipf 1.0, 2 threads", {zipf(length, 1.0, 1), zipf(length, 1.0, 2)}},
             Row{"Zipf 0.8, 1 thread", {zipf(length, 0.8, 1)}},
         }) {
        std::printf("%-29s ns: find %5.1f  with the clock %5.1f  (hash alone %4.1f)", row.name,
                    measure(row.traces, near_find), measure(row.traces, near_peek),
                    measure(row.traces, hash_only));
        if (row.traces.size() == 1) {
            std::printf("  map without a lock %5.1f", measure(row.traces, bare_find));
        }
        std::printf("  map with a shared_mutex %5.1f\n", measure(row.traces, shared_find));
        std::fflush(stdout);
    }
}

double share(std::size_t hits, const Trace& trace) {
    return 100.0 * static_cast<double>(hits) / static_cast<double>(trace.size());
}

double lru(const Trace& trace, std::size_t capacity) {
    std::list<std::uint32_t> order;
    boost::unordered_flat_map<std::uint32_t, std::list<std::uint32_t>::iterator> places;
    std::size_t hits = 0;
    for (const std::uint32_t key : trace) {
        const auto place = places.find(key);
        if (place != places.end()) {
            ++hits;
            order.splice(order.begin(), order, place->second);
            continue;
        }
        if (order.size() == capacity) {
            places.erase(order.back());
            order.pop_back();
        }
        order.push_front(key);
        places.emplace(key, order.begin());
    }
    return share(hits, trace);
}

/// Evicts what is wanted again last: nothing can do better.
double optimum(const Trace& trace, std::size_t capacity) {
    boost::unordered_flat_map<std::uint32_t, std::size_t> seen;
    std::vector<std::size_t> next(trace.size());
    for (std::size_t i = trace.size(); i-- > 0;) {
        const auto place = seen.find(trace[i]);
        next[i] = place == seen.end() ? trace.size() + i : place->second;
        seen[trace[i]] = i;
    }
    std::set<std::pair<std::size_t, std::uint32_t>> kept;
    std::size_t hits = 0;
    for (std::size_t i = 0; i < trace.size(); ++i) {
        if (kept.erase({i, trace[i]}) > 0) {
            ++hits;
        }
        kept.insert({next[i], trace[i]});
        if (kept.size() > capacity) {
            kept.erase(std::prev(kept.end()));
        }
    }
    return share(hits, trace);
}

/// @returns the hit ratio of the store, and how many entries it had room for.
std::pair<double, std::size_t> sieve(const Trace& trace, const std::vector<std::string>& keys,
                                     std::size_t max_bytes) {
    NearStore store(max_bytes);
    const TimePoint now = Clock::now();
    const Value value = std::make_shared<const boost::json::value>();
    std::size_t most = 0;
    for (std::size_t i = 0; i < trace.size(); ++i) {
        const std::string& key = keys[trace[i]];
        if (!store.find(key, now).value) {
            store.fill(store.mark(key), key, value, TimePoint::max(), TimePoint::max());
        }
        if (i % 1000 == 0) {
            most = std::max(most, store.statistics().entries);
        }
    }
    return {share(store.statistics().hits, trace), most};
}

void compare_ratios() {
    constexpr std::size_t length = 500'000;
    constexpr std::size_t entry_bytes = 190;
    const auto keys = make_keys(key_count + length);
    struct Row {
        const char* name;
        Trace trace;
    };
    // A scan after each 20,000 calls: 5,000 keys that nobody asks for again.
    const Trace plain = zipf(length * 4 / 5, 1.0, 3);
    Trace polluted;
    auto scanned = static_cast<std::uint32_t>(key_count);
    for (std::size_t i = 0; i < plain.size(); ++i) {
        polluted.push_back(plain[i]);
        if (i % 20'000 == 19'999) {
            for (int j = 0; j < 5000; ++j) {
                polluted.push_back(scanned++);
            }
        }
    }
    for (const Row& row :
         {Row{"Zipf 0.8", zipf(length, 0.8, 3)}, Row{"Zipf 1.0", zipf(length, 1.0, 3)},
          Row{"Zipf 1.0 with scans", polluted}}) {
        for (const std::size_t percent : {std::size_t{1}, std::size_t{10}}) {
            const auto [ratio, entries] =
                sieve(row.trace, keys, key_count * percent / 100 * entry_bytes);
            std::printf("%-20s %6zu entries: hits in %%: SIEVE %5.2f  LRU %5.2f  optimum %5.2f\n",
                        row.name, entries, ratio, lru(row.trace, entries),
                        optimum(row.trace, entries));
            std::fflush(stdout);
        }
    }
}

/// @returns the nanoseconds of one call of @p call, at best.
template <class Call>
double best_of(unsigned threads, std::size_t calls, const Call& call) {
    double best = std::numeric_limits<double>::max();
    for (int round = 0; round < 9; ++round) {
        std::barrier start(static_cast<std::ptrdiff_t>(threads) + 1);
        std::vector<std::thread> running;
        for (unsigned i = 0; i < threads; ++i) {
            running.emplace_back([&] {
                start.arrive_and_wait();
                for (std::size_t j = 0; j < calls; ++j) {
                    call();
                }
            });
        }
        start.arrive_and_wait();
        const auto since = Clock::now();
        for (auto& thread : running) {
            thread.join();
        }
        const std::chrono::duration<double, std::nano> took = Clock::now() - since;
        best = std::min(best, took.count() / static_cast<double>(calls));
    }
    return best;
}

void compare_calls() {
    psycache::PoolOptions pool;
    for (const char* name : {"PSYCACHE_DSN", "PSYCACHE_TEST_DSN"}) {
        if (const char* dsn = std::getenv(name)) {
            pool.dsn = dsn;
        }
    }
    psycache::CacheOptions options;
    options.near_cache.emplace();
    options.near_cache->invalidation = psycache::Invalidation::none;
    options.near_cache->max_age = std::chrono::hours(1);
    const std::string key = "bench_near";
    psycache::PostgresCache blocking(pool, options);
    blocking.put_raw(key, {{"text", std::string(200, 'x')}}, std::chrono::hours(1));
    blocking.get_shared(key);
    boost::asio::io_context context(1);
    psycache::AsyncPostgresCache cache(context.get_executor(), pool, options);
    const auto run = [&](std::size_t calls, auto call) {
        double nanoseconds = 0;
        boost::asio::co_spawn(
            context,
            [&, calls]() -> boost::asio::awaitable<void> {
                double best = std::numeric_limits<double>::max();
                for (int round = 0; round < 9; ++round) {
                    const auto since = Clock::now();
                    for (std::size_t i = 0; i < calls; ++i) {
                        auto called = call();
                        co_await std::move(called);
                    }
                    const std::chrono::duration<double, std::nano> took = Clock::now() - since;
                    best = std::min(best, took.count() / static_cast<double>(calls));
                }
                nanoseconds = best;
            },
            boost::asio::detached);
        context.run();
        context.restart();
        return nanoseconds;
    };
    run(1, [&] { return cache.get_shared(key); });
    for (const unsigned threads : {1u, 2u}) {
        std::printf("%u threads: peek %.0f ns, get_shared of PostgresCache %.0f ns\n", threads,
                    best_of(threads, 500'000, [&] { return blocking.peek(key); }),
                    best_of(threads, 500'000, [&] { return blocking.get_shared(key); }));
    }
    std::printf("awaited: get_shared %.0f ns, get_raw %.0f ns\n",
                run(200'000, [&] { return cache.get_shared(key); }),
                run(2'000, [&] { return cache.get_raw(key); }));
    blocking.remove(key);
}

}  // namespace

int main(int argc, char** argv) {
    const std::string_view what = argc > 1 ? argv[1] : "";
    if (argc > 2 || (!what.empty() && what != "times" && what != "ratios" && what != "calls")) {
        std::fprintf(stderr, "bench_near [times|ratios|calls]\n");
        return 2;
    }
    if (what == "calls") {
        compare_calls();
        return 0;
    }
    if (what != "ratios") {
        compare_times();
    }
    if (what != "times") {
        compare_ratios();
    }
    return 0;
}
