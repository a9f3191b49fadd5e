// The cleanup services: the coroutine, the task and the thread.

#include <algorithm>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/detached.hpp>
#include <catch2/catch.hpp>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <thread>

#include <unistd.h>

#include "support/both.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// A running cleanup, whichever kind; its cache lives beside it.
class Service {
  public:
    Service() = default;
    Service(const Service&) = delete;
    Service& operator=(const Service&) = delete;
    virtual ~Service() = default;

    virtual bool stop(std::optional<Duration> timeout) = 0;
    virtual bool stop_by_default() = 0;
    /// Forgets the handle.
    virtual void destroy() = 0;
    virtual CacheStatistics statistics() = 0;
};

class ThreadService : public Service {
  public:
    ThreadService(CacheOptions options, PoolOptions pool, Duration interval)
        : cache_(std::move(pool), std::move(options)),
          service_(cache_.start_cleanup_thread(interval)) {}
    bool stop(std::optional<Duration> timeout) override { return service_.stop(timeout); }
    bool stop_by_default() override { return service_.stop(); }
    void destroy() override { service_ = CleanupService(); }
    CacheStatistics statistics() override { return cache_.statistics(); }

  private:
    PostgresCache cache_;
    CleanupService service_;
};

/// The task runs on a context of its own that a thread runs, so that it looks like a thread.
class TaskService : public Service {
  public:
    TaskService(CacheOptions options, PoolOptions pool, Duration interval, bool other_executor)
        : cache_(threads_.context().get_executor(), std::move(pool), std::move(options)),
          service_(other_executor
                       ? cache_.start_cleanup_task(others_.context().get_executor(), interval)
                       : cache_.start_cleanup_task(interval)) {}
    ~TaskService() override {
        service_ = AsyncCleanupService();
        CHECK(others_.finish());
        CHECK(threads_.finish());
    }
    bool stop(std::optional<Duration> timeout) override { return run_coro(service_.stop(timeout)); }
    bool stop_by_default() override { return run_coro(service_.stop()); }
    void destroy() override { service_ = AsyncCleanupService(); }
    CacheStatistics statistics() override { return cache_.statistics(); }

  private:
    Threads threads_{1};
    Threads others_{1};
    AsyncPostgresCache cache_;
    AsyncCleanupService service_;
};

enum class ServiceKind { thread, task, task_elsewhere };

std::ostream& operator<<(std::ostream& out, ServiceKind kind) {
    static constexpr const char* names[] = {"thread", "task", "task on another executor"};
    return out << names[static_cast<int>(kind)];
}

std::unique_ptr<Service> start_service(ServiceKind kind, CacheOptions options, Duration interval,
                                       PoolOptions pool = server_pool()) {
    if (kind == ServiceKind::thread) {
        return std::make_unique<ThreadService>(std::move(options), std::move(pool), interval);
    }
    return std::make_unique<TaskService>(std::move(options), std::move(pool), interval,
                                         kind == ServiceKind::task_elsewhere);
}

#define EVERY_SERVICE() \
    GENERATE(ServiceKind::thread, ServiceKind::task, ServiceKind::task_elsewhere)

/// What the process writes to standard error.
class StandardError {
  public:
    StandardError() : before_(dup(STDERR_FILENO)), file_(std::tmpfile()) {
        REQUIRE(file_ != nullptr);
        REQUIRE(dup2(fileno(file_), STDERR_FILENO) >= 0);
    }
    StandardError(const StandardError&) = delete;
    StandardError& operator=(const StandardError&) = delete;
    ~StandardError() {
        dup2(before_, STDERR_FILENO);
        close(before_);
        std::fclose(file_);
    }

    std::string text() {
        std::string all(1 << 16, '\0');
        std::rewind(file_);
        all.resize(std::fread(all.data(), 1, all.size(), file_));
        return all;
    }

  private:
    const int before_;
    std::FILE* const file_;
};

std::ptrdiff_t cleanup_threads() {
    const auto names = thread_names();
    // "psycache-cleanup", of which Linux keeps fifteen characters.
    return std::count(names.begin(), names.end(), "psycache-cleanu");
}

}  // namespace

