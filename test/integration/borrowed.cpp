// Connections of the application: what is refused, and that all come back as they were found.

#include <catch2/catch.hpp>
#include <functional>
#include <thread>

#include "support/both.hpp"
#include "support/gate.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// One connection of the application, lent for every call.
class OneConnection {
  public:
    explicit OneConnection(const std::string& where = dsn()) : psql(where) {}

    PGconn* native() const { return psql.native(); }

    std::shared_ptr<CachePool> pool() {
        return std::make_shared<BorrowingPool>([this] { return lend(); });
    }
    std::shared_ptr<AsyncCachePool> pool(const asio::any_io_executor& executor) {
        return std::make_shared<AsyncBorrowingPool>(
            executor, [this]() -> asio::awaitable<BorrowedConnection> {
                co_await pause(1us);
                co_return lend();
            });
    }
    BorrowedConnection lend() {
        ++lent;
        return BorrowedConnection(psql.native(), [this](PGconn* connection) {
            CHECK(connection == psql.native());
            ++given_back;
        });
    }

    Psql psql;
    int lent = 0;
    int given_back = 0;
};

enum class Borrower { async, blocking };

/// A cache on one connection of the application.
class BorrowingCache {
  public:
    BorrowingCache(Borrower kind, OneConnection& connection, CacheOptions options) {
        if (kind == Borrower::async) {
            async_.emplace(connection.pool(context_.get_executor()), std::move(options));
        } else {
            blocking_.emplace(connection.pool(), std::move(options));
        }
    }

    std::optional<json::object> get(const std::string& key) {
        return async_ ? run_coro(context_, async_->get_raw(key)) : blocking_->get_raw(key);
    }
    void put(const std::string& key, json::object value, Duration ttl) {
        if (async_) {
            run_coro(context_, async_->put_raw(key, std::move(value), ttl));
        } else {
            blocking_->put_raw(key, value, ttl);
        }
    }
    bool remove(const std::string& key) {
        return async_ ? run_coro(context_, async_->remove(key)) : blocking_->remove(key);
    }
    std::uint64_t cleanup() {
        return async_ ? run_coro(context_, async_->cleanup_expired())
                      : blocking_->cleanup_expired();
    }
    std::uint64_t flush() {
        return async_ ? run_coro(context_, async_->flush()) : blocking_->flush();
    }
    std::vector<std::function<void()>> calls() {
        return {[this] { get("key"); }, [this] { put("key", numbered(1), 1h); },
                [this] { remove("key"); }, [this] { cleanup(); }, [this] { flush(); }};
    }

  private:
    asio::io_context context_;
    std::optional<AsyncPostgresCache> async_;
    std::optional<PostgresCache> blocking_;
};

#define EVERY_BORROWER() GENERATE(Borrower::async, Borrower::blocking)

/// Whether the connection is as a fresh one is, but for the mode given.
void check_as_found(OneConnection& connection, bool nonblocking) {
    PGconn* native = connection.native();
    CHECK(connection.lent == connection.given_back);
    REQUIRE(PQstatus(native) == CONNECTION_OK);
    CHECK(PQisnonblocking(native) == (nonblocking ? 1 : 0));
    CHECK(PQtransactionStatus(native) == PQTRANS_IDLE);
    CHECK(PQpipelineStatus(native) == PQ_PIPELINE_OFF);
    CHECK(PQisBusy(native) == 0);
    CHECK(connection.psql.number("SELECT count(*) FROM pg_prepared_statements") == 0);
    CHECK(connection.psql.number("SELECT count(*) FROM pg_cursors WHERE name <> ''") == 0);
    CHECK(connection.psql.number("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND "
                                 "locktype = 'advisory'") == 0);
    CHECK(connection.psql.number("SELECT count(*) FROM pg_settings WHERE source = 'session'") == 0);
}

/// A pool that an application has made itself; it names no executor.
class OneConnectionPool : public AsyncCachePool {
  public:
    explicit OneConnectionPool(OneConnection& connection) : connection_(connection) {}
    asio::awaitable<ConnectionLease> connect() override {
        co_return ConnectionLease(connection_.lend());
    }

  private:
    OneConnection& connection_;
};

}  // namespace

