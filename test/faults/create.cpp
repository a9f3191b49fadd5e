// get_or_create amid faults: how often the loader runs, and that no change is ever undone.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <csignal>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "faults/load.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// Processes that tell through a pipe what they load. Forked before there are threads.
class Processes {
  public:
    Processes() { REQUIRE(::pipe(ends_) == 0); }
    Processes(const Processes&) = delete;
    Processes& operator=(const Processes&) = delete;
    ~Processes() {
        for (const pid_t child : children_) {
            ::kill(child, SIGKILL);
            ::waitpid(child, nullptr, 0);
        }
        ::close(ends_[0]);
        ::close(ends_[1]);
    }

    /// @param work gets what tells of a load; its process ends with it.
    template <class Work>
    void start(const Work& work) {
        const pid_t child = ::fork();
        if (child == 0) {
            int code = 1;
            try {
                work([this](int key) {
                    if (::write(ends_[1], &key, sizeof key) != sizeof key) {
                        ::_exit(2);
                    }
                });
                code = 0;
            } catch (...) {
            }
            ::_exit(code);
        }
        REQUIRE(child > 0);
        children_.push_back(child);
    }
    /// @returns the next load that is told of.
    int next_load() const {
        int key = -1;
        REQUIRE(::read(ends_[0], &key, sizeof key) == sizeof key);
        return key;
    }
    void kill(std::size_t number) {
        ::kill(children_[number], SIGKILL);
        ::waitpid(children_[number], nullptr, 0);
        children_.erase(children_.begin() + static_cast<std::ptrdiff_t>(number));
    }
    /// Waits until all have ended. @returns whether all have done so well, and what they loaded.
    std::pair<bool, std::vector<int>> wait() {
        bool well = true;
        for (const pid_t child : std::exchange(children_, {})) {
            int status = 0;
            ::waitpid(child, &status, 0);
            well = well && WIFEXITED(status) && WEXITSTATUS(status) == 0;
        }
        ::close(std::exchange(ends_[1], -1));
        std::vector<int> loads;
        for (int key = -1; ::read(ends_[0], &key, sizeof key) == sizeof key;) {
            loads.push_back(key);
        }
        return {well, loads};
    }

  private:
    int ends_[2] = {-1, -1};
    std::vector<pid_t> children_;
};

/// A process in which many want the values of keys. Throws where one gets a wrong one.
template <class Tell>
void want_values(const CacheOptions& options, int callers, int keys, const Tell& tell) {
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(2), options);
    int wrong = 0;
    int ended = 0;
    for (int i = 0; i < callers; ++i) {
        const int key = i % keys;
        auto loader = [key, &tell]() -> asio::awaitable<int> {
            tell(key);
            co_await pause(50ms);
            co_return key;
        };
        asio::co_spawn(
            context,
            cache.get_or_create<int>("key " + std::to_string(key), CreateOptions(1h), loader),
            [&, key](std::exception_ptr error, int value) {
                wrong += error || value != key ? 1 : 0;
                ++ended;
            });
    }
    context.run_for(patience);
    if (wrong > 0 || ended < callers) {
        throw std::runtime_error("wrong");
    }
}

}  // namespace

TEST_CASE("Eight processes with many callers each load every value once, cold and at its expiry") {
    TestSchema schema;
    constexpr int keys = 5;
    const bool at_expiry = GENERATE(false, true);
    CAPTURE(at_expiry);
    if (at_expiry) {
        for (int key = 0; key < keys; ++key) {
            schema.insert("key " + std::to_string(key), "100", "now() - interval '1 microsecond'");
        }
    }
    Processes processes;
    for (int i = 0; i < 8; ++i) {
        processes.start(
            [&](const auto& tell) { want_values(schema.cache_options(), 250, keys, tell); });
    }
    auto [well, loads] = processes.wait();
    CHECK(well);
    std::sort(loads.begin(), loads.end());
    CHECK(loads == std::vector<int>{0, 1, 2, 3, 4});
    CHECK(schema.rows() == keys);
}

TEST_CASE("A process that is killed while it loads keeps the others waiting for its lease only") {
    TestSchema schema;
    Processes processes;
    CreateOptions options(1h);
    options.load_lease = 500ms;
    processes.start([&](const auto& tell) {
        PostgresCache cache(server_pool(1), schema.cache_options());
        cache.get_or_create<int>("key", options, [&] {
            tell(1);
            std::this_thread::sleep_for(1h);
            return 1;
        });
    });
    CHECK(processes.next_load() == 1);
    processes.kill(0);
    PostgresCache cache(server_pool(1), schema.cache_options());
    const auto began = Clock::now();
    CHECK(cache.get_or_create<int>("key", options, [] { return 2; }) == 2);
    CHECK(Clock::now() - began < patience / 2);
    CHECK(cache.statistics().load_waits == 1);
    CHECK(cache.get<int>("key") == 2);
}

