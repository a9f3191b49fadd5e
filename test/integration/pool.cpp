// ConnectionPool: how it opens, lends, waits, replaces and closes.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <map>
#include <set>
#include <thread>

#include "support/both.hpp"
#include "support/gate.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// A pool on a context of its own, recognisable on the server.
class PoolTest {
  public:
    explicit PoolTest(std::size_t max_size = 4) {
        named.options.max_size = max_size;
        named.options.log = log.sink();
    }
    ConnectionPool& pool() {
        if (!pool_) {
            pool_.emplace(context.get_executor(), named.options);
        }
        return *pool_;
    }
    std::int64_t connections() { return sql.connections(named.name); }
    asio::any_io_executor executor() { return context.get_executor(); }

    template <class F>
    auto run(F coro) {
        return run_coro(context, std::move(coro));
    }

    LogCapture log;
    NamedPool named;
    Psql sql;
    asio::io_context context;

  private:
    std::optional<ConnectionPool> pool_;
};

/// Whether the lease's connection answers.
bool alive(const ConnectionLease& lease) {
    return PQstatus(lease.native_handle()) == CONNECTION_OK &&
           PQbackendPID(lease.native_handle()) > 0;
}

}  // namespace

TEST_CASE("A pool opens nothing until it is asked, and no more than it needs") {
    PoolTest test;
    test.pool();
    CHECK(test.connections() == 0);
    CHECK(test.pool().statistics().max_size == 4);
    CHECK(test.pool().get_executor() == test.executor());

    test.run([&]() -> asio::awaitable<void> {
        for (int i = 0; i < 5; ++i) {
            auto lease = co_await test.pool().connect();
            CHECK(static_cast<bool>(lease));
            CHECK(alive(lease));
            const auto statistics = test.pool().statistics();
            CHECK(statistics.open == 1);
            CHECK(statistics.busy == 1);
            CHECK(statistics.idle == 0);
        }
    });
    const auto statistics = test.pool().statistics();
    CHECK(statistics.open == 1);
    CHECK(statistics.idle == 1);
    CHECK(statistics.busy == 0);
    CHECK(statistics.connects == 1);
    CHECK(statistics.leases == 5);
    CHECK(statistics.lost == 0);
    CHECK(test.connections() == 1);
}

TEST_CASE("Fifty callers at once share max_size connections") {
    PoolTest test(4);
    std::size_t most_leases = 0;
    std::int64_t most_connections = 0;
    test.run([&]() -> asio::awaitable<void> {
        std::size_t leases = 0;
        const auto use = [&]() -> asio::awaitable<void> {
            auto lease = co_await test.pool().connect();
            most_leases = std::max(most_leases, ++leases);
            most_connections = std::max(most_connections, test.connections());
            co_await pause(3ms);
            CHECK(alive(lease));
            --leases;
        };
        std::vector<Started<void>> callers;
        for (int i = 0; i < 50; ++i) {
            callers.push_back(start(test.executor(), use()));
        }
        for (auto& caller : callers) {
            co_await caller.get();
        }
    });
    CHECK(most_leases == 4);
    CHECK(most_connections == 4);
    const auto statistics = test.pool().statistics();
    CHECK(statistics.connects == 4);
    CHECK(statistics.leases == 50);
    CHECK(statistics.waits >= 46);
    CHECK(statistics.wait_time > 0us);
    CHECK(statistics.waiting == 0);
    CHECK(statistics.busy == 0);
    CHECK(statistics.idle == 4);
    CHECK(statistics.acquire_timeouts == 0);
}