TEST_CASE("A borrowed connection comes back as it was found") {
    const auto kind = EVERY_BORROWER();
    const bool nonblocking = GENERATE(false, true);
    CAPTURE(static_cast<int>(kind), nonblocking);
    TestSchema schema;
    OneConnection connection;
    // Psql sets an encoding; what counts as "session" must be what the cache did.
    connection.psql.exec("RESET ALL");
    REQUIRE(PQsetnonblocking(connection.native(), nonblocking ? 1 : 0) == 0);
    const auto pid = PQbackendPID(connection.native());
    BorrowingCache cache(kind, connection, schema.cache_options());

    cache.put("key", numbered(1), 1h);
    check_as_found(connection, nonblocking);
    CHECK(cache.get("key") == numbered(1));
    check_as_found(connection, nonblocking);
    CHECK(cache.get("absent") == std::nullopt);
    check_as_found(connection, nonblocking);
    CHECK(cache.remove("key"));
    check_as_found(connection, nonblocking);
    CHECK(cache.cleanup() == 0);
    check_as_found(connection, nonblocking);
    CHECK(cache.flush() == 0);
    check_as_found(connection, nonblocking);
    CHECK(connection.lent >= 6);
    CHECK(PQbackendPID(connection.native()) == pid);
}

TEST_CASE("A borrowed connection comes back as it was found, also after an error") {
    const auto kind = EVERY_BORROWER();
    const bool nonblocking = GENERATE(false, true);
    CAPTURE(static_cast<int>(kind), nonblocking);
    TestSchema schema(Table::none);
    OneConnection connection;
    connection.psql.exec("RESET ALL");
    REQUIRE(PQsetnonblocking(connection.native(), nonblocking ? 1 : 0) == 0);
    BorrowingCache cache(kind, connection, schema.cache_options());

    for (const auto& call : cache.calls()) {
        CHECK(failure_of(call).code() == Errc::table_missing);
        check_as_found(connection, nonblocking);
    }
    schema.sql().exec("CREATE TABLE " + schema.table() +
                      " (key text PRIMARY KEY CHECK (key <> 'x'), value jsonb NOT NULL, expires_at "
                      "timestamptz NOT NULL)");
    CHECK(failure_of([&] { cache.put("x", numbered(1), 1h); }).sqlstate() == "23514");
    check_as_found(connection, nonblocking);
    cache.put("key", numbered(1), 1h);
    CHECK(cache.get("key") == numbered(1));
    check_as_found(connection, nonblocking);
}

TEST_CASE("A connection inside a transaction is refused and given back untouched") {
    const auto kind = EVERY_BORROWER();
    const bool failed = GENERATE(false, true);
    CAPTURE(static_cast<int>(kind), failed);
    TestSchema schema;
    OneConnection connection;
    BorrowingCache cache(kind, connection, schema.cache_options());
    connection.psql.exec("BEGIN");
    schema.sql().exec("CREATE TABLE " + schema.quoted() + ".other (i int)");
    connection.psql.exec("INSERT INTO " + schema.quoted() + ".other VALUES (1)");
    if (failed) {
        CHECK_THROWS_AS(connection.psql.exec("SELECT 1 / 0"), SqlError);
    }

    for (const auto& call : cache.calls()) {
        const auto failure = failure_of(call);
        CHECK(failure.code() == Errc::connection_unusable);
        CHECK(failure.typed());
        CHECK_THAT(failure.what(), Catch::Contains("transaction"));
        CHECK(connection.lent == connection.given_back);
        CHECK(PQtransactionStatus(connection.native()) ==
              (failed ? PQTRANS_INERROR : PQTRANS_INTRANS));
    }
    connection.psql.exec("COMMIT");
    CHECK(schema.sql().number("SELECT count(*) FROM " + schema.quoted() + ".other") ==
          (failed ? 0 : 1));
    CHECK(schema.rows() == 0);
    cache.put("key", numbered(1), 1h);
    CHECK(cache.get("key") == numbered(1));
}

TEST_CASE("A busy connection is refused and its answer can still be read") {
    const auto kind = EVERY_BORROWER();
    CAPTURE(static_cast<int>(kind));
    TestSchema schema;
    OneConnection connection;
    BorrowingCache cache(kind, connection, schema.cache_options());
    REQUIRE(PQsendQuery(connection.native(), "SELECT 'mine' FROM pg_sleep(0.05)") == 1);

    CHECK(failure_of([&] { cache.get("key"); }).code() == Errc::connection_unusable);
    CHECK(connection.lent == connection.given_back);
    PGresult* result = PQgetResult(connection.native());
    REQUIRE(PQresultStatus(result) == PGRES_TUPLES_OK);
    CHECK(std::string(PQgetvalue(result, 0, 0)) == "mine");
    PQclear(result);
    CHECK(PQgetResult(connection.native()) == nullptr);
    CHECK(cache.get("key") == std::nullopt);
}

