// How a pool opens its connections: credentials that change, SQL for each, several at once, and
// before they are needed.

#include <atomic>
#include <catch2/catch.hpp>
#include <stdexcept>

#include "support/both.hpp"
#include "support/gate.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// A role that needs the password "secret", if the tests' server has it.
std::optional<PoolOptions> guarded_pool() {
    const auto where = tcp_dsn({{"user", "psycache_scram"}, {"password", ""}});
    if (!where) {
        return std::nullopt;
    }
    PoolOptions options;
    options.dsn = *where;
    options.connect_timeout = 2s * slowness;
    return options;
}

asio::awaitable<std::string> give_password(std::string password) {
    co_await pause(1ms);
    co_return password;
}

struct OutOfPasswords : std::runtime_error {
    OutOfPasswords() : std::runtime_error("the vault says: secret-word") {}
};

asio::awaitable<std::string> refuse_password() {
    co_await pause(1ms);
    throw OutOfPasswords();
}

asio::awaitable<std::string> keep_waiting(std::shared_ptr<std::atomic<bool>> cancelled) {
    asio::steady_timer timer(co_await asio::this_coro::executor, 1h);
    boost::system::error_code error;
    co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
    *cancelled = error == asio::error::operation_aborted;
    co_return "too late";
}

psycache::test::Failure failure_to_connect(const PoolOptions& options) {
    asio::io_context context;
    ConnectionPool pool(context.get_executor(), options);
    return failure_of([&] { run_coro(context, pool.connect()); });
}

}  // namespace

TEST_CASE("A password is asked for before each connection is opened") {
    auto options = guarded_pool();
    if (!options) {
        return;
    }
    int asked = 0;
    std::string password = "secret";
    options->password = [&] {
        ++asked;
        return give_password(password);
    };
    asio::io_context context;
    ConnectionPool pool(context.get_executor(), *options);
    {
        const auto first = run_coro(context, pool.connect());
        const auto second = run_coro(context, pool.connect());
        CHECK(static_cast<bool>(first));
        CHECK(static_cast<bool>(second));
    }
    CHECK(asked == 2);
    // One that is idle needs none.
    CHECK(static_cast<bool>(run_coro(context, pool.connect())));
    CHECK(asked == 2);

    password = "wrong";
    CHECK(failure_to_connect(*options).code() == Errc::authentication_failed);
    CHECK(asked == 3);
}

TEST_CASE("A blocking cache asks for passwords too") {
    auto options = guarded_pool();
    if (!options) {
        return;
    }
    TestSchema schema;
    schema.sql().exec("GRANT USAGE ON SCHEMA " + schema.quoted() +
                      " TO psycache_scram; GRANT ALL ON " + schema.table() + " TO psycache_scram");
    options->password = [] { return give_password("secret"); };
    PostgresCache cache(*options, schema.cache_options());
    cache.put_raw("key", numbered(1), 1h);
    CHECK(cache.get_raw("key") == numbered(1));
    schema.sql().exec("REVOKE ALL ON SCHEMA " + schema.quoted() +
                      " FROM psycache_scram; REVOKE ALL ON " + schema.table() +
                      " FROM psycache_scram");
}

TEST_CASE("What goes wrong with a password is told without a secret") {
    auto options = guarded_pool();
    if (!options) {
        return;
    }
    LogCapture log;
    options->log = log.sink();
    options->password = [] { return refuse_password(); };
    auto failure = failure_to_connect(*options);
    CHECK(failure.code() == Errc::connect_failed);
    CHECK_THAT(failure.what(), Catch::Contains("PoolOptions::password threw an exception"));
    CHECK_THAT(failure.what(), !Catch::Contains("secret"));
    CHECK_FALSE(log.journal().contains("secret-word"));

    options->password = []() -> asio::awaitable<std::string> { throw OutOfPasswords(); };
    failure = failure_to_connect(*options);
    CHECK_THAT(failure.what(), Catch::Contains("PoolOptions::password threw an exception"));

    options->password = [] { return give_password(std::string("a\0b", 3)); };
    failure = failure_to_connect(*options);
    CHECK_THAT(failure.what(), Catch::Contains("PoolOptions::password returned a NUL byte"));
}