TEST_CASE("Waiters are served first come, first served") {
    PoolTest test(1);
    std::vector<int> order;
    test.run([&]() -> asio::awaitable<void> {
        std::optional<ConnectionLease> held;
        held.emplace(co_await test.pool().connect());
        const auto wait = [&](int number) -> asio::awaitable<void> {
            auto lease = co_await test.pool().connect();
            order.push_back(number);
        };
        std::vector<Started<void>> waiters;
        for (int i = 0; i < 10; ++i) {
            waiters.push_back(start(test.executor(), wait(i)));
            const auto waiting = [&] {
                return test.pool().statistics().waiting == static_cast<std::size_t>(i) + 1;
            };
            const bool queued = co_await until(waiting);
            REQUIRE(queued);
        }
        CHECK(order.empty());
        held.reset();
        for (auto& waiter : waiters) {
            co_await waiter.get();
        }
    });
    CHECK(order == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
}

TEST_CASE("The newest idle connection is lent first") {
    PoolTest test(3);
    test.run([&]() -> asio::awaitable<void> {
        auto a = co_await test.pool().connect();
        auto b = co_await test.pool().connect();
        auto c = co_await test.pool().connect();
        const auto pid_b = PQbackendPID(b.native_handle());
        const auto pid_c = PQbackendPID(c.native_handle());
        a = ConnectionLease();
        c = ConnectionLease();
        b = ConnectionLease();
        const auto all_back = [&] { return test.pool().statistics().idle == 3; };
        const bool back = co_await until(all_back);
        REQUIRE(back);
        auto first = co_await test.pool().connect();
        CHECK(PQbackendPID(first.native_handle()) == pid_b);
        auto second = co_await test.pool().connect();
        CHECK(PQbackendPID(second.native_handle()) == pid_c);
    });
}

TEST_CASE("A caller that waits longer than acquire_timeout gets acquire_timed_out") {
    PoolTest test(1);
    test.named.options.acquire_timeout = 150ms;
    test.run([&]() -> asio::awaitable<void> {
        std::optional<ConnectionLease> held;
        held.emplace(co_await test.pool().connect());
        const auto started = Clock::now();
        const auto failure = co_await failure_of(test.pool().connect());
        const auto took = Clock::now() - started;
        CHECK(failure.code() == Errc::acquire_timed_out);
        CHECK(failure.code() == Condition::timeout);
        CHECK(failure.code() == Condition::unavailable);
        CHECK(failure.typed());
        CHECK(took >= 140ms);
        CHECK(took < 2s);
        held.reset();
        const auto lease = co_await test.pool().connect();
        CHECK(alive(lease));
    });
    CHECK(test.pool().statistics().acquire_timeouts == 1);
    CHECK(test.pool().statistics().waiting == 0);
    CHECK(test.pool().statistics().connects == 1);
}

TEST_CASE("A waiter that is cancelled leaves at once and loses no connection") {
    PoolTest test(1);
    const auto type = GENERATE(asio::cancellation_type::terminal, asio::cancellation_type::partial,
                               asio::cancellation_type::total);
    CAPTURE(static_cast<unsigned>(type));
    test.run([&]() -> asio::awaitable<void> {
        std::optional<ConnectionLease> held;
        held.emplace(co_await test.pool().connect());
        const auto wait = [&]() -> asio::awaitable<void> {
            co_await asio::this_coro::reset_cancellation_state(asio::enable_total_cancellation());
            auto lease = co_await test.pool().connect();
            CHECK(alive(lease));
        };
        auto first = start(test.executor(), wait());
        auto second = start(test.executor(), wait());
        auto third = start(test.executor(), wait());
        const auto waiting = [&] { return test.pool().statistics().waiting == 3; };
        const bool queued = co_await until(waiting);
        REQUIRE(queued);
        second.cancel(type);
        const auto failure = co_await second.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
        CHECK(test.pool().statistics().waiting == 2);
        held.reset();
        co_await first.get();
        co_await third.get();
    });
    CHECK(test.pool().statistics().idle == 1);
    CHECK(test.pool().statistics().connects == 1);
}

TEST_CASE("Cancellation at the moment of the hand-over loses no connection") {
    PoolTest test(1);
    int served = 0;
    int aborted = 0;
    test.run([&]() -> asio::awaitable<void> {
        const auto wait = [&]() -> asio::awaitable<void> {
            auto lease = co_await test.pool().connect();
            if (!alive(lease)) {
                throw std::runtime_error("lent a dead connection");
            }
        };
        for (int i = 0; i < 200; ++i) {
            std::optional<ConnectionLease> held;
            held.emplace(co_await test.pool().connect());
            auto waiter = start(test.executor(), wait());
            const auto waiting = [&] { return test.pool().statistics().waiting == 1; };
            const bool queued = co_await until(waiting);
            REQUIRE(queued);
            if (i % 2 == 0) {
                held.reset();
                waiter.cancel();
            } else {
                waiter.cancel();
                held.reset();
            }
            const auto failure = co_await waiter.failure();
            (failure ? aborted : served) += 1;
            REQUIRE((!failure || failure.code() == asio::error::operation_aborted));
        }
    });
    CHECK(served + aborted == 200);
    CHECK(aborted >= 100);
    CHECK(test.pool().statistics().idle == 1);
    CHECK(test.pool().statistics().busy == 0);
    CHECK(test.pool().statistics().connects == 1);
    CHECK(test.connections() == 1);
}

TEST_CASE("A caller that is cancelled while its connection is opened loses no connection") {
    PoolTest test(2);
    test.run([&]() -> asio::awaitable<void> {
        for (int i = 0; i < 20; ++i) {
            auto waiter = start(test.executor(), test.pool().connect());
            co_await pause(std::chrono::microseconds(i * 200));
            waiter.cancel();
            const auto failure = co_await waiter.failure();
            CHECK((!failure || failure.code() == asio::error::operation_aborted));
        }
    });
    REQUIRE(run_out(test.context));
    test.run([&]() -> asio::awaitable<void> {
        auto a = co_await test.pool().connect();
        auto b = co_await test.pool().connect();
        CHECK(alive(a));
        CHECK(alive(b));
        CHECK(test.pool().statistics().open == 2);
    });
    CHECK(test.connections() <= 2);
}

TEST_CASE("A closed pool closes its connections and refuses callers") {
    PoolTest test(2);
    test.run([&]() -> asio::awaitable<void> {
        auto held = co_await test.pool().connect();
        { auto other = co_await test.pool().connect(); }
        const auto one_idle = [&] { return test.pool().statistics().idle == 1; };
        const bool idle = co_await until(one_idle);
        REQUIRE(idle);
        auto taken = co_await test.pool().connect();
        auto waiter = start(test.executor(), test.pool().connect());
        const auto one_waits = [&] { return test.pool().statistics().waiting == 1; };
        const bool waiting = co_await until(one_waits);
        REQUIRE(waiting);
        taken = ConnectionLease();
        auto got = co_await waiter.get();
        got = ConnectionLease();

        auto busy = co_await test.pool().connect();
        auto last_waiter = start(test.executor(), test.pool().connect());
        const bool waiting_again = co_await until(one_waits);
        REQUIRE(waiting_again);
        test.pool().close();
        const auto refused = co_await last_waiter.failure();
        CHECK(refused.code() == Errc::pool_closed);
        const auto later = co_await failure_of(test.pool().connect());
        CHECK(later.code() == Errc::pool_closed);
        CHECK(alive(held));
        CHECK(alive(busy));
        test.pool().close();
    });
    CHECK(eventually([&] { return test.connections() == 0; }));
    CHECK(test.pool().statistics().open == 0);
    CHECK(test.pool().statistics().idle == 0);
    CHECK(test.pool().statistics().waiting == 0);
}

TEST_CASE("A closed pool closes what is idle at once") {
    PoolTest test(2);
    test.run([&]() -> asio::awaitable<void> {
        auto a = co_await test.pool().connect();
        auto b = co_await test.pool().connect();
    });
    CHECK(test.connections() == 2);
    test.pool().close();
    test.context.restart();
    test.context.poll();
    CHECK(eventually([&] { return test.connections() == 0; }));
}

TEST_CASE("A connection idle for longer than idle_timeout is closed when the pool is next used") {
    PoolTest test(3);
    test.named.options.idle_timeout = 100ms;
    test.run([&]() -> asio::awaitable<void> {
        std::set<int> pids;
        {
            auto a = co_await test.pool().connect();
            auto b = co_await test.pool().connect();
            auto c = co_await test.pool().connect();
            pids = {PQbackendPID(a.native_handle()), PQbackendPID(b.native_handle()),
                    PQbackendPID(c.native_handle())};
        }
        {
            // Used again at once: the same ones.
            auto again = co_await test.pool().connect();
            CHECK(pids.count(PQbackendPID(again.native_handle())) == 1);
        }
        co_await pause(200ms);
        auto fresh = co_await test.pool().connect();
        CHECK(pids.count(PQbackendPID(fresh.native_handle())) == 0);
        CHECK(alive(fresh));
    });
    CHECK(test.pool().statistics().retired == 3);
    CHECK(test.pool().statistics().open == 1);
    CHECK(eventually([&] { return test.connections() == 1; }));
}

TEST_CASE(
    "Connections that were idle for too long are closed where only statistics are asked for") {
    PoolTest test(3);
    test.named.options.idle_timeout = 100ms;
    test.run([&]() -> asio::awaitable<void> {
        auto a = co_await test.pool().connect();
        auto b = co_await test.pool().connect();
    });
    CHECK(test.pool().statistics().idle == 2);
    std::this_thread::sleep_for(200ms);
    CHECK(test.pool().statistics().idle == 0);
    CHECK(test.pool().statistics().retired == 2);
    CHECK(eventually([&] { return test.connections() == 0; }));
}

TEST_CASE("A connection older than max_lifetime is replaced when it is next idle") {
    PoolTest test(1);
    test.named.options.max_lifetime = 150ms;
    test.run([&]() -> asio::awaitable<void> {
        int pid = 0;
        {
            auto lease = co_await test.pool().connect();
            pid = PQbackendPID(lease.native_handle());
            co_await pause(200ms);
            CHECK(alive(lease));  // not while it is lent
        }
        auto next = co_await test.pool().connect();
        CHECK(PQbackendPID(next.native_handle()) != pid);
    });
    CHECK(test.pool().statistics().retired == 1);
    CHECK(test.pool().statistics().connects == 2);
    CHECK(test.pool().statistics().lost == 0);
}

TEST_CASE("A short max_lifetime under load fails no call") {
    TestSchema schema;
    NamedPool named;
    named.options.max_lifetime = 30ms;
    named.options.max_size = 2;
    asio::io_context context;
    const auto pool = std::make_shared<ConnectionPool>(context.get_executor(), named.options);
    AsyncPostgresCache cache(pool, schema.cache_options());
    std::int64_t calls = 0;
    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto end = Clock::now() + 700ms * slowness;
        const auto work = [&](int number) -> asio::awaitable<void> {
            const auto key = std::to_string(number);
            for (int i = 0; Clock::now() < end; ++i) {
                co_await cache.put_raw(key, numbered(i), 1h);
                const auto value = co_await cache.get_raw(key);
                REQUIRE(value == numbered(i));
                ++calls;
            }
        };
        std::vector<Started<void>> workers;
        for (int i = 0; i < 8; ++i) {
            workers.push_back(start(context.get_executor(), work(i)));
        }
        for (auto& worker : workers) {
            co_await worker.get();
        }
    });
    CHECK(calls >= 8);
    CHECK(cache.statistics().errors == 0);
    CHECK(pool->statistics().retired >= 5);
    CHECK(eventually([&] { return schema.sql().connections(named.name) <= 2; }));
}