TEST_CASE("A cleanup service cleans at once and then after every interval") {
    const auto kind = EVERY_SERVICE();
    CAPTURE(kind);
    TestSchema schema;
    schema.insert_many("live", 5, "'infinity'");
    schema.insert_many("expired", 10, "'-infinity'");
    const auto cleaned = [&] { return schema.rows() == 5; };

    const auto service = start_service(kind, schema.cache_options(), 100ms);
    CHECK(eventually(cleaned));
    for (int round = 0; round < 3; ++round) {
        schema.insert_many("expired", 10, "'-infinity'");
        CHECK(eventually(cleaned));
    }
    CHECK(service->stop_by_default());
    CHECK(service->statistics().cleanup_failures == 0);
}

TEST_CASE("A cleanup service waits its interval between two runs") {
    const auto kind = EVERY_SERVICE();
    CAPTURE(kind);
    TestSchema schema;
    schema.insert_many("expired", 10, "'-infinity'");
    const auto cleaned = [&] { return schema.rows() == 0; };
    const auto service = start_service(kind, schema.cache_options(), 1h);
    CHECK(eventually(cleaned));
    schema.insert_many("expired", 10, "'-infinity'");
    std::this_thread::sleep_for(100ms);
    CHECK(schema.rows() == 10);

    const auto started = Clock::now();
    CHECK(service->stop_by_default());  // a pause ends at once
    CHECK(Clock::now() - started < 2s);
    CHECK(schema.rows() == 10);
}

TEST_CASE("A stopped cleanup service does nothing more and may be stopped again") {
    const auto kind = EVERY_SERVICE();
    CAPTURE(kind);
    TestSchema schema;
    LogCapture log;
    auto options = schema.cache_options();
    options.log = log.sink();
    const auto service = start_service(kind, options, 10ms);
    schema.insert_many("expired", 10, "'-infinity'");
    CHECK(eventually([&] { return schema.rows() == 0; }));

    CHECK(service->stop(std::nullopt));
    CHECK(service->stop(0s));
    CHECK(service->stop_by_default());
    schema.insert_many("expired", 10, "'-infinity'");
    std::this_thread::sleep_for(50ms);
    CHECK(schema.rows() == 10);
    CHECK(log.journal().lines() == std::vector<std::string>{});
}

TEST_CASE("An error in one run of a cleanup service is logged, and the loop goes on") {
    const auto kind = EVERY_SERVICE();
    CAPTURE(kind);
    TestSchema schema(Table::none);
    LogCapture log;
    auto options = schema.cache_options();
    options.log = log.sink();
    const auto service = start_service(kind, options, 20ms);

    CHECK(eventually([&] { return log.journal().count("Periodic cache cleanup failed") >= 3; }));
    CHECK(service->statistics().cleanup_failures >= 3);
    const auto lines = log.journal().lines();
    for (const auto& line : lines) {
        // With the error: here that the table is missing, and what to do.
        CHECK_THAT(line,
                   Catch::Contains("Periodic cache cleanup failed") && Catch::Contains("init_db"));
        CHECK_THAT(line, Catch::StartsWith("error: ") || Catch::StartsWith("warning: "));
    }
    init_db(dsn(), schema.table_options());
    schema.insert_many("expired", 10, "'-infinity'");
    CHECK(eventually([&] { return schema.rows() == 0; }));
    schema.sql().exec("DROP TABLE " + schema.table());
    const auto before = log.journal().count("Periodic cache cleanup failed");
    CHECK(
        eventually([&] { return log.journal().count("Periodic cache cleanup failed") > before; }));
    CHECK(service->stop_by_default());
}

TEST_CASE("Without a log a cleanup that fails for ever is heard of once on standard error") {
    // Its words are in the line, which so is a new one.
    const auto words = unique_name("sealed");
    const auto borrow = [&]() -> BorrowedConnection { throw std::runtime_error(words); };
    const auto heard = [&](const CacheOptions& options) {
        PostgresCache blocking(std::make_shared<BorrowingPool>(borrow), options);
        Threads threads(1);
        const auto executor = threads.context().get_executor();
        AsyncPostgresCache async(
            std::make_shared<AsyncBorrowingPool>(
                executor, [&]() -> asio::awaitable<BorrowedConnection> { co_return borrow(); }),
            options);
        StandardError captured;
        {
            const auto thread = blocking.start_cleanup_thread(10ms);
            const auto task = async.start_cleanup_task(10ms);
            CHECK(eventually([&] {
                return blocking.statistics().cleanup_failures >= 5 &&
                       async.statistics().cleanup_failures >= 5;
            }));
        }
        CHECK(threads.finish());
        return captured.text();
    };
    CacheOptions silent;
    silent.log = [](LogLevel, std::string_view) {};
    CHECK(heard(silent).empty());
    CHECK(heard(CacheOptions()) ==
          "psycache: error: Periodic cache cleanup failed: cannot connect to the server: the pool "
          "says: " +
              words + "\n");
}