TEST_CASE("The exception of a password is there for who asks") {
    auto options = guarded_pool();
    if (!options) {
        return;
    }
    options->password = [] { return refuse_password(); };
    asio::io_context context;
    ConnectionPool pool(context.get_executor(), *options);
    try {
        run_coro(context, pool.connect());
        FAIL("it connects");
    } catch (const Error& error) {
        REQUIRE(error.cause_exception());
        CHECK_THROWS_AS(std::rethrow_exception(error.cause_exception()), OutOfPasswords);
    }
}

TEST_CASE("A password that does not come is not waited for, and its coroutine is cancelled") {
    auto options = guarded_pool();
    if (!options) {
        return;
    }
    options->connect_timeout = 100ms;
    const auto cancelled = std::make_shared<std::atomic<bool>>(false);
    options->password = [cancelled] { return keep_waiting(cancelled); };
    const auto began = Clock::now();
    {
        asio::io_context context;
        ConnectionPool pool(context.get_executor(), *options);
        const auto failure = failure_of([&] { run_coro(context, pool.connect()); });
        CHECK(failure.code() == Errc::connect_failed);
        CHECK_THAT(failure.what(), Catch::Contains("PoolOptions::password did not answer in time"));
        context.run();
        CHECK(*cancelled);
    }
    {
        // Nor when its context is destroyed.
        asio::io_context context;
        ConnectionPool pool(context.get_executor(), *options);
        asio::co_spawn(context, pool.connect(), asio::detached);
        context.run_for(20ms);
    }
    CHECK(Clock::now() - began < 2s * slowness);
}

TEST_CASE("SQL is run on each new connection before it is lent") {
    PoolOptions options = server_pool(2);
    options.init_sql = {"SET application_name = 'one'", "SELECT 1; SET work_mem = '65kB'",
                        "SET application_name = 'two'"};
    asio::io_context context;
    ConnectionPool pool(context.get_executor(), options);
    const auto first = run_coro(context, pool.connect());
    const auto second = run_coro(context, pool.connect());
    for (const auto* lent : {&first, &second}) {
        const auto ask = [&](const char* sql) {
            const std::unique_ptr<PGresult, decltype(&PQclear)> answer(
                PQexec(lent->native_handle(), sql), &PQclear);
            return std::string(PQgetvalue(answer.get(), 0, 0));
        };
        PQsetnonblocking(lent->native_handle(), 0);
        CHECK(ask("SHOW application_name") == "two");
        CHECK(ask("SHOW work_mem") == "65kB");
    }
}

TEST_CASE("A connection whose SQL fails is closed, and callers are told which it was") {
    NamedPool named;
    PoolOptions options = named.options;
    options.init_sql = {"SELECT 1", "SELECT 'secret-word'::integer"};
    auto failure = failure_to_connect(options);
    CHECK(failure.code() == Errc::connect_failed);
    CHECK(failure.sqlstate() == "22P02");
    CHECK_THAT(failure.what(), Catch::Contains("statement 2 of PoolOptions::init_sql failed"));
    CHECK_THAT(failure.what(), !Catch::Contains("secret-word"));
    Psql sql;
    CHECK(eventually([&] { return sql.connections(named.name) == 0; }));

    options.init_sql = {"BEGIN"};
    failure = failure_to_connect(options);
    CHECK(failure.code() == Errc::connect_failed);
    CHECK_THAT(failure.what(), Catch::Contains("statement 1 of PoolOptions::init_sql failed: it "
                                               "left a transaction open"));

    options.init_sql = {"SELECT pg_sleep(60)"};
    options.connect_timeout = 200ms;
    const auto began = Clock::now();
    failure = failure_to_connect(options);
    CHECK(failure.code() == Errc::connect_failed);
    CHECK(Clock::now() - began < 2s * slowness);
}