TEST_CASE("A thousand who wait for a slow loader keep nobody else from a pool of two") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(2), schema.cache_options());
    int ended = 0;
    auto slow = []() -> asio::awaitable<int> {
        co_await pause(1s);
        co_return 1;
    };
    for (int i = 0; i < 1000; ++i) {
        asio::co_spawn(context, cache.get_or_create<int>("slow", CreateOptions(1h), slow),
                       [&](std::exception_ptr, int) { ++ended; });
    }
    const int calls = run_coro(context, [&]() -> asio::awaitable<int> {
        int done = 0;
        const auto loads = [&] { return cache.statistics().loads == 1; };
        co_await until(loads);
        while (ended == 0) {
            co_await cache.put("other", done, 1h);
            const auto value = co_await cache.get<int>("other");
            done += value == done ? 1 : 1000000;
        }
        co_return done;
    });
    // Each is two round trips; a machine that stands still for most of the second does some.
    CHECK(calls > 20);
    CHECK(calls < 1000000);
    CHECK(run_out(context));
    CHECK(ended == 1000);
    CHECK(cache.statistics().loads == 1);
}

TEST_CASE("No change is undone by a load, whatever fails in between") {
    TestSchema schema(Table::tagged);
    NamedPool named;
    named.options.max_size = 3;
    auto options = schema.cache_options();
    options.replay_writes = true;  // what has been asked for is not known to be done else
    AsyncPostgresCache* cache = nullptr;
    Threads threads(3);
    AsyncPostgresCache one(threads.context().get_executor(), named.options, options);
    AsyncPostgresCache other(threads.context().get_executor(), named.options, options);
    cache = &one;
    constexpr int keys = 4;
    // What values are made of, and what every value must be that is asked for from now on.
    std::array<std::atomic<int>, keys> source{};
    std::array<std::atomic<int>, keys> floor{};
    std::atomic<bool> over = false;
    std::atomic<int> values = 0;
    std::atomic<int> changes = 0;
    Journal wrong;

    std::vector<std::future<void>> callers;
    for (int i = 0; i < 12; ++i) {
        auto& its = i % 2 == 0 ? one : other;
        callers.push_back(threads.spawn([&, i]() -> asio::awaitable<void> {
            std::minstd_rand random(static_cast<unsigned>(i));
            while (!over) {
                const auto key = random() % keys;
                const int least = floor[key];
                auto load = [&source, key, wait = random() % 4]() -> asio::awaitable<int> {
                    const int value = source[key];
                    co_await pause(std::chrono::milliseconds(wait));
                    co_return value;
                };
                CreateOptions create(1h);
                create.tags.emplace_back("tag");
                create.retry_after_error = 0s;
                if (random() % 2 == 0) {
                    // All that is stored is stale soon, and loaded anew.
                    create.ttl = 1ms;
                    create.stale_for = 1h;
                }
                try {
                    auto call = its.get_or_create<int>("key " + std::to_string(key), create, load);
                    const int value = co_await std::move(call);
                    ++values;
                    if (value < least) {
                        wrong.write("a value from before a change: " + std::to_string(value) +
                                    " instead of " + std::to_string(least));
                    }
                } catch (const Error& error) {
                    if (!(error.code() == Condition::unavailable ||
                          error.code() == Condition::transient)) {
                        wrong.write(error.what());
                    }
                }
            }
        }));
    }
    callers.push_back(threads.spawn([&]() -> asio::awaitable<void> {
        std::minstd_rand random(77);
        // Or remove_tag would leave it, as it must.
        PutOptions tagged;
        tagged.tags.emplace_back("tag");
        while (!over) {
            const auto key = random() % keys;
            const int version = ++source[key];
            const std::string name = "key " + std::to_string(key);
            for (bool done = false; !done && !over;) {
                try {
                    switch (random() % 4) {
                        case 0:
                            co_await cache->remove(name);
                            break;
                        case 1:
                            co_await cache->put(name, version, 1h, tagged);
                            break;
                        case 2:
                            co_await cache->remove_prefix("key " + std::to_string(key));
                            break;
                        default:
                            co_await cache->remove_tag("tag");
                            break;
                    }
                    done = true;
                } catch (const Error&) {
                }
            }
            if (!over) {
                floor[key] = version;
                ++changes;
            }
            co_await pause(2ms);
        }
    }));
    Psql admin(dsn());
    const auto late = [&] { return one.statistics().late_loads + other.statistics().late_loads; };
    const auto end = Clock::now() + 3s;
    const auto last = Clock::now() + patience;
    // A slow machine needs longer to show something.
    while (Clock::now() < end ||
           (Clock::now() < last && (values <= 100 || changes <= 20 || late() == 0))) {
        std::this_thread::sleep_for(150ms * slowness);
        admin.terminate(named.name);
        // As a cleanup of psycache for Python does it, stubs included.
        admin.exec("DELETE FROM " + schema.table() + " WHERE expires_at < now()");
    }
    over = true;
    for (auto& caller : callers) {
        CHECK(caller.wait_for(patience) == std::future_status::ready);
    }
    CHECK(wrong.lines() == std::vector<std::string>{});
    CHECK(values > 100);
    CHECK(changes > 20);
    CHECK(late() > 0);
    CHECK(threads.finish());
}