TEST_CASE("A connection that the server closed while it was idle is noticed before it is lent") {
    PoolTest test(2);
    test.run([&]() -> asio::awaitable<void> {
        {
            auto a = co_await test.pool().connect();
            auto b = co_await test.pool().connect();
        }
        CHECK(test.sql.terminate(test.named.name) == 2);
        auto a = co_await test.pool().connect();
        auto b = co_await test.pool().connect();
        CHECK(alive(a));
        CHECK(alive(b));
        CHECK(test.connections() == 2);
    });
    CHECK(test.pool().statistics().lost == 2);
    CHECK(test.pool().statistics().connects == 4);
}

TEST_CASE("io_context::run returns when the work is done, with idle connections in the pool") {
    PoolTest test(4);
    TestSchema schema;
    AsyncPostgresCache cache(test.executor(), test.named.options, schema.cache_options());
    bool done = false;
    asio::co_spawn(
        test.context,
        [&]() -> asio::awaitable<void> {
            co_await cache.put_raw("key", numbered(1), 1h);
            const auto value = co_await cache.get_raw("key");
            done = value == numbered(1);
        },
        [](std::exception_ptr error) {
            if (error) {
                std::rethrow_exception(error);
            }
        });
    const auto started = Clock::now();
    REQUIRE(run_out(test.context));
    CHECK(done);
    CHECK(Clock::now() - started < 2s * slowness);
    CHECK(test.connections() >= 1);
}

