// A cache whose server says anything: each call ends in time, with what it promises or an Error.

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <psycache/psycache.hpp>

#include "fuzz/fake_server.hpp"
#include "fuzz/fuzz.hpp"
#include "fuzz/libpq_ledger.hpp"

using namespace psycache;
using namespace std::chrono_literals;
using psycache::fuzz::Input;
using psycache::fuzz::require;

namespace {

/// How long the library may wait for the server.
constexpr auto time_limit = 100ms;
/// How long everything may take, on a busy machine.
constexpr auto patience = 20s;

PoolOptions pool_options(Input& input) {
    PoolOptions options;
    options.max_size = 1 + input.below(2);
    options.connect_timeout = time_limit;
    options.acquire_timeout = time_limit;
    options.prepare_statements = input.flag();
    return options;
}

CacheOptions cache_options(Input& input) {
    CacheOptions options;
    options.timeout = time_limit;
    options.maintenance_timeout = time_limit;
    options.on_outage = input.flag() ? OnOutage::miss : OnOutage::raise;
    options.replay_writes = input.flag();
    return options;
}

std::string key_of(Input& input) {
    return std::string(1, static_cast<char>('a' + input.below(3)));
}

std::vector<std::string> keys_of(Input& input) {
    std::vector<std::string> keys(input.below(6));
    for (auto& key : keys) {
        key = key_of(input);
    }
    return keys;
}

std::vector<Entry> entries_of(const std::vector<std::string>& keys) {
    std::vector<Entry> entries;
    for (const auto& key : keys) {
        entries.emplace_back(key, json::object(), 1h);
    }
    return entries;
}

/// One call of the kind that the input names.
asio::awaitable<void> call(AsyncPostgresCache cache, std::size_t kind,
                           std::vector<std::string> keys) {
    const std::string key = keys.empty() ? "k" : keys.front();
    switch (kind) {
        case 0: {
            co_await cache.get_raw(key);
            break;
        }
        case 1: {
            co_await cache.get_text(key);
            break;
        }
        case 2: {
            json::object value;
            co_await cache.put_raw(key, std::move(value), 1h);
            break;
        }
        case 3: {
            co_await cache.put_text(key, "{}", 1h);
            break;
        }
        case 4: {
            co_await cache.remove(key);
            break;
        }
        case 5: {
            const auto values = co_await cache.get_raw_many(keys);
            require(values.size() == keys.size(), "there is a value or a miss for each key");
            break;
        }
        case 6: {
            auto entries = entries_of(keys);
            co_await cache.put_raw_many(std::move(entries));
            break;
        }
        case 7: {
            const auto removed = co_await cache.remove_many(keys);
            require(removed <= keys.size(), "no more is removed than was asked for");
            break;
        }
        case 8: {
            co_await cache.cleanup_expired();
            break;
        }
        default: {
            co_await cache.flush();
            break;
        }
    }
}

void check_error(const std::exception_ptr& failed) {
    try {
        if (failed) {
            std::rethrow_exception(failed);
        }
    } catch (const Error& error) {
        require(error.code().failed(), "an error has a code");
        require(error.code() != asio::error::operation_aborted, "nobody has cancelled anything");
    }
}

/// What the input asks of a cache, and what the server says to it.
struct Scene {
    struct Wanted {
        std::size_t kind;
        std::vector<std::string> keys;
    };

    explicit Scene(Input& input) {
        const auto first = input.byte();
        wanted.resize(1 + first % 8u);
        for (Wanted& one : wanted) {
            one.kind = input.below(10);
            one.keys = keys_of(input);
        }
        options = cache_options(input);
        pool = pool_options(input);
        sessions.resize(1 + first / 8u % 4u);
        for (auto& session : sessions) {
            session = fuzz::session_of(input);
            silent = silent || session.end == fuzz::Session::End::silence;
        }
    }

    std::vector<Wanted> wanted;
    CacheOptions options;
    PoolOptions pool;
    std::vector<fuzz::Session> sessions;
    bool silent = false;
};

void play(Scene scene) {
    const fuzz::FakeServer server(std::move(scene.sessions));
    scene.pool.dsn = server.dsn();
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), scene.pool, scene.options);
    std::size_t ended = 0;
    const std::size_t all = scene.wanted.size();
    for (auto& [kind, keys] : scene.wanted) {
        asio::co_spawn(context, call(cache, kind, std::move(keys)), [&](std::exception_ptr error) {
            check_error(error);
            ++ended;
        });
    }
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (ended < all && context.run_one_until(deadline) != 0) {
    }
    require(ended == all, "each call ends once, in time");
    if (!scene.silent) {
        // A statement that is never answered has seconds; it goes with the context.
        context.run_until(deadline);
        require(context.stopped(), "and leaves nothing behind");
        require(cache.statistics().queued == 0, "no call in the queue either");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    play(Scene(input));
    fuzz::require_all_given_back();
    return 0;
}