TEST_CASE("A pool is warm before it is used, and kept so") {
    NamedPool named;
    named.options.max_size = 4;
    named.options.min_idle = 3;
    asio::io_context context;
    ConnectionPool pool(context.get_executor(), named.options);
    run_coro(context, pool.warm_up());
    context.restart();
    context.run();
    CHECK(pool.statistics().open == 3);
    CHECK(pool.statistics().idle == 3);
    CHECK(pool.statistics().connects == 3);
    // One is lent: so one more is opened, in the background, and the context comes to its end.
    const auto lent = pool.try_connect();
    REQUIRE(static_cast<bool>(lent));
    context.restart();
    context.run();
    CHECK(pool.statistics().open == 4);
    CHECK(pool.statistics().idle == 3);
    CHECK(pool.statistics().busy == 1);
    run_coro(context, pool.warm_up());
    CHECK(pool.statistics().connects == 4);
}

TEST_CASE("A warm-up opens one connection at least, and says why it cannot") {
    asio::io_context context;
    PoolOptions options = server_pool(2);
    ConnectionPool pool(context.get_executor(), options);
    run_coro(context, pool.warm_up());
    CHECK(pool.statistics().idle == 1);

    options.dsn = "host=127.0.0.1 port=1 dbname=x user=x";
    options.min_idle = 2;
    ConnectionPool away(context.get_executor(), options);
    const auto failure = failure_of([&] { run_coro(context, away.warm_up()); });
    CHECK(failure.code() == Errc::connect_failed);
    CHECK_THAT(failure.what(), Catch::Contains("warm_up"));
    // It does not go on trying for nobody.
    context.restart();
    const auto began = Clock::now();
    context.run();
    CHECK(Clock::now() - began < 5s);

    PostgresCache cache(options);
    CHECK(failure_of([&] { cache.warm_up(); }).code() == Errc::connect_failed);
}

TEST_CASE("A blocking cache is warmed up as well") {
    PoolOptions options = server_pool(4);
    options.min_idle = 3;
    PostgresCache cache(options);
    cache.warm_up();
    CHECK(cache.pool_statistics()->idle == 3);
    const auto application = std::make_shared<AppConnections>();
    PostgresCache borrowing(application->pool());
    borrowing.warm_up();
    CHECK(application->borrows() == 1);
    CHECK(application->lent() == 0);
}

TEST_CASE("Several connections are opened at the same time, as many as may be") {
    const auto port = tcp_port();
    if (!port) {
        return;
    }
    const auto most = GENERATE(std::size_t{1}, std::size_t{2}, std::size_t{4});
    CAPTURE(most);
    Gate gate(*port);
    gate.switch_on();
    PoolOptions options;
    options.dsn = *tcp_dsn({{"port", gate.port()}, {"sslmode", "disable"}});
    options.max_connecting = most;
    asio::io_context context;
    ConnectionPool pool(context.get_executor(), options);
    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto executor = co_await asio::this_coro::executor;
        gate.swallow(true);
        std::vector<Started<ConnectionLease>> callers;
        for (int i = 0; i < 4; ++i) {
            callers.push_back(start(executor, pool.connect()));
        }
        co_await pause(100ms);
        CHECK(pool.statistics().connecting == most);
        gate.swallow(false);
        std::vector<ConnectionLease> lent;
        for (auto& caller : callers) {
            auto lease = caller.get();
            lent.push_back(co_await std::move(lease));
        }
        CHECK(pool.statistics().open == 4);
    });
}

TEST_CASE("A cache is warm before its first call, on a pool of its own and on a shared one") {
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 3;
    named.options.min_idle = 2;
    asio::io_context context;
    {
        AsyncPostgresCache cache(context.get_executor(), named.options, schema.cache_options());
        run_coro(context, cache.warm_up());
        CHECK(schema.sql().connections(named.name) == 2);
        CHECK(cache.pool_statistics()->connects == 2);
        // While it has one of them, the pool may open another, so that two are idle again.
        CHECK_FALSE(run_coro(context, cache.get_raw("key")));
    }
    auto broken = named.options;
    broken.dsn = "host=127.0.0.1 port=1 user=x dbname=x";
    const auto pool = std::make_shared<ConnectionPool>(context.get_executor(), broken);
    AsyncPostgresCache shared(pool, schema.cache_options());
    CHECK(run_coro(context, failure_of(shared.warm_up())).code() == Errc::connect_failed);
    AsyncPostgresCache own(context.get_executor(), broken, schema.cache_options());
    CHECK(run_coro(context, failure_of(own.warm_up())).code() == Errc::connect_failed);
}