TEST_CASE("Of several hosts the first that answers is used") {
    TestSchema schema;
    const auto port = tcp_port();
    if (!port) {
        return;
    }
    const auto hosts = GENERATE(std::pair("127.0.0.1,127.0.0.1", "1,"),
                                std::pair("/nonexistent/directory,127.0.0.1", "1,"),
                                std::pair("no-such-host.invalid,127.0.0.1", "1,"),
                                std::pair("127.0.0.1,localhost,127.0.0.1", "1,1,"));
    CAPTURE(hosts.first);
    NamedPool named;
    named.options.dsn = *tcp_dsn(
        {{"host", hosts.first}, {"port", hosts.second + *port}, {"application_name", named.name}});
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const auto cache = make_cache(flavour, schema.cache_options(), named.options);

    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
    CHECK(schema.sql().connections(named.name) == 1);
}

TEST_CASE("A host that says nothing leaves time for the next one") {
    const auto port = tcp_port();
    if (!port) {
        return;
    }
    TestSchema schema;
    // The kernel accepts for it; nobody ever reads or answers.
    asio::io_context quiet;
    asio::ip::tcp::acceptor silent(quiet, {asio::ip::address_v4::loopback(), 0});
    const auto silent_port = std::to_string(silent.local_endpoint().port());
    NamedPool named;
    named.options.connect_timeout = 2s;
    named.options.dsn = *tcp_dsn({{"host", "127.0.0.1,127.0.0.1"},
                                  {"port", silent_port + "," + *port},
                                  {"application_name", named.name}});
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const auto cache = make_cache(flavour, schema.cache_options(), named.options);

    const auto started = Clock::now();
    cache->put("key", numbered(1), 1h);
    CHECK(Clock::now() - started >= 500ms);  // the silent host had its share
    CHECK(cache->get("key") == numbered(1));

    named.options.dsn = *tcp_dsn({{"host", "127.0.0.1"}, {"port", silent_port}});
    const auto alone = make_cache(flavour, schema.cache_options(), named.options);
    const auto failure = failure_of([&] { alone->get("key"); });
    CHECK(failure.code() == Errc::connect_failed);
    CHECK_THAT(failure.what(), Catch::Contains("did not answer in time"));

    // Where none can be had, each one's reason is told.
    named.options.dsn = *tcp_dsn({{"host", "127.0.0.1,127.0.0.1"}, {"port", "1," + silent_port}});
    const auto neither = make_cache(flavour, schema.cache_options(), named.options);
    const auto reasons = failure_of([&] { neither->get("key"); });
    CHECK(reasons.code() == Errc::connect_failed);
    CHECK_THAT(reasons.what(), Catch::Contains("port 1 failed: Connection refused; host "
                                               "\"127.0.0.1\" port " +
                                               silent_port + ": it did not answer in time"));
}