TEST_CASE("A connection in pipeline mode is refused and stays in it") {
    const auto kind = EVERY_BORROWER();
    CAPTURE(static_cast<int>(kind));
    TestSchema schema;
    OneConnection connection;
    BorrowingCache cache(kind, connection, schema.cache_options());
    REQUIRE(PQenterPipelineMode(connection.native()) == 1);

    CHECK(failure_of([&] { cache.get("key"); }).code() == Errc::connection_unusable);
    CHECK(PQpipelineStatus(connection.native()) == PQ_PIPELINE_ON);
    REQUIRE(PQexitPipelineMode(connection.native()) == 1);
    CHECK(cache.get("key") == std::nullopt);
}

TEST_CASE("A connection with another client encoding is refused") {
    const auto kind = EVERY_BORROWER();
    CAPTURE(static_cast<int>(kind));
    TestSchema schema;
    OneConnection connection;
    BorrowingCache cache(kind, connection, schema.cache_options());
    REQUIRE(PQsetClientEncoding(connection.native(), "LATIN1") == 0);

    CHECK(failure_of([&] { cache.get("key"); }).code() == Errc::connection_unusable);
    CHECK(std::string(PQparameterStatus(connection.native(), "client_encoding")) == "LATIN1");
    REQUIRE(PQsetClientEncoding(connection.native(), "UTF8") == 0);
    CHECK(cache.get("key") == std::nullopt);
}

TEST_CASE("A closed connection is refused and given back") {
    const auto kind = EVERY_BORROWER();
    CAPTURE(static_cast<int>(kind));
    TestSchema schema;
    OneConnection connection;
    BorrowingCache cache(kind, connection, schema.cache_options());
    CHECK(cache.get("key") == std::nullopt);
    schema.sql().exec("SELECT pg_terminate_backend(" +
                      std::to_string(PQbackendPID(connection.native())) + ")");
    REQUIRE(eventually([&] {
        return PQconsumeInput(connection.native()) == 0 ||
               PQstatus(connection.native()) == CONNECTION_BAD;
    }));
    CHECK_THROWS_AS(connection.psql.exec("SELECT 1"), SqlError);
    REQUIRE(PQstatus(connection.native()) == CONNECTION_BAD);

    CHECK(failure_of([&] { cache.get("key"); }).code() == Errc::connection_unusable);
    CHECK(connection.lent == connection.given_back);
    PQreset(connection.native());
    CHECK(cache.get("key") == std::nullopt);
}

TEST_CASE("A borrowed connection that breaks during a call fails it and is given back closed") {
    const auto kind = EVERY_BORROWER();
    CAPTURE(static_cast<int>(kind));
    const auto port = tcp_port();
    if (!port) {
        return;
    }
    TestSchema schema;
    Gate gate(*port);
    gate.switch_on();
    OneConnection connection(*tcp_dsn({{"port", gate.port()}, {"sslmode", "disable"}}));
    BorrowingCache cache(kind, connection, schema.cache_options());
    TableLock lock(schema);
    std::thread cutter([&] {
        eventually([&] { return lock.waiting() == 1; });
        gate.switch_off();
    });
    const auto failure = failure_of([&] { cache.put("key", numbered(1), 1h); });
    cutter.join();
    lock.release();

    CHECK(failure.code() == Errc::outcome_unknown);
    CHECK(connection.lent == connection.given_back);
    CHECK(PQstatus(connection.native()) == CONNECTION_BAD);
}

TEST_CASE("A borrowed connection whose call timed out is given back closed") {
    TestSchema schema;
    OneConnection connection;
    auto options = schema.cache_options();
    options.timeout = 200ms * slowness;
    BorrowingCache cache(Borrower::blocking, connection, options);
    {
        TableLock lock(schema);
        CHECK(failure_of([&] { cache.put("key", numbered(1), 1h); }).code() == Errc::timed_out);
        CHECK(connection.lent == connection.given_back);
        CHECK(PQstatus(connection.native()) == CONNECTION_BAD);
        lock.release();
    }
    PQreset(connection.native());
    CHECK_FALSE(failure_of([&] { cache.get("key"); }));
}

