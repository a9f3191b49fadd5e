// Calls inside of the application's own transaction: data and cache change together or not at all.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef PSYCACHE_TEST_SOCI
#include <soci/postgresql/soci-postgresql.h>
#include <soci/soci.h>

#include <psycache/soci.hpp>
#endif

#include <boost/asio/detached.hpp>
#include <catch2/catch.hpp>
#include <functional>
#include <future>
#include <psycache/transaction_cache.hpp>
#include <stdexcept>
#include <thread>

#include "support/both.hpp"
#include "support/leave.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

enum class Way { blocking, async };

/// The calls of either class on one connection.
class InTransaction {
  public:
    InTransaction(Way way, PGconn* connection, const CacheOptions& options) {
        if (way == Way::async) {
            async_.emplace(context_.get_executor(), connection, options);
        } else {
            blocking_.emplace(connection, options);
        }
    }

    std::optional<json::object> get(const std::string& key, const CallOptions& options = {}) {
        return async_ ? run_coro(context_, async_->get_raw(key, options))
                      : blocking_->get_raw(key, options);
    }
    std::optional<std::string> get_text(const std::string& key, const CallOptions& options = {}) {
        return async_ ? run_coro(context_, async_->get_text(key, options))
                      : blocking_->get_text(key, options);
    }
    void put(const std::string& key, const json::object& value, Duration ttl,
             const PutOptions& options = {}) {
        if (async_) {
            run_coro(context_, async_->put_raw(key, value, ttl, options));
        } else {
            blocking_->put_raw(key, value, ttl, options);
        }
    }
    void put_text(const std::string& key, const std::string& text, Duration ttl,
                  const PutOptions& options = {}) {
        if (async_) {
            run_coro(context_, async_->put_text(key, text, ttl, options));
        } else {
            blocking_->put_text(key, text, ttl, options);
        }
    }
    bool remove(const std::string& key, const CallOptions& options = {}) {
        return async_ ? run_coro(context_, async_->remove(key, options))
                      : blocking_->remove(key, options);
    }
    std::uint64_t remove_prefix(const std::string& prefix, const CallOptions& options = {}) {
        return async_ ? run_coro(context_, async_->remove_prefix(prefix, options))
                      : blocking_->remove_prefix(prefix, options);
    }
    std::uint64_t remove_tag(const std::string& tag, const CallOptions& options = {}) {
        return async_ ? run_coro(context_, async_->remove_tag(tag, options))
                      : blocking_->remove_tag(tag, options);
    }
    std::vector<std::function<void()>> calls() {
        return {[this] { get("key"); },
                [this] { get_text("key"); },
                [this] { put("key", numbered(1), 1h); },
                [this] { put_text("key", "{}", 1h); },
                [this] { remove("key"); },
                [this] { remove_prefix("k"); },
                [this] { remove_tag("tag"); }};
    }

  private:
    asio::io_context context_;
    std::optional<AsyncTransactionCache> async_;
    std::optional<TransactionCache> blocking_;
};

PutOptions having_tags(std::vector<std::string> tags) {
    PutOptions options;
    options.tags = std::move(tags);
    return options;
}

/// The table of tags, as `TableOptions::tags` makes it.
void make_tags_by_sql(TestSchema& schema) {
    schema.sql().exec("CREATE UNLOGGED TABLE IF NOT EXISTS " + schema.quoted() +
                      ".psycache_tags (tag text, key text, expires_at timestamptz NOT NULL, "
                      "PRIMARY KEY (tag, key))");
}

/// An application with a table of its own, one connection, and entries made of that table.
class TransactionTest {
  public:
    explicit TransactionTest(Way way = Way::blocking, std::string_view decoration = {})
        : schema(Table::ours, decoration) {
        make_tags_by_sql(schema);
        schema.sql().exec("CREATE TABLE " + data() +
                          " (id int PRIMARY KEY, name text CHECK (name <> 'wrong'))");
        schema.sql().exec("INSERT INTO " + data() + " VALUES (1, 'old')");
        schema.insert("key", R"({"n": 0})");
        psql.exec("RESET ALL");
        cache.emplace(way, psql.native(), schema.cache_options());
    }

    std::string data() const { return schema.quoted() + ".data"; }
    std::string tags() const { return schema.quoted() + ".psycache_tags"; }
    void update(const std::string& name = "new") {
        psql.exec("UPDATE " + data() + " SET name = " + quote_literal(name) + " WHERE id = 1");
    }
    /// What others see.
    std::string name() { return schema.sql().value("SELECT name FROM " + data()); }
    std::int64_t tag_rows(const std::string& condition = "true") {
        return schema.sql().number("SELECT count(*) FROM " + tags() + " WHERE " + condition);
    }
    PGTransactionStatusType status() const { return PQtransactionStatus(psql.native()); }

