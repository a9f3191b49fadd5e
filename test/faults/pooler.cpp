// A cache whose connections go through PgBouncer: what it must not depend on, and what it sees when
// the pooler, or the server behind it, fails.

#include <algorithm>
#include <catch2/catch.hpp>

#include "support/both.hpp"
#include "support/callers.hpp"
#include "support/pgbouncer.hpp"
#include "support/private_server.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

constexpr auto deadline = 2s;
/// How long a call may take that fails at its deadline, on a busy machine.
constexpr auto allowed = deadline + 3s * slowness;

PoolOptions pooled(const std::string& where, bool prepare = true) {
    PoolOptions options;
    options.dsn = where;
    options.prepare_statements = prepare;
    options.connect_timeout = 1s * slowness;
    options.acquire_timeout = 1500ms * slowness;
    return options;
}

CacheOptions options_of(const TestSchema& schema) {
    CacheOptions options = schema.cache_options();
    options.timeout = deadline;
    options.maintenance_timeout = deadline;
    return options;
}

/// A flavour's callers: coroutines, or threads.
void add(Callers& callers, Flavour flavour, const PoolOptions& pool, const CacheOptions& options,
         unsigned count) {
    if (flavour == Flavour::async) {
        callers.add(pool, options, count);
    } else {
        callers.add_threads(pool, options, count / 8);
    }
}

/// Uses every call, and checks every answer.
void use_every_call(AnyCache& cache) {
    CHECK(cache.get("key") == std::nullopt);
    cache.put("key", numbered(1), 1h);
    CHECK(cache.get("key") == numbered(1));
    cache.put_text("text", "{\"n\": 2}", 1h);
    CHECK(cache.get_text("text") == "{\"n\": 2}");
    cache.put_many({Entry("a", numbered(3), 1h), Entry("b", numbered(4), no_expiry)});
    CHECK(cache.get_many({"b", "absent", "a"}) ==
          std::vector<std::optional<json::object>>{numbered(4), std::nullopt, numbered(3)});
    cache.put("old", numbered(5), -1s);
    CHECK(cache.get("old") == std::nullopt);
    CHECK(cache.cleanup() == 1);
    CHECK(cache.remove("key"));
    CHECK_FALSE(cache.remove("key"));
    CHECK(cache.remove_many({"a", "absent"}) == 1);
    CHECK(cache.flush() == 2);
    CHECK(cache.statistics().errors == 0);
}

/// What is prepared in the one session that a pooler of size 1 has, by its first words.
std::vector<std::string> prepared(Psql& through_pooler) {
    std::vector<std::string> statements;
    for (const auto& row : through_pooler.exec(
             "SELECT split_part(statement, ' ', 1) FROM pg_prepared_statements ORDER BY 1")) {
        statements.push_back(row[0]);
    }
    return statements;
}

using Words = std::vector<std::string>;

}  // namespace

TEST_CASE("Every call works through PgBouncer, whatever it does with sessions") {
    if (!PgBouncer::installed()) {
        return;
    }
    const std::string mode(GENERATE("session", "transaction"));
    const bool prepare = GENERATE(true, false);
    CAPTURE(mode, prepare);
    // A size of 4 for session mode, where each connection keeps one of the server's.
    const PgBouncer pooler(Settings{{"pool_mode", mode}, {"default_pool_size", "4"}});
    for (const Flavour flavour : {Flavour::async, Flavour::blocking, Flavour::async_borrowing,
                                  Flavour::blocking_borrowing}) {
        CAPTURE(flavour);
        const TestSchema schema;
        use_every_call(*make_cache(flavour, options_of(schema), pooled(pooler.dsn(), prepare)));
    }
    CHECK(pooler.servers() > 0);
}

TEST_CASE("init_db works through PgBouncer in transaction mode, by every way") {
    if (!PgBouncer::installed()) {
        return;
    }
    const PgBouncer pooler;
    const auto made = [&](const std::function<void(const TableOptions&)>& make) {
        TestSchema schema(Table::none);
        make(schema.table_options());
        make(schema.table_options());
        CHECK(schema.rows() == 0);
        // The lock of a session would stay with the pooler's connection.
        const auto is_free = [&] {
            return schema.sql().number(
                       "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = "
                       "2014835811") == 0;
        };
        CHECK(eventually(is_free));  // other tests take it for a moment
    };
    made([&](const TableOptions& options) { init_db(pooler.dsn(), options); });
    made([&](const TableOptions& options) { init_db(pooler.tcp_dsn(), options); });
    made([&](const TableOptions& options) {
        Psql connection(pooler.dsn());
        init_db(connection.native(), options);
    });
    made([&](const TableOptions& options) {
        asio::io_context context;
        ConnectionPool pool(context.get_executor(), pooled(pooler.dsn()));
        run_coro(context, init_db(pool, options));
    });
}

