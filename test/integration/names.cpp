// Name servers that say nothing: every wait ends at its own deadline, and nobody waits for the
// name.

#include <dlfcn.h>
#include <netdb.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// The one name that the name server of this file knows: it is 127.0.0.1.
constexpr const char* named_host = "database.name.invalid";

/// A name server that is silent for as long as this lives.
class SilentNameServer {
  public:
    SilentNameServer() { state().silent = true; }
    SilentNameServer(const SilentNameServer&) = delete;
    SilentNameServer& operator=(const SilentNameServer&) = delete;
    ~SilentNameServer() {
        speak();
        const std::lock_guard lock(state().mutex);
        ++state().generation;
        state().changed.notify_all();
    }

    /// From now on it answers; what was asked before stays without an answer.
    void speak() { state().silent = false; }

    static std::size_t hanging() { return state().hanging; }

    /// Waits where the server is silent.
    static void ask() {
        State& it = state();
        if (!it.silent) {
            return;
        }
        std::unique_lock lock(it.mutex);
        ++it.hanging;
        const unsigned since = it.generation;
        it.changed.wait_for(lock, 15s, [&] { return it.generation != since; });
        --it.hanging;
    }

  private:
    struct State {
        std::atomic<bool> silent{false};
        std::atomic<std::size_t> hanging{0};
        std::mutex mutex;
        std::condition_variable changed;
        unsigned generation = 0;
    };
    // Threads that ask outlive everything.
    static State& state() {
        static State& it = *new State;
        return it;
    }
};

/// How long anything may take that ends at once, on a busy machine.
constexpr auto at_once = 1s * slowness;

std::optional<PoolOptions> pool_by_name() {
    const auto where = tcp_dsn({{"host", named_host}, {"sslmode", "disable"}});
    if (!where) {
        return std::nullopt;
    }
    PoolOptions options;
    options.dsn = *where;
    return options;
}

}  // namespace

/// Takes the place of the system's: for all of this program, and for one name only.
extern "C" int getaddrinfo(const char* name, const char* service, const addrinfo* hints,
                           addrinfo** found) {
    static const auto real =
        reinterpret_cast<decltype(&getaddrinfo)>(::dlsym(RTLD_NEXT, "getaddrinfo"));
    if (name != nullptr && std::strcmp(name, named_host) == 0) {
        SilentNameServer::ask();
        name = "127.0.0.1";
    }
    return real(name, service, hints, found);
}

TEST_CASE("A host is found by its name") {
    const auto pool = pool_by_name();
    if (!pool) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema.cache_options(), *pool);
    CHECK(cache->get("key") == std::nullopt);
}

TEST_CASE("A silent name server holds up no call beyond its deadline, and no destruction") {
    const auto pool = pool_by_name();
    if (!pool) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    auto options = schema.cache_options();
    options.timeout = 300ms;
    SilentNameServer silence;
    auto cache = make_cache(flavour, options, *pool);
    for (int call = 0; call < 3; ++call) {
        const auto began = Clock::now();
        CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::timed_out);
        CHECK(Clock::now() - began < 300ms + at_once);
    }
    CHECK(SilentNameServer::hanging() > 0);
    const auto began = Clock::now();
    cache.reset();
    CHECK(Clock::now() - began < at_once);
    CHECK(SilentNameServer::hanging() > 0);
}

TEST_CASE("A pool says in time that a name server is silent, and tries again meanwhile") {
    auto options = pool_by_name();
    if (!options) {
        return;
    }
    options->connect_timeout = 300ms;
    asio::io_context context;
    ConnectionPool pool(context.get_executor(), *options);
    SilentNameServer silence;
    const auto began = Clock::now();
    const auto failure = failure_of([&] { run_coro(context, pool.connect()); });
    CHECK(failure.code() == Errc::connect_failed);
    CHECK_THAT(failure.what(),
               Catch::Contains("resolving host \"" + std::string(named_host) + "\" took too long"));
    CHECK(Clock::now() - began < 300ms + at_once);
    CHECK(SilentNameServer::hanging() == 1);
    silence.speak();
    const auto lent = run_coro(context, pool.connect());
    CHECK(static_cast<bool>(lent));
    // It was another look-up that was answered.
    CHECK(SilentNameServer::hanging() == 1);
}

TEST_CASE("Another host is used while the name server says nothing of one") {
    const bool first = GENERATE(true, false);
    CAPTURE(first);
    const std::string name(named_host);
    const auto where = tcp_dsn(
        {{"host", first ? name + ",127.0.0.1" : "127.0.0.1," + name}, {"sslmode", "disable"}});
    if (!where) {
        return;
    }
    PoolOptions options;
    options.dsn = *where;
    options.connect_timeout = 1s * slowness;
    asio::io_context context;
    ConnectionPool pool(context.get_executor(), options);
    SilentNameServer silence;
    const auto lent = run_coro(context, pool.connect());
    CHECK(static_cast<bool>(lent));
    CHECK(pool.statistics().connect_failures == 0);
}

TEST_CASE("A context is destroyed at any moment of a look-up") {
    const auto options = pool_by_name();
    if (!options) {
        return;
    }
    std::optional<SilentNameServer> silence;
    const bool silent = GENERATE(false, true);
    CAPTURE(silent);
    if (silent) {
        silence.emplace();
    }
    // Where it answers, the answer comes before, while and after the context goes.
    for (int round = 0; round < 100; ++round) {
        const auto began = Clock::now();
        {
            asio::io_context context;
            ConnectionPool pool(context.get_executor(), *options);
            asio::co_spawn(context, pool.connect(), asio::detached);
            context.run_for(std::chrono::microseconds(round * 10));
        }
        CHECK(Clock::now() - began < at_once);
    }
}