    TestSchema schema;
    Psql psql;
    std::optional<InTransaction> cache;
};

/// Another transaction that has the row of a key locked.
class HeldRow {
  public:
    HeldRow(TestSchema& schema, const std::string& key) {
        sql_.exec("BEGIN; SELECT FROM " + schema.table() + " WHERE key = " + quote_literal(key) +
                  " FOR UPDATE");
    }
    void release() { sql_.exec("ROLLBACK"); }

  private:
    Psql sql_;
};

bool waits_for_lock(TestSchema& schema, int pid) {
    return schema.sql().truth(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = " +
        std::to_string(pid));
}

}  // namespace

#define EITHER_WAY() GENERATE(Way::blocking, Way::async)

TEST_CASE("Data and cache are committed together") {
    TransactionTest app(EITHER_WAY(), nasty);
    app.psql.exec("BEGIN");
    app.update();
    CHECK(app.cache->remove("key"));
    CHECK_FALSE(app.cache->remove("key"));
    app.cache->put("other", numbered(2), 1h);
    // Nobody else sees any of it.
    CHECK(app.name() == "old");
    CHECK(app.schema.has("key"));
    CHECK_FALSE(app.schema.has("other"));
    app.psql.exec("COMMIT");
    CHECK(app.name() == "new");
    CHECK_FALSE(app.schema.has("key"));
    CHECK(app.schema.has("other"));
}

TEST_CASE("Data and cache are rolled back together") {
    TransactionTest app(EITHER_WAY());
    const std::string how = GENERATE(as<std::string>(), "rollback", "constraint", "cache");
    CAPTURE(how);
    app.psql.exec("BEGIN");
    app.update();
    app.cache->put("other", numbered(2), 1h, having_tags({"tag"}));
    CHECK(app.cache->remove_prefix("ke") == 1);
    if (how == "constraint") {
        // The application's own statement fails half-way: COMMIT is a rollback then.
        CHECK_THROWS_AS(app.update("wrong"), SqlError);
        CHECK(failure_of([&] { app.cache->get("other"); }).code() == Errc::connection_unusable);
    } else if (how == "cache") {
        app.psql.exec("ALTER TABLE " + app.schema.table() + " ADD CHECK (key <> 'x')");
        CHECK(failure_of([&] { app.cache->put("x", numbered(1), 1h); }).sqlstate() == "23514");
        CHECK(app.status() == PQTRANS_INERROR);
    }
    app.psql.exec(how == "rollback" ? "ROLLBACK" : "COMMIT");
    CHECK(app.name() == "old");
    CHECK(app.schema.has("key"));
    CHECK(app.schema.rows() == 1);
    CHECK(app.tag_rows() == 0);

    // The connection and the object serve the next transaction.
    app.psql.exec("BEGIN");
    CHECK(app.cache->remove("key"));
    app.psql.exec("COMMIT");
    CHECK_FALSE(app.schema.has("key"));
}

TEST_CASE("Savepoints are the application's own") {
    TransactionTest app(EITHER_WAY());
    app.psql.exec("BEGIN");
    app.cache->put("first", numbered(1), 1h);
    app.psql.exec("SAVEPOINT s");
    CHECK(app.cache->remove("key"));
    CHECK(app.cache->get("key") == std::nullopt);
    app.psql.exec("ROLLBACK TO SAVEPOINT s");
    CHECK(app.cache->get("key") == numbered(0));
    // Also after an error of the cache's.
    app.psql.exec("ALTER TABLE " + app.schema.table() + " RENAME TO gone; SAVEPOINT t");
    CHECK(failure_of([&] { app.cache->get("key"); }).code() == Errc::table_missing);
    CHECK(failure_of([&] { app.cache->get("key"); }).code() == Errc::connection_unusable);
    app.psql.exec("ROLLBACK TO SAVEPOINT t");
    CHECK(app.status() == PQTRANS_INTRANS);
    app.psql.exec("ROLLBACK TO SAVEPOINT s");
    CHECK(app.cache->get("first") == numbered(1));
    app.psql.exec("COMMIT");
    CHECK(app.schema.has("key"));
    CHECK(app.schema.has("first"));
}