TEST_CASE("What a source of connections throws reaches the callers") {
    TestSchema schema;
    int calls = 0;
    const auto fail = [&]() {
        ++calls;
        if (calls % 2 == 1) {
            throw Error(Errc::acquire_timed_out, "the source is dry");
        }
        throw std::runtime_error("the source is broken");
    };
    SECTION("blocking") {
        PostgresCache cache(std::make_shared<BorrowingPool>([&]() -> BorrowedConnection {
                                fail();
                                return {};
                            }),
                            schema.cache_options());
        CHECK(failure_of([&] { cache.get_raw("key"); }).code() == Errc::acquire_timed_out);
        CHECK(failure_of([&] { cache.get_raw("key"); }).code() == Errc::connect_failed);
    }
    SECTION("asynchronous") {
        asio::io_context context;
        AsyncPostgresCache cache(
            std::make_shared<AsyncBorrowingPool>(context.get_executor(),
                                                 [&]() -> asio::awaitable<BorrowedConnection> {
                                                     fail();
                                                     co_return BorrowedConnection();
                                                 }),
            schema.cache_options());
        CHECK(run_coro(context, failure_of(cache.get_raw("key"))).code() ==
              Errc::acquire_timed_out);
        CHECK(run_coro(context, failure_of(cache.get_raw("key"))).code() == Errc::connect_failed);
    }
}

TEST_CASE("The words of a pool that throws are in the error, with the exception itself") {
    struct Sealed : std::runtime_error {
        Sealed() : std::runtime_error("the vault is sealed") {}
        int attempts = 7;
    };
    const auto check = [](const auto& call) {
        try {
            call();
            FAIL("it did not throw");
        } catch (const Error& error) {
            CHECK(error.code() == Errc::connect_failed);
            CHECK_THAT(error.what(), Catch::EndsWith(": the pool says: the vault is sealed"));
            CHECK(std::string(error.what()) == "psycache: " + std::string(error.operation()) +
                                                   ": " + std::string(error.cause()));
            REQUIRE(error.cause_exception());
            try {
                std::rethrow_exception(error.cause_exception());
            } catch (const Sealed& sealed) {
                CHECK(sealed.attempts == 7);
            }
        }
    };
    TestSchema schema;
    PostgresCache blocking(
        std::make_shared<BorrowingPool>([]() -> BorrowedConnection { throw Sealed(); }),
        schema.cache_options());
    check([&] { blocking.get_raw("key"); });
    check([&] { blocking.put_raw("key", numbered(1), 1h); });
    check([&] { blocking.get_raw_many({"a", "b"}); });
    check([&] { blocking.cleanup_expired(); });
    check([&] { blocking.flush(); });

    asio::io_context context;
    const auto pool = std::make_shared<AsyncBorrowingPool>(
        context.get_executor(), []() -> asio::awaitable<BorrowedConnection> {
            throw Sealed();
            co_return BorrowedConnection();
        });
    AsyncPostgresCache async(pool, schema.cache_options());
    check([&] { run_coro(context, async.get_raw("key")); });
    check([&] { run_coro(context, async.put_raw("key", numbered(1), 1h)); });
    check([&] { run_coro(context, async.get_raw_many({"a", "b"})); });
    check([&] { run_coro(context, async.cleanup_expired()); });
    check([&] { run_coro(context, async.flush()); });
    check([&] { run_coro(context, init_db(*pool, schema.table_options())); });
}

TEST_CASE("A source that lends nothing is an error, not a crash") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache async(
        std::make_shared<AsyncBorrowingPool>(
            context.get_executor(),
            []() -> asio::awaitable<BorrowedConnection> { co_return BorrowedConnection(); }),
        schema.cache_options());
    CHECK(run_coro(context, failure_of(async.get_raw("key"))));
    PostgresCache blocking(std::make_shared<BorrowingPool>([] { return BorrowedConnection(); }),
                           schema.cache_options());
    CHECK(failure_of([&] { blocking.get_raw("key"); }));
}

TEST_CASE("Borrowing pools refuse to be made of nothing") {
    asio::io_context context;
    CHECK_THROWS_AS(BorrowingPool(nullptr), std::invalid_argument);
    CHECK_THROWS_AS(AsyncBorrowingPool(context.get_executor(), nullptr), std::invalid_argument);
    const auto borrow = []() -> asio::awaitable<BorrowedConnection> {
        co_return BorrowedConnection();
    };
    CHECK_THROWS_AS(AsyncBorrowingPool(asio::any_io_executor(), borrow), std::invalid_argument);
    CHECK_THROWS_AS(BorrowedConnection(nullptr, nullptr), std::invalid_argument);
    CHECK_THROWS_AS(AsyncPostgresCache(std::shared_ptr<AsyncCachePool>()), std::invalid_argument);
    CHECK_THROWS_AS(PostgresCache(std::shared_ptr<CachePool>()), std::invalid_argument);
}

