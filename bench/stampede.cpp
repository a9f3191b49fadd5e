// What a stampede of callers costs those who compute the values. Callers in many processes want the
// values of few keys, some of them much more often than others; a value lives shortly and takes
// long to compute. Prints a line of JSON; bench/run stampede compares the ways.
//
// bench_stampede by_hand|get_or_create [--OPTION NUMBER...] [--schema NAME], on the server of
// PSYCACHE_TEST_DSN or PSYCACHE_DSN, where the table is there already.

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_from.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <new>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <psycache/async_postgres_cache.hpp>

#include "calls/measure.hpp"
#include "numbers.hpp"

namespace bench {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
using std::chrono::milliseconds;

constexpr std::size_t most_processes = 64;
constexpr std::size_t most_keys = 10'000;
constexpr std::size_t hot_keys = 10;
constexpr milliseconds window{100};
constexpr std::size_t most_windows = 600;

struct Options {
    bool by_hand = false;
    std::string schema = "public";
    unsigned processes = 8;
    unsigned callers = 1000;
    unsigned keys = 1000;
    unsigned think = 2000;
    unsigned ttl = 1000;
    unsigned load = 50;
    unsigned stale = 0;
    unsigned early = 100;
    unsigned warm_up = 2000;
    unsigned measured = 5000;
};

constexpr Number<Options> numbers[] = {
    {"--processes", &Options::processes, 1, most_processes, "that have a cache each"},
    {"--callers", &Options::callers, 1, 16'384, "coroutines of each process"},
    {"--keys", &Options::keys, 1, most_keys, "the n-th is wanted 1/n times as often as the first"},
    {"--think", &Options::think, 1, 60'000, "ms between two requests of a caller, on average"},
    {"--ttl", &Options::ttl, 1, 60'000, "ms that a value is fresh"},
    {"--load", &Options::load, 0, 60'000, "ms that computing a value takes"},
    {"--stale", &Options::stale, 0, 60'000, "ms of CreateOptions::stale_for"},
    {"--early", &Options::early, 0, 1000, "hundredths of CreateOptions::early"},
    {"--warm-up", &Options::warm_up, 0, 60'000, "ms before anything is counted"},
    {"--measured", &Options::measured, 1, 60'000, "ms in which it is"},
};

Options options_of(std::span<char* const> words) {
    const std::string_view way = words.empty() ? "" : words[0];
    if (way != "by_hand" && way != "get_or_create") {
        throw Usage("the first argument is by_hand or get_or_create");
    }
    Options options;
    options.by_hand = way == "by_hand";
    take_numbers(numbers, words.subspan(1), options,
                 [&](std::string_view name, std::string_view text) {
                     options.schema = text;
                     return name == "--schema" && !text.empty();
                 });
    if (options.by_hand && options.stale > 0) {
        throw Usage("--stale is for get_or_create: what is put by hand is never stale");
    }
    return options;
}

/// What all processes know about a key.
struct SharedKey {
    std::atomic<int> loading{0};
    std::atomic<Clock::rep> loaded_at{0};
};
static_assert(std::atomic<Clock::rep>::is_always_lock_free, "others do not work between processes");

/// What one process has counted while it was measured. Its own until it has ended.
struct Tally {
    Histogram latencies;
    std::uint64_t loads = 0;
    std::uint64_t hot_loads = 0;
    std::uint64_t overlapping = 0;  // begun while the key was loaded already, by any process
    std::uint64_t soon = 0;         // begun less than half a ttl after the last one had ended
    std::uint64_t late = 0;         // not stored, since somebody else had changed the entry
    std::uint64_t statements = 0;
    double cpu_seconds = 0;
    std::array<std::uint32_t, most_windows> windows{};
};

struct Shared {
    std::array<SharedKey, most_keys> keys;
    std::array<Tally, most_processes> tallies;
};

class Process {
  public:
    Process(const Options& options, Shared& shared, unsigned number, Clock::time_point from)
        : options_(options),
          shared_(shared),
          tally_(shared.tallies.at(number)),
          from_(from),
          until_(from + milliseconds(options.measured)),
          dice_(number + 1),
          think_(0, 2000 * options.think) {
        std::vector<double> weights;
        for (unsigned n = 1; n <= options.keys; ++n) {
            weights.push_back(1.0 / n);
        }
        key_ = std::discrete_distribution<std::size_t>(weights.begin(), weights.end());
    }

    void run(const std::string& dsn) {
        psycache::PoolOptions pool;
        pool.dsn = dsn;
        psycache::CacheOptions cache_options;
        cache_options.schema = options_.schema;
        asio::io_context context;
        const psycache::AsyncPostgresCache cache(context.get_executor(), pool, cache_options);
        const auto ended = [](std::exception_ptr error) {
            if (error) {
                std::rethrow_exception(error);
            }
        };
        asio::co_spawn(context, watch(cache), ended);
        for (unsigned caller = 0; caller < options_.callers; ++caller) {
            asio::co_spawn(context, call(cache), ended);
        }
        context.run();
    }

  private:
    /// Counts a load from its beginning to its end, however it ends.
    class Load {
      public:
        Load(Process& process, std::size_t number)
            : key_(process.shared_.keys.at(number)), overlaps_(key_.loading.fetch_add(1) > 0) {
            const auto now = Clock::now();
            if (!process.measures(now)) {
                return;
            }
            const Clock::time_point loaded{Clock::duration(key_.loaded_at.load())};
            Tally& tally = process.tally_;
            ++tally.loads;
            tally.hot_loads += number < hot_keys ? 1 : 0;
            tally.overlapping += overlaps_ ? 1 : 0;
            tally.soon += now - loaded < milliseconds(process.options_.ttl) / 2 ? 1 : 0;
            ++tally.windows.at(static_cast<std::size_t>((now - process.from_) / window));
        }
        ~Load() {
            key_.loaded_at = Clock::now().time_since_epoch().count();
            --key_.loading;
        }
        Load(const Load&) = delete;
        Load& operator=(const Load&) = delete;

      private:
        SharedKey& key_;
        const bool overlaps_;
    };

    bool measures(Clock::time_point time) const { return time >= from_ && time < until_; }

    static asio::awaitable<void> sleep_until(Clock::time_point time) {
        asio::steady_timer timer(co_await asio::this_coro::executor, time);
        auto wait = timer.async_wait(asio::deferred);
        co_await std::move(wait);
    }

    asio::awaitable<json::object> compute(std::size_t number) {
        const Load load(*this, number);
        auto sleep = sleep_until(Clock::now() + milliseconds(options_.load));
        co_await std::move(sleep);
        co_return json::object{{"number", number}, {"text", std::string(180, 'x')}};
    }

    asio::awaitable<json::object> by_hand(psycache::AsyncPostgresCache cache, std::size_t number) {
        const std::string key = name_of(number);
        auto get = cache.get_raw(key);
        std::optional<json::object> value = co_await std::move(get);
        if (!value) {
            auto computing = compute(number);
            value = co_await std::move(computing);
            auto put = cache.put_raw(key, *value, milliseconds(options_.ttl));
            co_await std::move(put);
        }
        co_return std::move(*value);
    }

    asio::awaitable<json::object> created(psycache::AsyncPostgresCache cache, std::size_t number) {
        psycache::CreateOptions create(milliseconds(options_.ttl));
        create.stale_for = milliseconds(options_.stale);
        create.early = options_.early / 100.0;
        auto value = cache.get_or_create<json::object>(name_of(number), create,
                                                       [this, number] { return compute(number); });
        co_return co_await std::move(value);
    }

    asio::awaitable<void> call(psycache::AsyncPostgresCache cache) {
        while (true) {
            // From when the value is wanted, not from when a busy process comes to it.
            const auto wanted = Clock::now() + std::chrono::microseconds(think_(dice_));
            auto think = sleep_until(std::min(wanted, until_));
            co_await std::move(think);
            if (wanted >= until_) {
                co_return;
            }
            const std::size_t number = key_(dice_);
            auto request = options_.by_hand ? by_hand(cache, number) : created(cache, number);
            const json::object value = co_await std::move(request);
            check(value.at("number") == number, "the value of another key");
            if (measures(wanted)) {
                tally_.latencies.record(Clock::now() - wanted);
            }
        }
    }

    asio::awaitable<void> watch(psycache::AsyncPostgresCache cache) {
        auto begin = sleep_until(from_);
        co_await std::move(begin);
        const auto before = cache.statistics();
        const std::clock_t cpu_before = std::clock();
        auto end = sleep_until(until_);
        co_await std::move(end);
        const auto after = cache.statistics();
        tally_.statements = after.statements - before.statements;
        tally_.late = after.late_loads - before.late_loads;
        tally_.cpu_seconds = static_cast<double>(std::clock() - cpu_before) / CLOCKS_PER_SEC;
    }

    static std::string name_of(std::size_t number) { return "stampede:" + std::to_string(number); }

    const Options& options_;
    Shared& shared_;
    Tally& tally_;
    const Clock::time_point from_;
    const Clock::time_point until_;
    std::minstd_rand dice_;
    std::uniform_int_distribution<unsigned> think_;
    std::discrete_distribution<std::size_t> key_;
};

Shared& shared_memory() {
    void* memory =
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        throw std::bad_alloc();
    }
    return *new (memory) Shared;
}

/// @returns of a process that was forked for it, and has no thread and no context yet.
int status_of(const Options& options, Shared& shared, unsigned number, Clock::time_point from,
              const char* dsn) {
    try {
        Process(options, shared, number, from).run(dsn);
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bench_stampede: process %u: %s\n", number, error.what());
        return EXIT_FAILURE;
    }
}

void run_processes(const Options& options, Shared& shared, const char* dsn) {
    const auto from = Clock::now() + milliseconds(options.warm_up);
    std::vector<pid_t> children;
    for (unsigned number = 0; number < options.processes; ++number) {
        const pid_t child = ::fork();
        if (child == 0) {
            std::_Exit(status_of(options, shared, number, from, dsn));
        }
        children.push_back(child);
    }
    bool all_well = true;
    for (const pid_t child : children) {
        int status = 0;
        all_well = child > 0 && ::waitpid(child, &status, 0) == child && status == 0 && all_well;
    }
    if (!all_well) {
        throw std::runtime_error("a process failed");
    }
}

Figures figures_of(const Options& options, const Shared& shared) {
    Tally sum;
    for (const Tally& tally : shared.tallies) {
        sum.latencies.add(tally.latencies);
        sum.loads += tally.loads;
        sum.hot_loads += tally.hot_loads;
        sum.overlapping += tally.overlapping;
        sum.soon += tally.soon;
        sum.late += tally.late;
        sum.statements += tally.statements;
        sum.cpu_seconds += tally.cpu_seconds;
        for (std::size_t i = 0; i < sum.windows.size(); ++i) {
            sum.windows[i] += tally.windows[i];
        }
    }
    const auto calls = static_cast<double>(sum.latencies.total());
    check(calls > 0, "no call was made");
    const auto per_second = [&](std::uint64_t count) {
        return static_cast<double>(count) * 1000 / options.measured;
    };
    return {{"calls", calls},
            {"calls_per_second", per_second(sum.latencies.total())},
            {"p50_us", sum.latencies.microseconds(0.5)},
            {"p99_us", sum.latencies.microseconds(0.99)},
            {"client_cpu_us", sum.cpu_seconds * 1e6 / calls},
            {"loads_per_second", per_second(sum.loads)},
            {"hot_loads_per_second", per_second(sum.hot_loads)},
            {"most_loads_in_100_ms", *std::max_element(sum.windows.begin(), sum.windows.end())},
            {"overlapping_loads_per_second", per_second(sum.overlapping)},
            {"soon_loads_per_second", per_second(sum.soon)},
            {"late_loads_per_second", per_second(sum.late)},
            {"statements_per_second", per_second(sum.statements)}};
}

void print_usage() {
    std::fprintf(stderr,
                 "bench_stampede by_hand|get_or_create [--OPTION NUMBER...] [--schema NAME]\n");
    show_numbers(numbers);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    try {
        const bench::Options options = bench::options_of(std::span(argv + 1, argv + argc));
        const char* dsn = std::getenv("PSYCACHE_TEST_DSN");
        dsn = dsn != nullptr ? dsn : std::getenv("PSYCACHE_DSN");
        if (dsn == nullptr) {
            throw bench::Usage("PSYCACHE_TEST_DSN or PSYCACHE_DSN must name a server");
        }
        bench::Shared& shared = bench::shared_memory();
        bench::run_processes(options, shared, dsn);
        const auto figures = boost::json::value_from(bench::figures_of(options, shared));
        std::printf("%s\n", boost::json::serialize(figures).c_str());
        return EXIT_SUCCESS;
    } catch (const bench::Usage& error) {
        std::fprintf(stderr, "bench_stampede: %s\n", error.what());
        bench::print_usage();
        return 2;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bench_stampede: %s\n", error.what());
        return EXIT_FAILURE;
    }
}