TEST_CASE("A session that is ended before its commit leaves data and cache as they were") {
    TransactionTest app(EITHER_WAY());
    app.psql.exec("BEGIN");
    app.update();
    CHECK(app.cache->remove("key"));
    app.schema.sql().exec("SELECT pg_terminate_backend(" +
                          std::to_string(PQbackendPID(app.psql.native())) + ")");
    const auto ended = [&] {
        return app.schema.sql().number("SELECT count(*) FROM pg_stat_activity WHERE pid = " +
                                       std::to_string(PQbackendPID(app.psql.native()))) == 0;
    };
    CHECK(eventually(ended));
    const auto failure = failure_of([&] { app.cache->put("other", numbered(1), 1h); });
    CHECK(failure.code() == Errc::connection_lost);
    CHECK_THAT(failure.what(), Catch::Contains("nothing of that is stored"));
    CHECK(failure_of([&] { app.cache->get("key"); }).code() == Errc::connection_unusable);
    CHECK(app.name() == "old");
    CHECK(app.schema.has("key"));
    CHECK(app.schema.rows() == 1);
}

TEST_CASE("A process that is killed before its commit leaves data and cache as they were") {
    TransactionTest app;
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        try {
            Psql psql;
            psql.exec("BEGIN; UPDATE " + app.data() + " SET name = 'new'");
            TransactionCache cache(psql.native(), app.schema.cache_options());
            if (cache.remove("key") && ::write(ready[1], "!", 1) == 1) {
                ::pause();
            }
        } catch (...) {
        }
        ::_exit(1);
    }
    ::close(ready[1]);
    char byte = 0;
    CHECK(::read(ready[0], &byte, 1) == 1);
    ::close(ready[0]);
    ::kill(child, SIGKILL);
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    CHECK(app.name() == "old");
    CHECK(app.schema.has("key"));
    // Its locks go with it.
    app.psql.exec("BEGIN");
    CHECK(app.cache->remove("key"));
    app.psql.exec("COMMIT");
}

TEST_CASE("A transaction reads its own writes") {
    TransactionTest app(EITHER_WAY());
    app.psql.exec("BEGIN");
    app.cache->put("key", object(R"({"a": [1, null, "x"]})"), 1h);
    CHECK(app.cache->get("key") == object(R"({"a": [1, null, "x"]})"));
    CHECK(app.cache->get_text("key") == R"({"a": [1, null, "x"]})");
    app.cache->put_text("text", R"({"b":1})", no_expiry);
    CHECK(app.cache->get("text") == object(R"({"b": 1})"));
    app.cache->put("expired", numbered(1), 0s);
    CHECK(app.cache->get("expired") == std::nullopt);
    CHECK(app.cache->remove("expired"));
    CHECK(app.cache->get("absent") == std::nullopt);
    CHECK(app.cache->get_text("absent") == std::nullopt);
    app.psql.exec("SELECT pg_sleep(0.05)");
    app.cache->put("short", numbered(1), 1h);
    app.psql.exec("COMMIT");
    // Counted from the statement, not from the beginning of the transaction.
    CHECK(app.schema.sql().truth("SELECT (SELECT expires_at FROM " + app.schema.table() +
                                 " WHERE key = 'short') - (SELECT expires_at FROM " +
                                 app.schema.table() + " WHERE key = 'key') >= '50 ms'"));
}

TEST_CASE("Prefixes are removed letter by letter") {
    TransactionTest app(EITHER_WAY());
    for (const char* key : {"a%b1", "a%b2", "axb3", "a_c1", "axc2", "a\\d", "a\\\\d", "axd"}) {
        app.schema.insert(key, "{}");
    }
    app.psql.exec("BEGIN");
    CHECK(app.cache->remove_prefix("a%b") == 2);
    CHECK(app.cache->remove_prefix("a_") == 1);
    CHECK(app.cache->remove_prefix("a\\") == 2);
    CHECK(app.cache->remove_prefix("nothing") == 0);
    const auto failure = failure_of([&] { app.cache->remove_prefix(""); });
    CHECK(failure.code() == Errc::invalid_key);
    CHECK(app.status() == PQTRANS_INTRANS);
    app.psql.exec("COMMIT");
    CHECK(app.schema.rows("key LIKE 'ax_%'") == 3);
    CHECK(app.schema.rows() == 4);
}

TEST_CASE("Tags are stored and removed with their entries") {
    TransactionTest app(EITHER_WAY());
    app.psql.exec("BEGIN");
    app.cache->put("one", numbered(1), 1h, having_tags({"red", "blue", "red"}));
    app.cache->put("two", numbered(2), 1h, having_tags({"red"}));
    app.cache->put_text("three", "{}", no_expiry, having_tags({"blue"}));
    app.cache->put("one", numbered(3), 2h, having_tags({"blue"}));
    app.psql.exec("COMMIT");
    CHECK(app.tag_rows() == 4);
    CHECK(app.tag_rows("expires_at <= now() + interval '1 day'") == 4);

    app.psql.exec("BEGIN");
    CHECK(app.cache->remove_tag("red") == 2);
    CHECK(app.cache->remove_tag("red") == 0);
    CHECK(app.cache->get("one") == std::nullopt);
    CHECK(app.cache->get("three") == object("{}"));
    app.psql.exec("ROLLBACK");
    CHECK(app.tag_rows() == 4);
    CHECK(app.schema.has("one"));

    app.psql.exec("BEGIN");
    CHECK(app.cache->remove_tag("red") == 2);
    app.psql.exec("COMMIT");
    CHECK(app.tag_rows("tag = 'red'") == 0);
    CHECK(app.schema.rows() == 2);
}