TEST_CASE("A borrowed connection goes back exactly once") {
    Psql psql;
    int back = 0;
    const auto give_back = [&](PGconn*) { ++back; };
    {
        BorrowedConnection a(psql.native(), give_back);
        CHECK(static_cast<bool>(a));
        CHECK(a.get() == psql.native());
        BorrowedConnection b(std::move(a));
        CHECK_FALSE(static_cast<bool>(a));  // NOLINT: what is left is specified
        BorrowedConnection c;
        c = std::move(b);
        CHECK(c.get() == psql.native());
        CHECK(back == 0);
        c = BorrowedConnection();
        CHECK(back == 1);
    }
    CHECK(back == 1);
    {
        BorrowedConnection throws(psql.native(), [&](PGconn*) {
            ++back;
            throw std::runtime_error("swallowed");
        });
        BorrowedConnection silent(psql.native(), nullptr);
    }
    CHECK(back == 2);
}

TEST_CASE("An application can implement the pool itself") {
    TestSchema schema;
    OneConnection connection;
    asio::io_context context;
    AsyncPostgresCache cache(std::make_shared<OneConnectionPool>(connection),
                             schema.cache_options());
    run_coro(context, cache.put_raw("key", numbered(1), 1h));
    CHECK(run_coro(context, cache.get_raw("key")) == numbered(1));
    CHECK(connection.lent >= 2);
    CHECK(connection.lent == connection.given_back);
    // Such a pool names no executor for a cleanup task.
    CHECK_THROWS_AS(cache.start_cleanup_task(1min), std::invalid_argument);
    OneConnectionPool pool(connection);
    run_coro(context, init_db(pool, schema.table_options()));
    CHECK(connection.lent == connection.given_back);
}

TEST_CASE("A pool without an executor serves one context after the other") {
    TestSchema schema;
    OneConnection connection;
    AsyncPostgresCache cache(std::make_shared<OneConnectionPool>(connection),
                             schema.cache_options());
    for (int round = 0; round < 3; ++round) {
        // A warm-up, say, on a context that is gone when the next call comes.
        asio::io_context context;
        run_coro(context, cache.put_raw("key", numbered(round), 1h));
        CHECK(run_coro(context, cache.get_raw("key")) == numbered(round));
        if (round == 1) {
            // One that goes away with a call on its way.
            asio::co_spawn(context, cache.get_raw("key"), asio::detached);
            context.restart();
            context.poll_one();
        }
    }
    CHECK(run_coro(cache.get_raw("key")) == numbered(2));
    CHECK(connection.lent == connection.given_back);
}

TEST_CASE("Deadlines hold on a context that comes after one that went away with a call") {
    class OwnPool : public AsyncCachePool {
      public:
        asio::awaitable<ConnectionLease> connect() override {
            co_return ConnectionLease(connections_->lend(connections_->try_take()));
        }

      private:
        std::shared_ptr<AppConnections> connections_ = std::make_shared<AppConnections>();
    };
    TestSchema schema;
    schema.insert("key", "{}");
    auto options = schema.cache_options();
    options.timeout = 300ms * slowness;
    AsyncPostgresCache cache(std::make_shared<OwnPool>(), options);
    TableLock lock(schema);
    std::optional<asio::io_context> context;  // the next one is where the last one was
    context.emplace();
    asio::co_spawn(*context, cache.get_raw("key"), asio::detached);
    context->run_for(50ms);
    context.reset();
    context.emplace();
    CHECK(run_coro(*context, failure_of(cache.get_raw("key"))).code() == Errc::timed_out);
}

TEST_CASE("Many callers share the connections of the application") {
    TestSchema schema;
    NamedPool named;
    const auto connections = std::make_shared<AppConnections>(named.options.dsn, 2);
    asio::io_context context;
    AsyncPostgresCache cache(connections->pool(context.get_executor()), schema.cache_options());
    run_coro(context, [&]() -> asio::awaitable<void> {
        std::vector<Started<void>> puts;
        for (int i = 0; i < 300; ++i) {
            puts.push_back(
                start(context.get_executor(), cache.put_raw(std::to_string(i), numbered(i), 1h)));
        }
        for (auto& put : puts) {
            co_await put.get();
        }
        for (int i = 0; i < 300; i += 37) {
            const auto value = co_await cache.get_raw(std::to_string(i));
            CHECK(value == numbered(i));
        }
    });
    CHECK(connections->lent() == 0);
    CHECK(schema.sql().connections(named.name) <= 2);
    CHECK(schema.rows() == 300);
}