TEST_CASE("A host name is resolved") {
    const auto where = tcp_dsn({{"host", "localhost"}});
    if (!where) {
        return;
    }
    TestSchema schema;
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PoolOptions pool;
    pool.dsn = *where;
    const auto cache = make_cache(flavour, schema.cache_options(), pool);
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
}

TEST_CASE("A server with TLS is used with TLS, and its certificate is checked when asked for") {
    const char* certificate = std::getenv("PSYCACHE_TEST_TLS_CERT");
    if (certificate == nullptr) {
        WARN("PSYCACHE_TEST_TLS_CERT is not set: TLS is not tested");
        return;
    }
    TestSchema schema;
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    NamedPool named;
    named.options.dsn = *tcp_dsn({{"host", "localhost"},
                                  {"sslmode", "verify-full"},
                                  {"sslrootcert", certificate},
                                  {"application_name", named.name}});
    const auto cache = make_cache(flavour, schema.cache_options(), named.options);
    json::object large;
    large["text"] = std::string(3 << 20, 'x');
    cache->put("key", large, 1h);
    CHECK((cache->get("key") == large));
    CHECK(
        schema.sql().truth("SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE "
                           "application_name = " +
                           quote_literal(named.name)));

    auto wrong_name = named.options;
    wrong_name.dsn =
        dsn_with({{"host", "wrong.invalid"}, {"hostaddr", "127.0.0.1"}}, named.options.dsn);
    const auto refused = make_cache(flavour, schema.cache_options(), wrong_name);
    CHECK(failure_of([&] { refused->get("key"); }).code() == Errc::connect_failed);
}