TEST_CASE("An entry that is put with a tag meanwhile keeps the tag") {
    TransactionTest app;
    // The row of the tag is there, and its entry is not: it was removed by its key.
    app.schema.sql().exec("INSERT INTO " + app.tags() + " VALUES ('tag', 'late', now())");
    Psql other;
    TransactionCache others(other.native(), app.schema.cache_options());
    other.exec("BEGIN");
    others.put_raw("late", numbered(1), 1h, having_tags({"tag"}));
    app.psql.exec("BEGIN");
    auto removed = std::async(std::launch::async, [&] { return app.cache->remove_tag("tag"); });
    const int pid = PQbackendPID(app.psql.native());
    CHECK(eventually([&] { return waits_for_lock(app.schema, pid); }));
    other.exec("COMMIT");
    CHECK(removed.get() == 0);
    app.psql.exec("COMMIT");
    CHECK(app.schema.has("late"));
    CHECK(app.tag_rows() == 1);
    app.psql.exec("BEGIN");
    CHECK(app.cache->remove_tag("tag") == 1);
    app.psql.exec("COMMIT");
    CHECK_FALSE(app.schema.has("late"));
}

TEST_CASE("Arguments that are refused leave the transaction untouched") {
    TransactionTest app(EITHER_WAY());
    app.psql.exec("BEGIN");
    app.update();
    const std::vector<std::pair<Errc, std::function<void()>>> refused = {
        {Errc::invalid_key, [&] { app.cache->get("\xFF"); }},
        {Errc::invalid_key, [&] { app.cache->remove(std::string("a\0b", 3)); }},
        {Errc::invalid_tag, [&] { app.cache->remove_tag(""); }},
        {Errc::invalid_tag, [&] { app.cache->put("k", numbered(1), 1h, having_tags({"\xFF"})); }},
        {Errc::invalid_value, [&] { app.cache->put_text("k", "[1", 1h); }},
        {Errc::invalid_ttl, [&] { app.cache->put("k", numbered(1), max_ttl + 1us); }},
    };
    for (const auto& [code, call] : refused) {
        const auto failure = failure_of(call);
        CHECK(failure.code() == code);
        CHECK(failure.typed());
        CHECK(app.status() == PQTRANS_INTRANS);
    }
    // Nor does a value that cannot be read.
    app.schema.sql().exec("UPDATE " + app.schema.table() + " SET value = '[1]'");
    CHECK(failure_of([&] { app.cache->get("key"); }).code() == Errc::unreadable_value);
    CHECK(app.cache->get_text("key") == "[1]");
    CHECK_THROWS_AS(app.cache->get("key", CallOptions(0s)), std::invalid_argument);
    app.psql.exec("COMMIT");
    CHECK(app.name() == "new");
}

TEST_CASE("A connection in a state that is none for a transaction is refused untouched") {
    TransactionTest app(EITHER_WAY());
    const auto refused = [&](const std::string& why) {
        for (const auto& call : app.cache->calls()) {
            const auto failure = failure_of(call);
            CHECK(failure.code() == Errc::connection_unusable);
            CHECK(failure.typed());
            CHECK_THAT(failure.what(), Catch::Contains(why));
        }
    };
    SECTION("no transaction") {
        refused("begin a transaction first");
        CHECK(app.status() == PQTRANS_IDLE);
    }
    SECTION("an aborted transaction") {
        app.psql.exec("BEGIN");
        CHECK_THROWS_AS(app.psql.exec("SELECT 1 / 0"), SqlError);
        refused("aborted its transaction");
        CHECK(app.status() == PQTRANS_INERROR);
    }
    SECTION("a statement is running") {
        app.psql.exec("BEGIN");
        REQUIRE(PQsendQuery(app.psql.native(), "SELECT 1") == 1);
        refused("a statement is running");
        while (PGresult* result = PQgetResult(app.psql.native())) {
            PQclear(result);
        }
        CHECK(app.cache->get("key") == numbered(0));
    }
    SECTION("pipeline mode") {
        app.psql.exec("BEGIN");
        REQUIRE(PQenterPipelineMode(app.psql.native()) == 1);
        refused("pipeline mode");
        CHECK(PQexitPipelineMode(app.psql.native()) == 1);
    }
    SECTION("another encoding") {
        app.psql.exec("SET client_encoding TO 'LATIN1'; BEGIN");
        refused("client_encoding");
    }
    SECTION("closed") {
        app.psql.exec("BEGIN");
        app.schema.sql().exec("SELECT pg_terminate_backend(" +
                              std::to_string(PQbackendPID(app.psql.native())) + ")");
        CHECK_THROWS_AS(app.psql.exec("SELECT pg_sleep(20)"), SqlError);
        refused("not open");
    }
    CHECK(app.schema.rows() == 1);
}