TEST_CASE("A cleanup service survives that its connection is killed") {
    const auto kind = EVERY_SERVICE();
    CAPTURE(kind);
    TestSchema schema;
    NamedPool named;
    const auto service = start_service(kind, schema.cache_options(), 20ms, named.options);
    for (int round = 0; round < 3; ++round) {
        schema.insert_many("expired", 10, "'-infinity'");
        CHECK(eventually([&] { return schema.rows() == 0; }));
        schema.sql().terminate(named.name);
    }
    CHECK(service->stop_by_default());
}

TEST_CASE("Stop tells when a run did not end in time, and the run still ends") {
    const auto kind = EVERY_SERVICE();
    const Duration timeout = GENERATE(Duration(0), Duration(100ms));
    CAPTURE(kind, timeout.count());
    TestSchema schema;
    schema.insert_many("expired", 10, "'-infinity'");
    LogCapture log;
    auto options = schema.cache_options();
    options.log = log.sink();
    TableLock lock(schema);
    const auto service = start_service(kind, options, 1h);
    REQUIRE(eventually([&] { return lock.waiting() == 1; }));

    const auto started = Clock::now();
    CHECK_FALSE(service->stop(timeout));
    CHECK(Clock::now() - started >= timeout);
    CHECK(Clock::now() - started < timeout + 2s);
    CHECK(log.journal().count("did not stop") == 1);
    CHECK(log.journal().count("warning: ") == 1);
    CHECK_FALSE(service->stop(timeout));
    lock.release();
    CHECK(service->stop(std::nullopt));
    CHECK(schema.rows() == 0);
    CHECK(service->stop(0s));
}

TEST_CASE("A cleanup service refuses an interval that is not positive and finite") {
    TestSchema schema(Table::none);
    NamedPool named;
    asio::io_context context;
    AsyncPostgresCache async(context.get_executor(), named.options, schema.cache_options());
    PostgresCache blocking(named.options, schema.cache_options());
    for (const auto interval : {Duration(0), Duration(-1), Duration::min(), no_expiry}) {
        CAPTURE(interval.count());
        const auto tells = Catch::Contains("interval");
        CHECK_THROWS_AS(async.start_cleanup_task(interval), std::invalid_argument);
        CHECK_THROWS_WITH(async.start_cleanup_task(interval), tells);
        CHECK_THROWS_AS(async.start_cleanup_task(context.get_executor(), interval),
                        std::invalid_argument);
        CHECK_THROWS_AS(run_coro(context, async.run_cleanup(interval)), std::invalid_argument);
        CHECK_THROWS_AS(blocking.start_cleanup_thread(interval), std::invalid_argument);
        CHECK_THROWS_WITH(blocking.start_cleanup_thread(interval), tells);
    }
    CHECK_THROWS_AS(async.start_cleanup_task(asio::any_io_executor(), 1s), std::invalid_argument);
    CHECK(cleanup_threads() == 0);
    CHECK(schema.sql().connections(named.name) == 0);
}

TEST_CASE("Stop refuses a time-out that is negative or endless, and stops nothing") {
    const auto kind = EVERY_SERVICE();
    CAPTURE(kind);
    TestSchema schema;
    const auto service = start_service(kind, schema.cache_options(), 20ms);
    for (const auto timeout : {Duration(-1), Duration::min(), no_expiry}) {
        CAPTURE(timeout.count());
        CHECK_THROWS_AS(service->stop(timeout), std::invalid_argument);
    }
    schema.insert_many("expired", 10, "'-infinity'");
    CHECK(eventually([&] { return schema.rows() == 0; }));
    CHECK(service->stop_by_default());
}