TEST_CASE("A statement that another client has prepared in the same session is used unnamed") {
    if (!PgBouncer::installed()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const PgBouncer pooler(Settings{{"default_pool_size", "1"}});
    const TestSchema schema;
    Psql session(pooler.dsn());
    const auto first = make_cache(flavour, options_of(schema), pooled(pooler.dsn()));
    const auto second = make_cache(flavour, options_of(schema), pooled(pooler.dsn()));

    CHECK(first->get("key") == std::nullopt);
    CHECK(prepared(session) == Words{"SELECT"});
    // 42P05: its name is taken, and it prepares nothing any more.
    CHECK(second->get("key") == std::nullopt);
    second->put("key", numbered(1), 1h);
    CHECK(second->remove("absent") == false);
    CHECK(prepared(session) == Words{"SELECT"});
    CHECK(first->get("key") == numbered(1));
    CHECK(first->statistics().errors + second->statistics().errors == 0);
}

TEST_CASE(
    "A statement that is gone from the session is prepared again, twice gone is used unnamed") {
    if (!PgBouncer::installed()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PgBouncer pooler(Settings{{"default_pool_size", "1"}});
    const TestSchema schema;
    const auto cache = make_cache(flavour, options_of(schema), pooled(pooler.dsn()));
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
    {
        Psql session(pooler.dsn());
        CHECK(prepared(session) == Words{"INSERT", "SELECT"});
        session.exec("DISCARD ALL");
        // 26000
        CHECK(cache->get("key") == numbered(1));
        CHECK(prepared(session) == Words{"SELECT"});
        cache->put("key", numbered(2), 1h);
        CHECK(prepared(session) == Words{"INSERT", "SELECT"});
    }
    // After every transaction, so that nothing that was prepared can be executed.
    pooler.configure({{"server_reset_query_always", "1"}});
    for (int i = 3; i < 6; ++i) {
        cache->put("key", numbered(i), 1h);
        CHECK(cache->get("key") == numbered(i));
        CHECK(cache->cleanup() == 0);
        CHECK_FALSE(cache->remove("absent"));
    }
    CHECK(cache->statistics().errors == 0);
}

TEST_CASE("Without prepare_statements nothing is left in the pooler's sessions") {
    if (!PgBouncer::installed()) {
        return;
    }
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    const PgBouncer pooler(Settings{{"default_pool_size", "1"}});
    const TestSchema schema;
    Psql session(pooler.dsn());
    const auto settings = [&] {
        return session.exec(
            "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name <> "
            "'application_name'");
    };
    const Rows before = settings();
    use_every_call(*make_cache(flavour, options_of(schema), pooled(pooler.dsn(), false)));
    CHECK(prepared(session) == Words{});
    CHECK(settings() == before);
}

TEST_CASE("Two hundred callers of several caches share two connections of the server") {
    if (!PgBouncer::installed()) {
        return;
    }
    const bool prepare = GENERATE(true, false);
    CAPTURE(prepare);
    const PgBouncer pooler;
    TestSchema schema;
    const TestSchema other;
    // No deadline that a slow machine could overrun: not one call may fail.
    const auto patient = [](const TestSchema& where) {
        CacheOptions options = where.cache_options();
        options.timeout = patience;
        return options;
    };
    auto with_sizes = patient(schema);  // other texts, so other statements
    with_sizes.instrumentations.push_back(std::make_shared<TallyInstrumentation>());
    Callers callers(allowed);
    auto pool = pooled(pooler.dsn({{"application_name", ""}}), prepare);
    pool.acquire_timeout = patience;
    callers.add(pool, patient(schema), 60);
    callers.add(pool, patient(schema), 60);
    callers.add(pool, with_sizes, 40);
    callers.add(pool, patient(other), 40);
    callers.add_threads(pool, patient(schema), 6);
    callers.add_threads(pool, patient(other), 6);

    REQUIRE(callers.work_on(20000 / slowness));
    CHECK(pooler.clients() > 6);
    CHECK(pooler.servers() == 2);
    REQUIRE(callers.end());
    CHECK(callers.observations().wrong() == Words{});
    CHECK(callers.observations().codes() == Words{});
    CHECK(callers.statistics().errors == 0);
}

TEST_CASE("Processes behind one pooler never get an answer of each other's statements") {
    if (!PgBouncer::installed()) {
        return;
    }
    const PgBouncer pooler;
    // The same keys in each, and two processes on each.
    const TestSchema schemas[3];
    std::vector<Child> processes;
    for (const auto& schema : schemas) {
        for (int i = 0; i < 2; ++i) {
            processes.emplace_back(std::vector<std::string>{"use", pooler.dsn(), schema.name(),
                                                            std::to_string(600 / slowness)});
        }
    }
    for (auto& process : processes) {
        process.go();
    }
    for (auto& process : processes) {
        CHECK(process.wait() == 0);
    }
}

TEST_CASE("A pooler that restarts under load is an outage, and then works again") {
    if (!PgBouncer::installed()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    const std::string mode(GENERATE("session", "transaction"));
    CAPTURE(flavour, mode);
    PgBouncer pooler(Settings{{"pool_mode", mode}, {"default_pool_size", "4"}});
    const TestSchema schema;
    Callers callers(allowed);
    add(callers, flavour, pooled(pooler.dsn()), options_of(schema), 64);
    REQUIRE(callers.work_on(500));

    for (int i = 0; i < 3; ++i) {
        pooler.restart();
        CHECK(callers.recover());
    }
    CHECK(callers.end());
    CHECK(callers.observations().wrong() == Words{});
    CHECK(callers.observations().failures() + callers.statistics().retries > 0);
    CHECK(callers.statistics().queued == 0);
}

TEST_CASE("A server that is away behind its pooler is an outage, and then works again") {
    if (!PgBouncer::installed() || !PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PrivateServer server;
    init_db(server.dsn());
    const PgBouncer pooler(Settings{{"default_pool_size", "4"}}, server.dsn());
    CacheOptions options;
    options.timeout = deadline;
    Callers callers(allowed);
    add(callers, flavour, pooled(pooler.dsn()), options, 64);
    REQUIRE(callers.work_on(500));

    for (int i = 0; i < 2; ++i) {
        const auto failures = callers.observations().failures();
        server.stop();
        const auto noticed = [&] { return callers.observations().failures() >= failures + 64; };
        CHECK(eventually(noticed));
        server.start();
        CHECK(callers.recover());
    }
    CHECK(callers.end());
    CHECK(callers.observations().wrong() == Words{});
    CHECK(callers.statistics().queued == 0);
}

TEST_CASE("A pause of the pooler is waited for, up to the deadline") {
    if (!PgBouncer::installed()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const PgBouncer pooler;
    const TestSchema schema;
    Callers callers(allowed);
    auto options = options_of(schema);
    options.timeout = 3s * slowness;
    add(callers, flavour, pooled(pooler.dsn()), options, 64);
    REQUIRE(callers.work_on(500));

    // A short one, in which every caller comes to wait.
    pooler.admin("PAUSE");
    std::size_t answers = 0;
    const auto at_rest = [&] {
        const auto before = std::exchange(answers, callers.observations().answers());
        std::this_thread::sleep_for(50ms);
        return answers == before;
    };
    CHECK(eventually(at_rest));
    pooler.admin("RESUME");
    CHECK(callers.work_on(500));
    CHECK(callers.observations().codes() == Words{});

    // One that is longer than the calls' patience.
    pooler.admin("PAUSE");
    const auto noticed = [&] { return callers.observations().failures() > 0; };
    CHECK(eventually(noticed));
    pooler.admin("RESUME");
    CHECK(callers.recover());
    CHECK(callers.end());
    CHECK(callers.observations().wrong() == Words{});
}

TEST_CASE("A pooler that takes no more clients is an outage, for a pool without connections") {
    if (!PgBouncer::installed()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PgBouncer pooler(Settings{{"max_client_conn", "3"}});
    const TestSchema schema;
    LogCapture log;
    auto pool = pooled(pooler.dsn());
    pool.log = log.sink();
    const auto cache = make_cache(flavour, options_of(schema), pool);
    {
        std::vector<std::unique_ptr<Psql>> others;
        const auto full = [&] {
            try {
                others.push_back(std::make_unique<Psql>(pooler.dsn()));
                return false;
            } catch (const SqlError&) {
                return true;
            }
        };
        REQUIRE(eventually(full));

        for (int i = 0; i < 2; ++i) {
            const auto failure = failure_of([&] { cache->get("key"); });
            CHECK(failure.code() == Errc::connect_failed);
            CHECK(failure.code() == Condition::unavailable);
            CHECK(failure.code() == Condition::transient);
            CHECK_FALSE(failure.sqlstate().empty());
            CHECK_THAT(failure.what(), Catch::Contains("cannot connect"));
        }
        CHECK(failure_of([&] { init_db(pooler.dsn(), schema.table_options()); }).code() ==
              Errc::connect_failed);
        CHECK(log.journal().contains("warning: cannot connect"));
    }
    const auto works = [&] { return !failure_of([&] { cache->get("key"); }); };
    CHECK(eventually(works));

    // A pool that has one connection keeps to it.
    std::vector<std::unique_ptr<Psql>> others;
    for (int i = 0; i < 2; ++i) {
        others.push_back(std::make_unique<Psql>(pooler.dsn()));
    }
    Callers callers(allowed);
    add(callers, flavour, pooled(pooler.dsn()), options_of(schema), 64);
    CHECK(works());
}

TEST_CASE("A pooler without a connection of the server to spare is an outage") {
    if (!PgBouncer::installed()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const PgBouncer pooler(Settings{{"default_pool_size", "1"}, {"query_wait_timeout", "1"}});
    const TestSchema schema;
    auto options = options_of(schema);
    options.timeout = 10s * slowness;
    const auto cache = make_cache(flavour, options, pooled(pooler.dsn(), false));
    const auto impatient = make_cache(flavour, options_of(schema), pooled(pooler.dsn()));
    cache->put("key", numbered(1), 1h);
    CHECK(impatient->get("key") == numbered(1));
    {
        Psql busy(pooler.dsn());
        busy.exec("BEGIN");
        const auto get = failure_of([&] { cache->get("key"); });
        CHECK(get.code() == Errc::connection_lost);
        CHECK(get.code() == Condition::transient);
        // Nothing tells that the pooler has sent nothing on.
        const auto put = failure_of([&] { cache->put("key", numbered(2), 1h); });
        CHECK(put.code() == Errc::outcome_unknown);
        const auto cleanup = failure_of([&] { cache->cleanup(); });
        const auto late_get = failure_of([&] { impatient->get("key"); });
        // Under another key: a write that timed out may be stored, and late.
        const auto late_put = failure_of([&] { impatient->put("other", numbered(2), 1h); });
        for (const Failure& failure : {get, put, cleanup, late_get, late_put}) {
            CAPTURE(failure.what());
            CHECK(failure.code() == Condition::unavailable);
        }
    }
    CHECK(eventually([&] { return !failure_of([&] { cache->get("key"); }); }));
    CHECK(cache->get("key") == numbered(1));
    cache->put("key", numbered(3), 1h);
    CHECK(impatient->get("key") == numbered(3));
}

TEST_CASE("Calls that time out behind a pooler leave no statement on the server") {
    if (!PgBouncer::installed()) {
        return;
    }
    const auto flavour = EVERY_FLAVOUR();
    const std::string mode(GENERATE("session", "transaction"));
    const bool by_tcp = GENERATE(false, true);
    CAPTURE(flavour, mode, by_tcp);
    const PgBouncer pooler(Settings{{"pool_mode", mode}, {"default_pool_size", "4"}});
    TestSchema schema;
    auto options = options_of(schema);
    options.timeout = 100ms;
    auto pool = pooled(by_tcp ? pooler.tcp_dsn() : pooler.dsn(), false);
    pool.max_size = 2;
    auto cache = make_cache(flavour, options, pool);
    CHECK(eventually([&] { return !failure_of([&] { cache->get("key"); }); }));
    TableLock lock(schema);
    for (int call = 0; call < 10; ++call) {
        CHECK(failure_of([&] { cache->get("key"); }).code() == Condition::timeout);
    }
    CHECK(eventually([&] { return lock.waiting() <= 2; }, 1s * slowness));
    cache.reset();
    CHECK(eventually([&] { return lock.waiting() == 0; }, 1s * slowness));
}