TEST_CASE("Settings of the DSN reach the server, and the encoding is always UTF-8") {
    TestSchema schema;
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    NamedPool named;
    named.options.dsn = dsn_with({{"application_name", named.name},
                                  {"client_encoding", "LATIN1"},
                                  {"options",
                                   "-cwork_mem=1234kB -cTimeZone=Asia/Kolkata "
                                   "-cDateStyle=SQL -cIntervalStyle=iso_8601 "
                                   "-cextra_float_digits=-3 -cbytea_output=escape "
                                   "-cstandard_conforming_strings=off"}});
    const auto cache = make_cache(flavour, schema.cache_options(), named.options);
    const auto value = object(R"({"\u00e9": "\u4e2d\ud83d\ude00\\", "d": 0.1})");
    cache->put("\xC3\xA9'\\", value, 90min);
    CHECK(cache->get("\xC3\xA9'\\") == value);
    CHECK(schema.has("\xC3\xA9'\\"));
    CHECK(schema.expires_in("\xC3\xA9'\\") == Approx(5400).margin(60));
    CHECK(cache->cleanup() == 0);
    CHECK(schema.sql().connections(named.name) == 1);
}

TEST_CASE("The environment is used for an empty DSN") {
    TestSchema schema;
    Psql probe;
    // The variables are libpq's own; tests of one program run one after the other.
    const std::map<std::string, const char*> settings{{"PGHOST", PQhost(probe.native())},
                                                      {"PGPORT", PQport(probe.native())},
                                                      {"PGUSER", PQuser(probe.native())},
                                                      {"PGDATABASE", PQdb(probe.native())},
                                                      {"PGPASSWORD", PQpass(probe.native())}};
    std::map<std::string, std::optional<std::string>> before;
    for (const auto& [name, value] : settings) {
        const char* old = std::getenv(name.c_str());
        before[name] = old == nullptr ? std::nullopt : std::optional<std::string>(old);
        ::setenv(name.c_str(), value, 1);
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const auto failure = failure_of([&] {
        const auto cache = make_cache(flavour, schema.cache_options(), PoolOptions());
        cache->put("key", numbered(1), 1h);
    });
    for (const auto& [name, value] : before) {
        if (value) {
            ::setenv(name.c_str(), value->c_str(), 1);
        } else {
            ::unsetenv(name.c_str());
        }
    }
    CHECK_FALSE(failure);
    CHECK(schema.has("key"));
}

TEST_CASE("Leases outlive their pool") {
    PoolTest test(2);
    std::optional<ConnectionPool> pool(std::in_place, test.executor(), test.named.options);
    test.run([&]() -> asio::awaitable<void> {
        auto lease = co_await pool->connect();
        auto other = co_await pool->connect();
        pool.reset();
        CHECK(alive(lease));
        CHECK(alive(other));
    });
    CHECK(eventually([&] { return test.connections() == 0; }));
}

TEST_CASE("A pool that is destroyed answers its waiters") {
    PoolTest test(1);
    std::optional<ConnectionPool> pool(std::in_place, test.executor(), test.named.options);
    test.run([&]() -> asio::awaitable<void> {
        auto lease = co_await pool->connect();
        auto waiter = start(test.executor(), pool->connect());
        const auto waiting = [&] { return pool->statistics().waiting == 1; };
        const bool queued = co_await until(waiting);
        REQUIRE(queued);
        pool.reset();
        const auto failure = co_await waiter.failure();
        CHECK(failure.code() == Errc::pool_closed);
    });
    CHECK(eventually([&] { return test.connections() == 0; }));
}

TEST_CASE("A context that is destroyed with waiters and leases in flight leaves nothing behind") {
    Psql sql;
    NamedPool named;
    named.options.max_size = 1;
    const auto descriptors = open_descriptors();
    for (int turns = 0; turns < 40; ++turns) {
        asio::io_context context;
        ConnectionPool pool(context.get_executor(), named.options);
        const auto use = [&]() -> asio::awaitable<void> {
            auto lease = co_await pool.connect();
            co_await pause(1h);
        };
        for (int i = 0; i < 3; ++i) {
            asio::co_spawn(context, use(), asio::detached);
        }
        for (int i = 0; i < turns; ++i) {
            context.run_one_for(5ms);
        }
    }
    CHECK(eventually([&] { return sql.connections(named.name) == 0; }));
    CHECK(eventually([&] { return open_descriptors() <= descriptors; }));
}

TEST_CASE(
    "A pool that cannot connect tells its callers why, soon, and keeps trying for later ones") {
    const auto port = tcp_port();
    if (!port) {
        return;
    }
    Gate gate(*port);
    NamedPool named;
    named.options.dsn = *tcp_dsn({{"port", gate.port()}, {"application_name", named.name}});
    asio::io_context context;
    ConnectionPool pool(context.get_executor(), named.options);
    run_coro(context, [&]() -> asio::awaitable<void> {
        std::vector<Started<ConnectionLease>> callers;
        for (int i = 0; i < 10; ++i) {
            callers.push_back(start(context.get_executor(), pool.connect()));
        }
        const auto started = Clock::now();
        for (auto& caller : callers) {
            const auto failure = co_await caller.failure();
            CHECK(failure.code() == Errc::connect_failed);
        }
        CHECK(Clock::now() - started < 3s);
        const auto failures = pool.statistics().connect_failures;
        CHECK(failures >= 1);
        CHECK(failures <= 10);
        CHECK(pool.statistics().open == 0);
        CHECK(pool.statistics().waiting == 0);

        gate.switch_on();
        const auto recovered_by = Clock::now() + 3s;
        bool recovered = false;
        while (!recovered && Clock::now() < recovered_by) {
            const auto failure = co_await failure_of(pool.connect());
            recovered = !failure;
        }
        CHECK(recovered);
    });
}

TEST_CASE("While the server is away a pool makes one attempt at a time, with growing pauses") {
    PoolTest test(4);
    test.named.options.dsn = "host=127.0.0.1 port=1 dbname=x user=x";
    test.named.options.acquire_timeout = 5s;
    test.run([&]() -> asio::awaitable<void> {
        const auto end = Clock::now() + 1500ms;
        int calls = 0;
        std::size_t most_connecting = 0;
        while (Clock::now() < end) {
            const auto failure = co_await failure_of(test.pool().connect());
            CHECK(failure.code() == Errc::connect_failed);
            most_connecting = std::max(most_connecting, test.pool().statistics().connecting);
            ++calls;
        }
        CHECK(most_connecting <= 1);
        // Without pauses it would be thousands.
        CHECK(test.pool().statistics().connect_failures <= 40);
        CHECK(calls >= 2);
    });
}

TEST_CASE("A pool without room on the server keeps what it has") {
    TestSchema schema;
    const auto role = unique_name("role");
    schema.sql().exec("CREATE ROLE " + role + " LOGIN CONNECTION LIMIT 1; GRANT USAGE ON SCHEMA " +
                      schema.quoted() + " TO " + role + "; GRANT ALL ON " + schema.table() +
                      " TO " + role);
    {
        NamedPool named;
        named.options.dsn = dsn_with({{"user", role}, {"application_name", named.name}});
        named.options.max_size = 4;
        named.options.acquire_timeout = 700ms;
        asio::io_context context;
        const auto pool = std::make_shared<ConnectionPool>(context.get_executor(), named.options);
        run_coro(context, [&]() -> asio::awaitable<void> {
            std::optional<ConnectionLease> held;
            held.emplace(co_await pool->connect());
            // No second connection can be had, but the first one comes back.
            auto waiter = start(context.get_executor(), pool->connect());
            const auto tried = [&] { return pool->statistics().connect_failures >= 1; };
            const bool has_tried = co_await until(tried);
            CHECK(has_tried);
            CHECK(alive(*held));
            held.reset();
            auto lease = co_await waiter.get();
            CHECK(alive(lease));
            // Where it does not, the wait ends, with the reason.
            const auto failure = co_await failure_of(pool->connect());
            CHECK(failure.code() == Condition::unavailable);
            CHECK_THAT(failure.what(), Catch::Contains("53300") || Catch::Contains("connections"));
            CHECK(alive(lease));
        });
        pool->close();
        context.restart();
        context.poll();
        CHECK(eventually([&] { return schema.sql().connections(named.name) == 0; }));
    }
    schema.sql().exec("DROP OWNED BY " + role + "; DROP ROLE " + role);
}

TEST_CASE("A pool is used from many threads") {
    PoolTest test(3);
    Threads threads(4);
    ConnectionPool pool(threads.context().get_executor(), test.named.options);
    std::atomic<int> leases = 0;
    std::atomic<int> most = 0;
    std::atomic<int> dead = 0;
    std::vector<std::future<void>> users;
    for (int i = 0; i < 32; ++i) {
        users.push_back(threads.spawn([&]() -> asio::awaitable<void> {
            for (int turn = 0; turn < 10; ++turn) {
                auto lease = co_await pool.connect();
                const int now = ++leases;
                int seen = most;
                while (now > seen && !most.compare_exchange_weak(seen, now)) {
                }
                dead += alive(lease) ? 0 : 1;
                co_await pause(std::chrono::microseconds(turn * 50));
                --leases;
            }
        }));
    }
    for (auto& user : users) {
        REQUIRE(user.wait_for(patience) == std::future_status::ready);
        CHECK_NOTHROW(user.get());
    }
    CHECK(most <= 3);
    CHECK(dead == 0);
    CHECK(pool.statistics().connects == 3);
    CHECK(eventually([&] { return pool.statistics().idle == 3; }));
    CHECK(pool.statistics().leases == 320);
    CHECK(test.connections() == 3);
    CHECK(threads.finish());
}

TEST_CASE("A pool logs connections lost, and never its DSN") {
    PoolTest test(1);
    test.run([&]() -> asio::awaitable<void> {
        { auto lease = co_await test.pool().connect(); }
        test.sql.terminate(test.named.name);
        auto lease = co_await test.pool().connect();
        CHECK(alive(lease));
    });
    CHECK(test.log.journal().lines().size() >= 1);
    CHECK_FALSE(test.log.journal().contains(test.named.name));
}

TEST_CASE("Statements are prepared once per connection, or never when the pool says so") {
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 1;
    named.options.prepare_statements = GENERATE(true, false);
    CAPTURE(named.options.prepare_statements);
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    // One statement of the cache shows what its connection has prepared.
    schema.sql().exec("CREATE FUNCTION " + schema.quoted() +
                      ".count() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.value := "
                      "jsonb_build_object('n', (SELECT count(*) FROM pg_prepared_statements)); "
                      "RETURN NEW; END$$; CREATE TRIGGER count BEFORE INSERT OR UPDATE ON " +
                      schema.table() + " FOR EACH ROW EXECUTE FUNCTION " + schema.quoted() +
                      ".count()");
    const auto cache = make_cache(flavour, schema.cache_options(), named.options);
    std::vector<std::int64_t> prepared;
    for (int i = 0; i < 3; ++i) {
        cache->put("key", numbered(0), 1h);
        const auto value = cache->get("key");
        REQUIRE(value);
        prepared.push_back(value->at("n").as_int64());
    }
    if (named.options.prepare_statements) {
        CHECK(prepared[1] >= 2);
        CHECK(prepared[1] <= 5);
        CHECK(prepared[2] == prepared[1]);
    } else {
        CHECK(prepared == std::vector<std::int64_t>{0, 0, 0});
    }
}

TEST_CASE("Prepared statements that vanished are prepared again") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    // What a pooler between them can do, done by a trigger: the session's statements are gone.
    schema.sql().exec("CREATE FUNCTION " + schema.quoted() +
                      ".forget() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN EXECUTE 'DEALLOCATE "
                      "ALL'; RETURN NEW; END$$; CREATE TRIGGER forget BEFORE INSERT ON " +
                      schema.table() + " FOR EACH ROW WHEN (NEW.key = 'forget') EXECUTE FUNCTION " +
                      schema.quoted() + ".forget()");
    const auto cache = make_cache(flavour, schema.cache_options(), server_pool(1));
    cache->put("key", numbered(0), 1h);
    CHECK(cache->get("key") == numbered(0));
    for (int i = 1; i <= 3; ++i) {
        cache->put("forget", numbered(0), 1h);
        CHECK(cache->get("key") == numbered(i - 1));
        cache->put("forget", numbered(0), 1h);
        cache->put("key", numbered(i), 1h);
        CHECK(cache->get("key") == numbered(i));
    }
    CHECK(cache->statistics().errors == 0);
}