TEST_CASE("Destroying the handle stops a cleanup service") {
    const auto kind = EVERY_SERVICE();
    CAPTURE(kind);
    TestSchema schema;
    NamedPool named;
    {
        const auto service = start_service(kind, schema.cache_options(), 20ms, named.options);
        schema.insert_many("expired", 10, "'-infinity'");
        CHECK(eventually([&] { return schema.rows() == 0; }));
        service->destroy();
        if (kind == ServiceKind::thread) {
            CHECK(cleanup_threads() == 0);
        }
    }
    CHECK(eventually([&] { return schema.sql().connections(named.name) == 0; }));
}

TEST_CASE("A handle of nothing answers that it has stopped") {
    CleanupService thread;
    CHECK(thread.stop());
    CHECK(thread.stop(std::nullopt));
    AsyncCleanupService task;
    CHECK(run_coro(task.stop()));
    CHECK(run_coro(task.stop(std::nullopt)));
}

TEST_CASE("A cleanup handle can be moved") {
    TestSchema schema;
    PostgresCache cache(server_pool(), schema.cache_options());
    CleanupService a = cache.start_cleanup_thread(10ms);
    CleanupService b = std::move(a);
    CHECK(a.stop());  // NOLINT: a handle of nothing
    CHECK(eventually([] { return cleanup_threads() == 1; }));
    b = cache.start_cleanup_thread(10ms);
    CHECK(eventually([] { return cleanup_threads() == 1; }));
    schema.insert_many("expired", 10, "'-infinity'");
    CHECK(eventually([&] { return schema.rows() == 0; }));
    CHECK(b.stop());
    CHECK(eventually([] { return cleanup_threads() == 0; }));
}

TEST_CASE("The cleanup thread has its name and a connection of its own") {
    TestSchema schema;
    NamedPool named;
    named.options.max_size = 1;
    PostgresCache cache(named.options, schema.cache_options());
    cache.put_raw("key", numbered(1), 1h);
    CHECK(cleanup_threads() == 0);
    auto service = cache.start_cleanup_thread(10ms);
    CHECK(eventually([] { return cleanup_threads() == 1; }));
    CHECK(eventually([&] { return schema.sql().connections(named.name) == 2; }));
    CHECK(cache.get_raw("key") == numbered(1));
    CHECK(service.stop());
    service = CleanupService();
    CHECK(cleanup_threads() == 0);
    CHECK(eventually([&] { return schema.sql().connections(named.name) == 1; }));
}

TEST_CASE("A cleanup thread outlives its cache") {
    TestSchema schema;
    CleanupService service;
    {
        PostgresCache cache(server_pool(), schema.cache_options());
        service = cache.start_cleanup_thread(10ms);
    }
    schema.insert_many("expired", 10, "'-infinity'");
    CHECK(eventually([&] { return schema.rows() == 0; }));
    CHECK(service.stop());
}

TEST_CASE("A cleanup thread works on borrowed connections") {
    TestSchema schema;
    const auto connections = std::make_shared<AppConnections>(dsn(), 1);
    PostgresCache cache(connections->pool(), schema.cache_options());
    auto service = cache.start_cleanup_thread(10ms);
    schema.insert_many("expired", 10, "'-infinity'");
    CHECK(eventually([&] { return schema.rows() == 0; }));
    cache.put_raw("key", numbered(1), 1h);
    CHECK(cache.get_raw("key") == numbered(1));
    CHECK(service.stop());
    CHECK(connections->lent() == 0);
}

TEST_CASE("A cleanup thread is stopped from several threads at once") {
    TestSchema schema;
    PostgresCache cache(server_pool(), schema.cache_options());
    for (int round = 0; round < 5; ++round) {
        auto service = cache.start_cleanup_thread(1ms);
        std::atomic<int> stopped = 0;
        std::vector<std::thread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&] { stopped += service.stop(10s) ? 1 : 0; });
        }
        for (auto& thread : threads) {
            thread.join();
        }
        CHECK(stopped == 4);
    }
}

TEST_CASE("io_context::run returns after the handle of a cleanup task was destroyed") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), schema.cache_options());
    schema.insert_many("expired", 10, "'-infinity'");
    std::optional<AsyncCleanupService> service(cache.start_cleanup_task(1h));
    context.run_for(300ms);
    CHECK_FALSE(context.stopped());
    CHECK(eventually([&] {
        context.poll();
        return schema.rows() == 0;
    }));

    service.reset();
    const auto started = Clock::now();
    CHECK(run_out(context));
    CHECK(Clock::now() - started < 2s);
}