TEST_CASE("Without a connection or an executor there is no TransactionCache") {
    asio::io_context context;
    Psql psql;
    CHECK_THROWS_AS(TransactionCache(nullptr), std::invalid_argument);
    CHECK_THROWS_AS(AsyncTransactionCache(context.get_executor(), nullptr), std::invalid_argument);
    CHECK_THROWS_AS(AsyncTransactionCache(asio::any_io_executor(), psql.native()),
                    std::invalid_argument);
    CacheOptions options;
    options.schema = "";
    CHECK_THROWS_AS(TransactionCache(psql.native(), options), std::invalid_argument);
}

TEST_CASE("A forked child does not touch its parent's transaction") {
    TransactionTest app(EITHER_WAY());
    app.psql.exec("BEGIN");
    const pid_t child = ::fork();
    if (child == 0) {
        const Failure failure = failure_of([&] { app.cache->remove("key"); });
        ::_exit(failure.code() == Errc::connection_unusable &&
                        failure.what().find("fork") != std::string::npos
                    ? 0
                    : 1);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(app.cache->remove("key"));
    app.psql.exec("COMMIT");
}

TEST_CASE("Nothing of the session or the transaction is changed") {
    TransactionTest app(EITHER_WAY());
    const bool nonblocking = GENERATE(false, true);
    PGconn* native = app.psql.native();
    app.psql.exec("BEGIN; SET LOCAL lock_timeout = '1234ms'");
    const int process = PQbackendPID(native);
    const std::string settings =
        "SELECT string_agg(name || '=' || setting, ',' ORDER BY name) FROM pg_settings";
    const std::string before = app.psql.value(settings);
    REQUIRE(PQsetnonblocking(native, nonblocking ? 1 : 0) == 0);
    const auto as_found = [&] {
        CHECK(PQisnonblocking(native) == (nonblocking ? 1 : 0));
        CHECK(PQtransactionStatus(native) == PQTRANS_INTRANS);
        CHECK(PQisBusy(native) == 0);
    };
    for (const auto& call : app.cache->calls()) {
        call();
        as_found();
    }
    app.cache->put("key", numbered(1), 1h, having_tags({"tag"}));
    failure_of([&] { app.cache->get("\xFF"); });
    as_found();
    CHECK(app.psql.value("SHOW lock_timeout") == "1234ms");
    CHECK(app.psql.value(settings) == before);
    CHECK(app.psql.number("SELECT count(*) FROM pg_prepared_statements") == 0);
    CHECK(app.psql.number("SELECT count(*) FROM pg_cursors WHERE name <> ''") == 0);
    CHECK(app.psql.number("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND "
                          "locktype = 'advisory'") == 0);
    // What an error leaves is the same, but for the transaction.
    app.psql.exec("DROP TABLE " + app.tags());
    CHECK(failure_of([&] { app.cache->remove_tag("tag"); }).code() == Errc::table_missing);
    CHECK(PQisnonblocking(native) == (nonblocking ? 1 : 0));
    CHECK(PQtransactionStatus(native) == PQTRANS_INERROR);
    app.psql.exec("ROLLBACK");
    CHECK(PQbackendPID(native) == process);
    CHECK(app.psql.number("SELECT count(*) FROM pg_settings WHERE source = 'session'") == 0);
}

TEST_CASE("Where the table of tags is missing it is said what makes it") {
    TransactionTest app(EITHER_WAY());
    app.schema.sql().exec("DROP TABLE " + app.tags());
    app.psql.exec("BEGIN; SAVEPOINT s");
    for (const auto& call :
         {std::function<void()>([&] { app.cache->remove_tag("tag"); }), std::function<void()>([&] {
              app.cache->put("key", numbered(1), 1h, having_tags({"tag"}));
          })}) {
        const auto failure = failure_of(call);
        CHECK(failure.code() == Errc::table_missing);
        CHECK_THAT(failure.what(), Catch::Contains("psycache_tags"));
        CHECK_THAT(failure.what(), Catch::Contains("TableOptions::tags"));
        app.psql.exec("ROLLBACK TO SAVEPOINT s");
    }
    app.cache->put("key", numbered(1), 1h);
    app.psql.exec("COMMIT");
}

TEST_CASE("A statement that overruns its deadline leaves a connection that can roll back") {
    TransactionTest app(EITHER_WAY());
    const bool to_savepoint = GENERATE(false, true);
    const int process = PQbackendPID(app.psql.native());
    HeldRow lock(app.schema, "key");
    app.psql.exec("BEGIN");
    app.update();
    app.psql.exec("SAVEPOINT s");
    const auto started = Clock::now();
    const auto failure = failure_of([&] { app.cache->remove("key", CallOptions(100ms)); });
    const auto took = Clock::now() - started;
    CHECK(failure.code() == Errc::timed_out);
    CHECK(failure.sqlstate() == "57014");
    CHECK_THAT(failure.what(), Catch::Contains("aborted the transaction"));
    CHECK(took >= 99ms);
    CHECK(took < 2s * slowness);
    CHECK(app.status() == PQTRANS_INERROR);
    CHECK(PQisnonblocking(app.psql.native()) == 0);
    lock.release();
    if (to_savepoint) {
        app.psql.exec("ROLLBACK TO SAVEPOINT s");
        CHECK(app.cache->remove("key"));
        app.psql.exec("COMMIT");
    } else {
        app.psql.exec("ROLLBACK");
    }
    // No request to cancel is left that could hit what follows.
    app.psql.exec("SELECT pg_sleep(0.1)");
    CHECK(app.name() == (to_savepoint ? "new" : "old"));
    CHECK(app.schema.has("key") == !to_savepoint);
    CHECK(PQbackendPID(app.psql.native()) == process);
}

TEST_CASE("A time-out of the role's own is not taken for the deadline") {
    TransactionTest app(EITHER_WAY());
    HeldRow lock(app.schema, "key");
    app.psql.exec("BEGIN; SET LOCAL statement_timeout = '50ms'");
    const auto failure = failure_of([&] { app.cache->put("key", numbered(1), 1h); });
    CHECK(failure.code() == sqlstate_code("57014"));
    app.psql.exec("ROLLBACK; BEGIN; SET LOCAL lock_timeout = '50ms'");
    CHECK(failure_of([&] { app.cache->put("key", numbered(1), 1h); }).sqlstate() == "55P03");
    app.psql.exec("ROLLBACK");
}

TEST_CASE("A server that does not end a statement loses the connection in time") {
    TransactionTest app(EITHER_WAY());
    const auto process = PQbackendPID(app.psql.native());
    app.psql.exec("BEGIN");
    HeldRow lock(app.schema, "key");
    // Its backend hears of nothing.
    bool stopped = false;
    const auto started = Clock::now();
    std::thread stopper([&] {
        stopped = eventually([&] { return waits_for_lock(app.schema, process); }) &&
                  ::kill(process, SIGSTOP) == 0;
    });
    const auto failure = failure_of([&] { app.cache->remove("key", CallOptions(500ms)); });
    const auto took = Clock::now() - started;
    stopper.join();
    if (!stopped) {
        WARN("the server's processes cannot be stopped from here");
        lock.release();
        return;
    }
    ::kill(process, SIGCONT);
    CHECK(failure.code() == Errc::timed_out);
    CHECK_THAT(failure.what(), Catch::Contains("closed"));
    CHECK(took >= 2400ms);
    CHECK(took < 6s * slowness);
    CHECK(PQstatus(app.psql.native()) == CONNECTION_BAD);
    lock.release();
    CHECK(app.schema.has("key"));
}

TEST_CASE("A coroutine that is cancelled leaves a connection that can roll back") {
    const auto type = GENERATE(asio::cancellation_type::total, asio::cancellation_type::partial,
                               asio::cancellation_type::terminal);
    CAPTURE(static_cast<unsigned>(type));
    TransactionTest app;
    asio::io_context context;
    auto journal = std::make_shared<Journal>();
    CacheOptions options = app.schema.cache_options();
    options.instrumentations = {std::make_shared<SpyInstrumentation>(journal)};
    AsyncTransactionCache cache(context.get_executor(), app.psql.native(), options);
    HeldRow lock(app.schema, "key");
    app.psql.exec("BEGIN");
    const int process = PQbackendPID(app.psql.native());
    run_coro(context, [&]() -> asio::awaitable<void> {
        auto call = start(context.get_executor(), listening(cache.remove("key")));
        const auto hangs = [&] { return waits_for_lock(app.schema, process); };
        const bool hung = co_await until(hangs);
        CHECK(hung);
        call.cancel(type);
        CHECK_FALSE(call.done());
        // Nobody else may use it meanwhile.
        auto other = failure_of(cache.get_raw("key"));
        const auto refused = co_await std::move(other);
        CHECK(refused.code() == Errc::connection_unusable);
        CHECK_THAT(refused.what(), Catch::Contains("another call"));
        const auto failure = co_await call.failure();
        CHECK(failure.code() == asio::error::operation_aborted);
        CHECK(failure.typed());
        CHECK_THAT(failure.what(), Catch::Contains("aborted the transaction"));
    });
    CHECK(run_out(context));
    CHECK(app.status() == PQTRANS_INERROR);
    CHECK(journal->contains("A remove error"));
    CHECK(journal->count("open") == journal->count("close"));
    app.psql.exec("ROLLBACK");
    lock.release();
    app.psql.exec("BEGIN");
    CHECK(run_coro(context, cache.remove("key")));
    app.psql.exec("SELECT pg_sleep(0.05); COMMIT");
    CHECK_FALSE(app.schema.has("key"));
}

TEST_CASE("What was quicker than its cancellation counts") {
    TransactionTest app;
    asio::io_context context;
    AsyncTransactionCache cache(context.get_executor(), app.psql.native(),
                                app.schema.cache_options());
    for (int i = 0; i < 50; ++i) {
        app.psql.exec("BEGIN");
        bool stored = false;
        run_coro(context, [&]() -> asio::awaitable<void> {
            auto call =
                start(context.get_executor(), listening(cache.put_raw("key", numbered(i + 1), 1h)));
            co_await pause(Duration(i * 10));
            call.cancel(asio::cancellation_type::total);
            const auto failure = co_await call.failure();
            stored = !failure;
            CHECK((stored || failure.code() == asio::error::operation_aborted));
        });
        CHECK(PQstatus(app.psql.native()) == CONNECTION_OK);
        if (app.status() == PQTRANS_INTRANS) {
            CHECK(app.psql.value("SELECT value->>'n' FROM " + app.schema.table()) ==
                  std::to_string(stored ? i + 1 : 0));
        } else {
            CHECK_FALSE(stored);
        }
        app.psql.exec("ROLLBACK");
    }
}

TEST_CASE("A context that is destroyed closes the connection of its call, and frees nothing") {
    TransactionTest app;
    const int process = PQbackendPID(app.psql.native());
    HeldRow lock(app.schema, "key");
    app.psql.exec("BEGIN");
    {
        asio::io_context context;
        AsyncTransactionCache cache(context.get_executor(), app.psql.native(),
                                    app.schema.cache_options());
        asio::co_spawn(context, cache.remove("key"), asio::detached);
        CHECK(eventually([&] {
            context.poll();
            return waits_for_lock(app.schema, process);
        }));
    }
    CHECK(PQstatus(app.psql.native()) == CONNECTION_BAD);
    CHECK(eventually([&] {
        return app.schema.sql().number("SELECT count(*) FROM pg_stat_activity WHERE pid = " +
                                       std::to_string(process)) == 0;
    }));
    lock.release();
    CHECK(app.schema.has("key"));
}

TEST_CASE("Coroutines of several threads wait for the server on another executor") {
    TransactionTest app;
    Threads threads(2);
    asio::io_context io;
    auto guard = asio::make_work_guard(io);
    std::thread runner([&] { io.run(); });
    AsyncTransactionCache cache(io.get_executor(), app.psql.native(), app.schema.cache_options());
    app.psql.exec("BEGIN");
    threads.run([&]() -> asio::awaitable<void> {
        for (int i = 0; i < 50; ++i) {
            co_await cache.put_raw("key", numbered(i), 1h);
            const auto value = co_await cache.get_raw("key");
            CHECK(value == numbered(i));
        }
    });
    app.psql.exec("COMMIT");
    guard.reset();
    runner.join();
}

TEST_CASE("Large values go through in either mode") {
    TransactionTest app(EITHER_WAY());
    PQsetnonblocking(app.psql.native(), GENERATE(0, 1));
    app.psql.exec("BEGIN");
    const json::object value{{"text", std::string(6 << 20, 'x')}};
    app.cache->put("key", value, 1h);
    CHECK(app.cache->get("key") == value);
    app.psql.exec("ROLLBACK");
}

TEST_CASE("A put from outside waits for the transaction and then wins") {
    TransactionTest app(EITHER_WAY());
    PostgresCache outside(server_pool(2), app.schema.cache_options());
    app.psql.exec("BEGIN");
    app.cache->put("key", numbered(1), 1h);
    CHECK(outside.get_raw("key") == numbered(0));
    CHECK(failure_of([&] { outside.put_raw("key", numbered(2), 1h, CallOptions(100ms)); }).code() ==
          Errc::timed_out);
    auto put = std::async(std::launch::async, [&] { outside.put_raw("key", numbered(3), 1h); });
    CHECK(put.wait_for(100ms) == std::future_status::timeout);
    app.psql.exec("COMMIT");
    put.get();
    CHECK(outside.get_raw("key") == numbered(3));
}

TEST_CASE("In a transaction of another isolation a write that came too late is refused") {
    TransactionTest app(EITHER_WAY());
    app.psql.exec("BEGIN ISOLATION LEVEL REPEATABLE READ");
    CHECK(app.cache->get("key") == numbered(0));
    app.schema.sql().exec("UPDATE " + app.schema.table() + R"( SET value = '{"n": 9}')");
    CHECK(app.cache->get("key") == numbered(0));
    const auto failure = failure_of([&] { app.cache->remove("key"); });
    CHECK(failure.sqlstate() == "40001");
    CHECK(failure.code() == Condition::transient);
    app.psql.exec("ROLLBACK");
}

TEST_CASE("Instrumentations hear of calls inside of a transaction") {
    const auto way = EITHER_WAY();
    TransactionTest app(way);
    auto journal = std::make_shared<Journal>();
    auto tally = std::make_shared<TallyInstrumentation>();
    CacheOptions options = app.schema.cache_options();
    options.instrumentations = {std::make_shared<SpyInstrumentation>(journal), tally};
    InTransaction cache(way, app.psql.native(), options);
    app.psql.exec("BEGIN");
    cache.get("key", "a name");
    cache.get_text("absent");
    cache.put("key", numbered(1), 1h);
    cache.put("key", numbered(1), 1h, having_tags({"tag"}));
    cache.remove("key");
    cache.remove_tag("tag");
    cache.remove_prefix("k");
    failure_of([&] { cache.get("\xFF"); });
    app.psql.exec("COMMIT");
    const auto lines = journal->lines();
    const std::vector<std::string> first = {
        "A get open key=key name=a name", "A get hit",  "A get close",
        "A get open key=absent name=",    "A get miss", "A get close",
        "A put open key=key name=",       "A put put",  "A put close"};
    REQUIRE(lines.size() >= first.size());
    for (std::size_t i = 0; i < first.size(); ++i) {
        CHECK_THAT(lines[i], Catch::StartsWith(first[i]));
    }
    CHECK(journal->count("A put put 0") == 0);
    CHECK(journal->count("A get hit 0") == 0);
    CHECK(journal->count("A put put") == 2);
    CHECK(journal->count("A remove removed") == 1);
    CHECK(journal->count(" invalidated ") == 2);
    CHECK(journal->count("A get error") == 1);
    CHECK(journal->count(" open") == journal->count(" close"));
    CHECK(tally->statements("get").size() == 2);
    CHECK(tally->statements("put").size() == 2);
    CHECK(tally->statements("remove").size() == 1);
    CHECK(tally->statements("remove_tag").size() == 1);
    CHECK(tally->statements("remove_prefix").size() == 1);
}

#ifdef PSYCACHE_TEST_SOCI

TEST_CASE("A SOCI session's data and cache change together or not at all") {
    TransactionTest app;
    soci::session session(soci::postgresql, dsn());
    session << "SET client_encoding TO 'UTF8'";
    SociTransactionCache cache(session, app.schema.cache_options());
    const auto outside = failure_of([&] { cache.remove("key"); });
    CHECK(outside.code() == Errc::connection_unusable);
    CHECK_THAT(outside.what(), Catch::Contains("begin a transaction first"));
    const bool commits = GENERATE(false, true);
    {
        soci::transaction transaction(session);
        session << "UPDATE " + app.data() + " SET name = 'new'";
        CHECK(cache.remove("key"));
        cache.put_raw("other", numbered(1), 1h, having_tags({"tag"}));
        CHECK(cache.get_raw("other") == numbered(1));
        if (commits) {
            transaction.commit();
        } else {
            transaction.rollback();
        }
    }
    CHECK(app.name() == (commits ? "new" : "old"));
    CHECK(app.schema.has("key") == !commits);
    CHECK(app.schema.has("other") == commits);
    // SOCI goes on with the session.
    int one = 0;
    session << "SELECT 1", soci::into(one);
    CHECK(one == 1);
}

TEST_CASE("A SOCI session that has no connection has no TransactionCache") {
    soci::session session;
    CHECK(failure_of([&] { SociTransactionCache cache(session); }).code() ==
          Errc::connection_unusable);
}

#endif
