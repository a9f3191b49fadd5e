// What other processes get of a cache's connections: nothing.

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <set>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;

namespace {

std::set<int> descriptors() {
    std::set<int> all;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        all.insert(std::stoi(entry.path().filename().string()));
    }
    return all;
}

/// Runs @p check in a child that was forked off, and answers whether it held there.
template <class Check>
bool holds_in_child(const Check& check) {
    const pid_t child = ::fork();
    if (child == 0) {
        bool held = false;
        try {
            held = check();
        } catch (...) {
        }
        ::_exit(held ? 0 : 1);
    }
    int status = -1;
    return child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

std::string backends_of(TestSchema& schema, const std::string& name) {
    return schema.sql().value(
        "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE "
        "application_name = " +
        quote_literal(name));
}

}  // namespace

TEST_CASE("Programs that the application starts inherit no connection") {
    const auto before = descriptors();
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), schema.cache_options());
    run_coro(context,
             [&]() -> asio::awaitable<void> { co_await cache.put_raw("key", numbered(1), 1h); });
    PostgresCache blocking(server_pool(), schema.cache_options());
    CHECK(blocking.get_raw("key") == numbered(1));
    int seen = 0;
    for (const int descriptor : descriptors()) {
        const int flags = ::fcntl(descriptor, F_GETFD);
        if (flags >= 0 && !before.contains(descriptor)) {
            CAPTURE(descriptor);
            CHECK((flags & FD_CLOEXEC) != 0);
            ++seen;
        }
    }
    CHECK(seen >= 4);
}

TEST_CASE("A blocking cache refuses to work in a forked child, and the parent's goes on") {
    TestSchema schema;
    NamedPool named;
    auto cache = std::make_unique<PostgresCache>(named.options, schema.cache_options());
    cache->put_raw("key", numbered(1), 1h);
    const std::string backends = backends_of(schema, named.name);
    CHECK(holds_in_child([&] {
        const Failure failure = failure_of([&] { cache->get_raw("key"); });
        cache.reset();
        PostgresCache own(named.options, schema.cache_options());
        return failure.code() == Errc::connection_unusable &&
               failure.what().find("fork") != std::string::npos &&
               own.get_raw("key") == numbered(1);
    }));
    CHECK(cache->get_raw("key") == numbered(1));
    // The child's own have ended, the parent's have not.
    CHECK(eventually([&] { return backends_of(schema, named.name) == backends; }));
}

TEST_CASE("A forked child has no near cache, and the parent's goes on") {
    TestSchema schema(Table::notifying);
    NamedPool named;
    auto options = schema.cache_options();
    options.near_cache.emplace();
    options.near_cache->max_staleness = 2s * slowness;
    auto cache = std::make_unique<PostgresCache>(named.options, options);
    cache->put_raw("key", numbered(1), 1h);
    const auto kept = [&] {
        const auto value = cache->get_shared("key");
        return value != nullptr && cache->peek("key") == value;
    };
    CHECK(eventually(kept));
    const std::string backends = backends_of(schema, named.name);
    CHECK(holds_in_child([&] {
        const bool nothing = cache->peek("key") == nullptr;
        const Failure failure = failure_of([&] { cache->get_shared("key"); });
        cache.reset();
        return nothing && failure.code() == Errc::connection_unusable;
    }));
    CHECK(eventually(kept));
    schema.sql().exec("DELETE FROM " + schema.table());
    CHECK(eventually([&] { return cache->peek("key") == nullptr; }));
    CHECK(backends_of(schema, named.name) == backends);
}

TEST_CASE("A cache of coroutines refuses to work in a forked child, and the parent's goes on") {
    TestSchema schema;
    NamedPool named;
    auto context = std::make_unique<asio::io_context>();
    auto cache = std::make_unique<AsyncPostgresCache>(context->get_executor(), named.options,
                                                      schema.cache_options());
    const auto get = [&]() -> asio::awaitable<std::optional<json::object>> {
        return cache->get_raw("key");
    };
    run_coro(*context,
             [&]() -> asio::awaitable<void> { co_await cache->put_raw("key", numbered(1), 1h); });
    const std::string backends = backends_of(schema, named.name);
    context->notify_fork(asio::execution_context::fork_prepare);
    const bool refused = holds_in_child([&] {
        context->notify_fork(asio::execution_context::fork_child);
        const Failure failure = failure_of([&] { run_coro(*context, get); });
        cache.reset();
        context.reset();
        return failure.code() == Errc::connection_unusable;
    });
    context->notify_fork(asio::execution_context::fork_parent);
    CHECK(refused);
    CHECK(run_coro(*context, get) == numbered(1));
    CHECK(backends_of(schema, named.name) == backends);
}