TEST_CASE("A cleanup task that is never run is destroyed with its context") {
    TestSchema schema;
    NamedPool named;
    {
        asio::io_context context;
        AsyncPostgresCache cache(context.get_executor(), named.options, schema.cache_options());
        auto service = cache.start_cleanup_task(1s);
        context.poll_one();
    }
    CHECK(eventually([&] { return schema.sql().connections(named.name) == 0; }));
}

TEST_CASE("Waiting for a cleanup task to stop can be cancelled, and it stops all the same") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), schema.cache_options());
    run_coro(context, [&]() -> asio::awaitable<void> {
        schema.insert_many("expired", 10, "'-infinity'");
        co_await cache.get_raw("warm");
        TableLock lock(schema);
        auto service = cache.start_cleanup_task(1h);
        const auto blocked = [&] { return lock.waiting() == 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        auto stop = start(context.get_executor(), service.stop(std::nullopt));
        auto other = start(context.get_executor(), service.stop(std::nullopt));
        co_await pause(20ms);
        CHECK_FALSE(stop.done());
        stop.cancel();
        const auto failure = co_await stop.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
        CHECK_FALSE(other.done());
        lock.release();
        const bool stopped = co_await other.get();
        CHECK(stopped);
    });
    CHECK(schema.rows() == 0);
    CHECK(run_out(context));
}

TEST_CASE("The handle of a cleanup task may be destroyed while stop waits") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), schema.cache_options());
    run_coro(context, [&]() -> asio::awaitable<void> {
        std::optional<AsyncCleanupService> service(cache.start_cleanup_task(10ms));
        co_await pause(30ms);
        auto stop = start(context.get_executor(), service->stop(std::nullopt));
        service.reset();
        const bool stopped = co_await stop.get();
        CHECK(stopped);
    });
    CHECK(run_out(context));
}

TEST_CASE("The bare cleanup coroutine runs where it is spawned and is stopped by its slot") {
    TestSchema schema;
    const auto type = GENERATE(asio::cancellation_type::terminal, asio::cancellation_type::partial,
                               asio::cancellation_type::total);
    CAPTURE(static_cast<unsigned>(type));
    Threads pool_threads(1);
    AsyncPostgresCache cache(pool_threads.context().get_executor(), server_pool(),
                             schema.cache_options());
    asio::io_context application;
    asio::cancellation_signal signal;
    std::optional<Failure> ended;
    schema.insert_many("live", 5, "'infinity'");
    schema.insert_many("expired", 10, "'-infinity'");
    asio::co_spawn(application, cache.run_cleanup(30ms),
                   asio::bind_cancellation_slot(signal.slot(), [&](std::exception_ptr error) {
                       ended.emplace(Failure(error));
                   }));
    const auto cleaned = [&] {
        application.run_one_for(20ms);
        return schema.rows() == 5;
    };
    for (int round = 0; round < 3; ++round) {
        CHECK(eventually(cleaned));
        schema.insert_many("expired", 10, "'-infinity'");
    }
    CHECK_FALSE(ended);

    signal.emit(type);
    const auto started = Clock::now();
    CHECK(run_out(application));
    CHECK(Clock::now() - started < 2s);
    REQUIRE(ended);
    CHECK(ended->code() == asio::error::operation_aborted);
}

TEST_CASE("A long pause of the bare cleanup coroutine ends at once when it is cancelled") {
    TestSchema schema;
    const auto type = GENERATE(asio::cancellation_type::terminal, asio::cancellation_type::total);
    CAPTURE(static_cast<unsigned>(type));
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), schema.cache_options());
    schema.insert_many("expired", 10, "'-infinity'");
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto loop = start(context.get_executor(), cache.run_cleanup(1h));
        const auto cleaned = [&] { return schema.rows() == 0; };
        const bool is_cleaned = co_await until(cleaned);
        CHECK(is_cleaned);
        co_await pause(20ms);
        const auto started = Clock::now();
        loop.cancel(type);
        const auto failure = co_await loop.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
        CHECK(Clock::now() - started < 1s);
    });
}

TEST_CASE("A running batch of the bare cleanup coroutine is finished before it ends") {
    TestSchema schema;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), server_pool(), schema.cache_options());
    schema.insert_many("expired", 10, "'-infinity'");
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.get_raw("warm");
        TableLock lock(schema);
        auto loop = start(context.get_executor(), cache.run_cleanup(1h));
        const auto blocked = [&] { return lock.waiting() == 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        loop.cancel();
        co_await pause(20ms);
        CHECK_FALSE(loop.done());
        lock.release();
        const auto failure = co_await loop.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
    });
    CHECK(schema.rows() == 0);
}

TEST_CASE("An error of the bare cleanup coroutine is logged and counted, and it goes on") {
    TestSchema schema(Table::none);
    asio::io_context context;
    LogCapture log;
    auto options = schema.cache_options();
    options.log = log.sink();
    AsyncPostgresCache cache(context.get_executor(), server_pool(), options);
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto loop = start(context.get_executor(), cache.run_cleanup(10ms));
        const auto failed = [&] { return cache.statistics().cleanup_failures >= 2; };
        const bool has_failed = co_await until(failed);
        CHECK(has_failed);
        CHECK_FALSE(loop.done());
        init_db(dsn(), schema.table_options());
        schema.insert_many("expired", 10, "'-infinity'");
        const auto cleaned = [&] { return schema.rows() == 0; };
        const bool is_cleaned = co_await until(cleaned);
        CHECK(is_cleaned);
        loop.cancel();
        co_await loop.failure();
    });
    CHECK(log.journal().count("Periodic cache cleanup failed") ==
          cache.statistics().cleanup_failures);
}

TEST_CASE("A cleanup service goes on while the server is away") {
    const auto kind = EVERY_SERVICE();
    CAPTURE(kind);
    LogCapture log;
    CacheOptions options;
    options.log = log.sink();
    PoolOptions pool;
    pool.dsn = "host=127.0.0.1 port=1 user=x dbname=x password=secret-9";
    pool.connect_timeout = 500ms;
    pool.acquire_timeout = 500ms;
    const auto service = start_service(kind, options, 10ms, pool);
    CHECK(eventually([&] { return log.journal().count("Periodic cache cleanup failed") >= 3; }));
    CHECK(service->stop_by_default());
    CHECK_FALSE(log.journal().contains("secret-9"));
}

TEST_CASE("The cleanup of a partitioned table deletes nothing that is alive") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema(Table::none);
    auto& sql = schema.sql();
    sql.exec("CREATE TABLE " + schema.table() +
             " (key text PRIMARY KEY, value jsonb NOT NULL, expires_at timestamptz NOT NULL)"
             " PARTITION BY HASH (key)");
    for (const char* part : {"0", "1", "2", "3"}) {
        sql.exec("CREATE TABLE " + schema.quoted() + ".part" + part + " PARTITION OF " +
                 schema.table() + " FOR VALUES WITH (MODULUS 4, REMAINDER " + part + ")");
    }
    // Rows in different partitions have the same place.
    schema.insert_many("dead", 100, "'-infinity'");
    schema.insert_many("alive", 100, "now() + interval '1 hour'");
    sql.exec("DELETE FROM " + schema.table() + " WHERE key LIKE 'dead%' AND tableoid <> '" +
             schema.name() + ".part0'::regclass");
    const auto dead = schema.rows("key LIKE 'dead%'");
    REQUIRE(dead > 0);
    const auto cache = make_cache(flavour, schema.cache_options(), server_pool());
    CHECK(cache->cleanup() == static_cast<std::uint64_t>(dead));
    CHECK(schema.rows() == 100);
}

TEST_CASE("A cleanup where rows have no place deletes by key") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema(Table::ours);
    auto& sql = schema.sql();
    sql.exec("ALTER TABLE " + schema.table() + " RENAME TO stored");
    sql.exec("CREATE VIEW " + schema.table() + " AS SELECT key, value, expires_at FROM " +
             schema.quoted() + ".stored");
    schema.insert_many("dead", 2500, "'-infinity'");
    schema.insert_many("alive", 10, "now() + interval '1 hour'");
    const auto cache = make_cache(flavour, schema.cache_options(), server_pool());
    CHECK(cache->cleanup() == 2500);
    CHECK(cache->cleanup() == 0);
    CHECK(schema.rows() == 10);
    schema.insert_many("dead", 3, "'-infinity'");
    CHECK(cache->cleanup() == 3);
}
