// What can go wrong between the cache and the server, and that the next call works.

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <thread>

#include "support/both.hpp"
#include "support/gate.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// Options whose pool gives up soon.
PoolOptions impatient_pool(std::string where) {
    PoolOptions options;
    options.dsn = std::move(where);
    options.connect_timeout = 1s;
    options.acquire_timeout = 1500ms;
    return options;
}

/// Options of a pool that reaches the server through a gate.
PoolOptions gated_pool(const Gate& gate) {
    return impatient_pool(
        *tcp_dsn({{"port", gate.port()}, {"sslmode", "disable"}, {"gssencmode", "disable"}}));
}

/// Every call of a cache, as something that can fail.
struct Call {
    const char* name;
    std::function<void(AnyCache&)> run;
};
const std::vector<Call>& every_call() {
    static const std::vector<Call> calls{
        {"get", [](AnyCache& cache) { cache.get("key"); }},
        {"put", [](AnyCache& cache) { cache.put("key", numbered(1), 1h); }},
        {"remove", [](AnyCache& cache) { cache.remove("key"); }},
        {"cleanup", [](AnyCache& cache) { cache.cleanup(); }},
        {"flush", [](AnyCache& cache) { cache.flush(); }},
    };
    return calls;
}

/// A server on 127.0.0.1 that treats every connection alike.
class OddServer {
  public:
    enum class Manner { silent, closes, garbage };

    explicit OddServer(Manner manner) : manner_(manner) {
        if (manner != Manner::silent) {
            accept();
        }
        thread_ = std::thread([this] { context_.run(); });
    }
    OddServer(const OddServer&) = delete;
    OddServer& operator=(const OddServer&) = delete;
    ~OddServer() {
        context_.stop();
        thread_.join();
    }
    std::string where() const {
        return "host=127.0.0.1 user=someone dbname=x sslmode=disable port=" +
               std::to_string(acceptor_.local_endpoint().port());
    }

  private:
    void accept() {
        acceptor_.async_accept(
            [this](boost::system::error_code error, asio::ip::tcp::socket socket) {
                if (error) {
                    return;
                }
                if (manner_ == Manner::garbage) {
                    const std::string text(100, '!');
                    boost::system::error_code ignored;
                    socket.write_some(asio::buffer(text), ignored);
                    sockets_.push_back(std::move(socket));
                }
                accept();
            });
    }

    Manner manner_;
    asio::io_context context_;
    asio::executor_work_guard<asio::io_context::executor_type> guard_{context_.get_executor()};
    asio::ip::tcp::acceptor acceptor_{
        context_, asio::ip::tcp::endpoint(asio::ip::make_address("127.0.0.1"), 0)};
    std::vector<asio::ip::tcp::socket> sockets_;
    std::thread thread_;
};

/// A role without any rights, while it lives.
class PowerlessRole {
  public:
    PowerlessRole() { sql_.exec("CREATE ROLE " + name_); }
    PowerlessRole(const PowerlessRole&) = delete;
    PowerlessRole& operator=(const PowerlessRole&) = delete;
    ~PowerlessRole() {
        try {
            sql_.exec("DROP OWNED BY " + name_ + "; DROP ROLE " + name_);
        } catch (const SqlError&) {
        }
    }
    const std::string& name() const { return name_; }

  private:
    std::string name_ = unique_name("role");
    Psql sql_;
};

}  // namespace

TEST_CASE("A server that cannot be reached is connect_failed within the time-outs") {
    const auto flavour = OWN_CONNECTIONS();
    const std::string where(GENERATE(as<std::string>(), "host=127.0.0.1 port=1",
                                     "host=/nonexistent/directory", "host=no-such-host.invalid",
                                     "host=127.0.0.1,/nonexistent/directory port=1,1",
                                     "postgresql://127.0.0.1:1/x", "hostaddr=127.0.0.1 port=1"));
    CAPTURE(flavour, where);
    const auto cache = make_cache(flavour, CacheOptions(), impatient_pool(where));

    for (const auto& call : every_call()) {
        CAPTURE(call.name);
        const auto started = Clock::now();
        const auto failure = failure_of([&] { call.run(*cache); });
        CHECK(Clock::now() - started < 4s);
        CHECK(failure.code() == Errc::connect_failed);
        CHECK(failure.code() == Condition::unavailable);
        CHECK(failure.code() == Condition::transient);
        CHECK(failure.typed());
        CHECK_FALSE(failure.what().empty());
    }
}

TEST_CASE("A server that does not answer is connect_failed within the time-outs") {
    const auto flavour = OWN_CONNECTIONS();
    const auto manner =
        GENERATE(OddServer::Manner::silent, OddServer::Manner::closes, OddServer::Manner::garbage);
    CAPTURE(flavour, static_cast<int>(manner));
    const OddServer server(manner);
    const auto cache = make_cache(flavour, CacheOptions(), impatient_pool(server.where()));

    const auto started = Clock::now();
    const auto failure = failure_of([&] { cache->get("key"); });
    CHECK(failure.code() == Errc::connect_failed);
    CHECK(Clock::now() - started < 3s);
    CHECK(failure_of([&] { cache->put("key", numbered(1), 1h); }).code() == Errc::connect_failed);
    CHECK(Clock::now() - started < 6s);
}

TEST_CASE("A cache recovers by itself whenever the server comes back") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const auto port = tcp_port();
    if (!port) {
        return;
    }
    TestSchema schema;
    Gate gate(*port);
    const auto cache = make_cache(
        flavour, schema.cache_options(),
        impatient_pool(
            *tcp_dsn({{"port", gate.port()}, {"sslmode", "disable"}, {"gssencmode", "disable"}})));
    const auto stores = [&] { return !failure_of([&] { cache->put("key", numbered(1), 1h); }); };

    for (int round = 0; round < 2; ++round) {
        CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::connect_failed);
        gate.switch_on();
        CHECK(eventually(stores));
        CHECK(cache->get("key") == numbered(1));
        gate.switch_off();
    }
}

TEST_CASE("A wrong password is authentication_failed, the right one works") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const auto wrong = tcp_dsn({{"user", "psycache_scram"}, {"password", "wr0ng-pa55word"}});
    if (!wrong) {
        return;
    }
    TestSchema schema;
    schema.sql().exec("GRANT USAGE ON SCHEMA " + schema.quoted() +
                      " TO psycache_scram; GRANT ALL ON " + schema.table() + " TO psycache_scram");
    LogCapture log;
    auto options = schema.cache_options();
    options.log = log.sink();
    auto pool = impatient_pool(*wrong);
    pool.log = log.sink();

    const auto refused = make_cache(flavour, options, pool);
    for (int i = 0; i < 2; ++i) {
        const auto failure = failure_of([&] { refused->get("key"); });
        CHECK(failure.code() == Errc::authentication_failed);
        CHECK(failure.sqlstate() == "28P01");
        CHECK(failure.code() == Condition::caller_mistake);
        CHECK_THAT(failure.what(), !Catch::Contains("wr0ng-pa55word"));
    }
    CHECK_FALSE(log.journal().contains("wr0ng-pa55word"));

    pool.dsn = dsn_with({{"password", "secret"}}, *wrong);
    const auto accepted = make_cache(flavour, options, pool);
    accepted->put("key", numbered(1), 1h);
    CHECK(accepted->get("key") == numbered(1));
}

TEST_CASE("A missing password is an error that does not hang") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const auto where = tcp_dsn({{"user", "psycache_scram"}, {"passfile", "/nonexistent"}});
    if (!where) {
        return;
    }
    const auto cache = make_cache(flavour, CacheOptions(), impatient_pool(*where));
    const auto code = failure_of([&] { cache->get("key"); }).code();
    CHECK((code == Errc::authentication_failed || code == Errc::connect_failed));
}

TEST_CASE("An unknown role is authentication_failed or refused with the server's SQLSTATE") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const auto where = dsn_with({{"user", unique_name("nobody")}});
    const auto cache = make_cache(flavour, CacheOptions(), impatient_pool(where));
    const auto failure = failure_of([&] { cache->get("key"); });
    CHECK(failure.sqlstate().substr(0, 2) == "28");
    CHECK(failure.code() == Errc::authentication_failed);
}

TEST_CASE("A database that does not exist is told by its SQLSTATE") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const auto where = dsn_with({{"dbname", unique_name("missing")}});
    const auto cache = make_cache(flavour, CacheOptions(), impatient_pool(where));
    for (const auto& call : every_call()) {
        CAPTURE(call.name);
        const auto failure = failure_of([&] { call.run(*cache); });
        CHECK(failure.sqlstate() == "3D000");
        CHECK(failure.typed());
    }
}

TEST_CASE("A missing table is told with its name and the remedy, and is found once it is made") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::none, GENERATE(std::string_view(), nasty));
    const auto cache = make_cache(flavour, schema);
    for (const auto& call : every_call()) {
        CAPTURE(call.name);
        const auto failure = failure_of([&] { call.run(*cache); });
        CHECK(failure.code() == Errc::table_missing);
        CHECK(failure.sqlstate() == "42P01");
        CHECK(failure.code() == Condition::caller_mistake);
        CHECK_THAT(failure.what(), Catch::Contains("psycache"));
        CHECK_THAT(failure.what(), Catch::Contains(schema.table()));
        CHECK_THAT(failure.what(), Catch::Contains("init_db"));
    }

    init_db(dsn(), schema.table_options());

    for (const auto& call : every_call()) {
        CAPTURE(call.name);
        CHECK_NOTHROW(call.run(*cache));
    }
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
}

TEST_CASE("A schema that does not exist is a missing table") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    CacheOptions options;
    options.schema = unique_name("missing");
    const auto cache = make_cache(flavour, options, server_pool());
    for (const auto& call : every_call()) {
        CAPTURE(call.name);
        const auto failure = failure_of([&] { call.run(*cache); });
        CHECK(failure.code() == Errc::table_missing);
    }
}

TEST_CASE("A cache works on when its table was dropped and made again") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));

    schema.sql().exec("DROP TABLE " + schema.table());
    CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::table_missing);
    CHECK(failure_of([&] { cache->put("key", numbered(1), 1h); }).code() == Errc::table_missing);
    init_db(dsn(), schema.table_options());

    CHECK(cache->get("key") == std::nullopt);
    cache->put("key", numbered(2), 1h);
    CHECK(cache->get("key") == numbered(2));
}

TEST_CASE("A cache works on when a column was added to its table") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
    CHECK(cache->remove("key"));

    schema.sql().exec("ALTER TABLE " + schema.table() +
                      " ADD COLUMN note text, ALTER COLUMN key "
                      "TYPE varchar");

    cache->put("key", numbered(2), 1h);
    CHECK(cache->get("key") == numbered(2));
    CHECK(cache->remove("key"));
    CHECK(cache->cleanup() == 0);
    CHECK(cache->flush() == 0);
}

TEST_CASE("A missing privilege is permission_denied, and the next call works") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    PowerlessRole role;
    TestSchema schema;
    PoolOptions pool;
    pool.dsn = dsn_with({{"options", "-crole=" + role.name()}});
    const auto cache = make_cache(flavour, schema.cache_options(), pool);
    const auto all_denied = [&] {
        for (const auto& call : every_call()) {
            CAPTURE(call.name);
            const auto failure = failure_of([&] { call.run(*cache); });
            CHECK(failure.code() == Errc::permission_denied);
            CHECK(failure.sqlstate() == "42501");
            CHECK(failure.code() == Condition::caller_mistake);
        }
    };

    all_denied();
    schema.sql().exec("GRANT USAGE ON SCHEMA " + schema.quoted() + " TO " + role.name());
    all_denied();
    schema.sql().exec("GRANT SELECT ON " + schema.table() + " TO " + role.name());
    CHECK(cache->get("key") == std::nullopt);
    CHECK(failure_of([&] { cache->put("key", numbered(1), 1h); }).code() ==
          Errc::permission_denied);
    schema.sql().exec("GRANT ALL ON " + schema.table() + " TO " + role.name());
    for (const auto& call : every_call()) {
        CAPTURE(call.name);
        CHECK_NOTHROW(call.run(*cache));
    }
}

TEST_CASE("A backend that was killed between two calls is not noticed by the caller") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    NamedPool named;
    const auto cache = make_cache(flavour, schema.cache_options(), named.options);
    cache->put("key", numbered(0), 1h);

    for (int i = 1; i <= 3; ++i) {
        REQUIRE(schema.sql().terminate(named.name) >= 1);
        CHECK(cache->get("key") == numbered(i - 1));
        REQUIRE(schema.sql().terminate(named.name) >= 1);
        cache->put("key", numbered(i), 1h);
        REQUIRE(schema.sql().terminate(named.name) >= 1);
        CHECK(cache->cleanup() == 0);
        REQUIRE(schema.sql().terminate(named.name) >= 1);
        CHECK_FALSE(cache->remove("absent"));
    }
    CHECK(cache->get("key") == numbered(3));
    REQUIRE(schema.sql().terminate(named.name) >= 1);
    CHECK(cache->flush() == 1);
    CHECK(cache->statistics().errors == 0);
}

TEST_CASE("All backends of a pool killed at once are not noticed by the callers") {
    TestSchema schema;
    NamedPool named;
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), named.options, schema.cache_options());
    const auto call_all = [&]() -> asio::awaitable<void> {
        const auto executor = context.get_executor();
        std::vector<Started<void>> puts;
        std::vector<Started<std::optional<json::object>>> gets;
        for (int i = 0; i < 400; ++i) {
            puts.push_back(start(executor, cache.put_raw(std::to_string(i), numbered(i), 1h)));
            gets.push_back(start(executor, cache.get_raw("absent" + std::to_string(i))));
        }
        for (auto& put : puts) {
            co_await put.get();
        }
        for (auto& get : gets) {
            const auto value = co_await get.get();
            CHECK(value == std::nullopt);
        }
    };
    for (int i = 0; i < 3; ++i) {
        run_coro(context, call_all);
        REQUIRE(schema.sql().terminate(named.name) >= 1);
    }
    run_coro(context, call_all);
    CHECK(schema.rows() == 400);
    CHECK(cache.statistics().errors == 0);
}

TEST_CASE(
    "A call that overruns its deadline is timed_out in time, and the cache works afterwards") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    auto options = schema.cache_options();
    options.timeout = 300ms * slowness;
    options.maintenance_timeout = 400ms * slowness;
    const auto cache = make_cache(flavour, options, server_pool());
    cache->put("key", numbered(0), 1h);
    TableLock lock(schema);

    for (const auto& call : every_call()) {
        CAPTURE(call.name);
        const auto started = Clock::now();
        const auto failure = failure_of([&] { call.run(*cache); });
        const auto took = Clock::now() - started;
        CHECK(failure.code() == Errc::timed_out);
        CHECK(failure.code() == Condition::timeout);
        CHECK(failure.code() != asio::error::operation_aborted);
        CHECK(failure.typed());
        CHECK(took >= 290ms);
        CHECK(took < 2500ms);
    }
    CHECK(cache->statistics().timeouts == 5);

    lock.release();
    // Statements that were abandoned may still run on their own connections: flush, remove, put.
    const auto works = [&] {
        return !failure_of([&] { cache->put("after", numbered(2), 1h); }) &&
               cache->get("after") == numbered(2);
    };
    CHECK(eventually(works));
    CHECK(cache->cleanup() == 0);
}

TEST_CASE("A get without an answer does not hold up calls after its deadline") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    auto options = schema.cache_options();
    options.timeout = 300ms * slowness;
    NamedPool named;
    named.options.max_size = 2;
    const auto cache = make_cache(flavour, options, named.options);
    cache->put("key", numbered(1), 1h);
    {
        TableLock lock(schema);
        for (int i = 0; i < 6; ++i) {
            CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::timed_out);
        }
        lock.release();
    }
    CHECK(cache->get("key") == numbered(1));
    CHECK(eventually([&] { return schema.sql().connections(named.name) <= 2; }));
}

TEST_CASE("OnOutage::miss answers miss and drops writes while the server cannot be reached") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    auto options = CacheOptions();
    options.on_outage = OnOutage::miss;
    const auto cache =
        make_cache(flavour, options, impatient_pool("host=127.0.0.1 port=1 user=x dbname=x"));

    CHECK(cache->get("key") == std::nullopt);
    CHECK_NOTHROW(cache->put("key", numbered(1), 1h));
    CHECK_FALSE(cache->remove("key"));
    CHECK(failure_of([&] { cache->flush(); }).code() == Errc::connect_failed);
    CHECK(failure_of([&] { cache->cleanup(); }).code() == Errc::connect_failed);
    CHECK(failure_of([&] { cache->get("\xFF"); }).code() == Errc::invalid_key);
    CHECK(failure_of([&] { cache->put("key", numbered(1), max_ttl + 1us); }).code() ==
          Errc::invalid_ttl);
    CHECK(cache->statistics().outage_misses == 1);
    CHECK(cache->statistics().dropped_writes == 2);
    CHECK(cache->statistics().hits == 0);
    CHECK(cache->statistics().puts == 0);
}

TEST_CASE("OnOutage::miss also answers for calls that time out, and hides no other error") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    auto options = schema.cache_options();
    options.on_outage = OnOutage::miss;
    options.timeout = 200ms * slowness;
    const auto cache = make_cache(flavour, options, server_pool());
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
    {
        TableLock lock(schema);
        const auto started = Clock::now();
        CHECK(cache->get("key") == std::nullopt);
        CHECK_NOTHROW(cache->put("other", numbered(2), 1h));
        CHECK_FALSE(cache->remove("other"));
        CHECK(Clock::now() - started < 3 * options.timeout + 1s);  // each within its deadline
        lock.release();
    }
    CHECK(cache->statistics().outage_misses == 1);
    CHECK(cache->statistics().dropped_writes == 2);
    CHECK(cache->get("key") == numbered(1));
    schema.sql().exec("DROP TABLE " + schema.table());
    CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::table_missing);
}

TEST_CASE("No error and no log line tells a key, a value or a password") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const std::string key = "secret-key-4711";
    json::object value;
    value["secret-name-4712"] = "secret-value-4713";
    LogCapture log;
    std::vector<std::string> texts;
    const auto collect = [&](AnyCache& cache, const std::string& suffix) {
        auto poisoned = value;
        poisoned["x"] = std::nan("");
        json::object bad;
        bad["secret-name-4712"] = "secret-value-4713\xFF";
        for (const std::function<void()>& call : std::vector<std::function<void()>>{
                 [&] { cache.get(key + suffix); },
                 [&] { cache.put(key + suffix, value, 1h); },
                 [&] { cache.put(key + suffix, poisoned, 1h); },
                 [&] { cache.put(key + suffix, bad, 1h); },
                 [&] { cache.put(key + suffix, value, max_ttl + 1us); },
                 [&] { cache.remove(key + suffix); },
                 [&] { cache.cleanup(); },
                 [&] { cache.flush(); },
             }) {
            const auto failure = failure_of(call);
            texts.push_back(failure.what());
            texts.push_back(failure.code().message());
        }
    };
    TestSchema schema(Table::none);
    auto options = schema.cache_options();
    options.log = log.sink();
    options.timeout = 300ms * slowness;
    options.maintenance_timeout = 300ms * slowness;
    auto pool = server_pool();
    pool.dsn = dsn_with({{"password", "secret-password-4714"}});
    pool.log = log.sink();
    const auto cache = make_cache(flavour, options, pool);
    collect(*cache, "");
    collect(*cache, std::string("\0", 1));
    collect(*cache, "\xFF");
    collect(*cache, std::string(3000, 'k'));
    // Constraints and triggers put what they refuse into their messages.
    schema.sql().exec("CREATE TABLE " + schema.table() +
                      " (key text PRIMARY KEY CHECK (length(key) < 2), value jsonb NOT NULL, "
                      "expires_at timestamptz NOT NULL)");
    const auto refused = failure_of([&] { cache->put(key, value, 1h); });
    CHECK(refused.sqlstate() == "23514");
    texts.push_back(refused.what());
    schema.insert("k", "[\"secret-value-4713\"]");
    const auto unreadable = failure_of([&] { cache->get("k"); });
    CHECK(unreadable.code() == Errc::unreadable_value);
    texts.push_back(unreadable.what());
    {
        TableLock lock(schema);
        collect(*cache, "");
        lock.release();
    }
    auto unreachable = impatient_pool(
        "postgresql://someone:secret-password-4714@127.0.0.1:1/x?application_name=y");
    unreachable.log = log.sink();
    collect(*make_cache(flavour, options, unreachable), "");
    if (const auto where =
            tcp_dsn({{"user", "psycache_scram"}, {"password", "secret-password-4714"}})) {
        auto denied = impatient_pool(*where);
        denied.log = log.sink();
        collect(*make_cache(flavour, options, denied), "");
    }
    CHECK_THROWS_WITH(
        make_cache(flavour, options, impatient_pool("password=secret-password-4714 =")),
        !Catch::Contains("secret-password"));

    const auto lines = log.journal().lines();
    texts.insert(texts.end(), lines.begin(), lines.end());
    CHECK(texts.size() > 40);
    for (const auto& text : texts) {
        CHECK_THAT(text, !Catch::Contains("secret-"));
        CHECK_THAT(text, !Catch::Contains("4711") && !Catch::Contains("kkkkkkkk"));
    }
}

TEST_CASE("A write whose connection breaks before its answer ends with outcome_unknown") {
    const auto port = tcp_port();
    if (!port) {
        return;
    }
    TestSchema schema;
    Gate gate(*port);
    gate.switch_on();
    asio::io_context context;
    auto options = schema.cache_options();
    options.timeout = 20s;
    options.replay_writes = GENERATE(false, true);
    CAPTURE(options.replay_writes);
    AsyncPostgresCache cache(context.get_executor(), gated_pool(gate), options);

    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.put_raw("key", numbered(0), 1h);
        TableLock lock(schema);
        auto put = start(context.get_executor(), cache.put_raw("key", numbered(1), 1h));
        const auto blocked = [&] { return lock.waiting() >= 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        gate.switch_off();
        gate.switch_on();
        if (options.replay_writes) {
            const auto blocked_again = [&] { return lock.waiting() >= 2; };
            const bool sent_again = co_await until(blocked_again);
            CHECK(sent_again);
            CHECK_FALSE(put.done());
            lock.release();
            co_await put.get();
            CHECK(cache.statistics().retries == 1);
        } else {
            const auto failure = co_await put.failure();
            CHECK(failure.code() == Errc::outcome_unknown);
            CHECK(failure.code() == Condition::outcome_unknown);
            CHECK(failure.typed());
            lock.release();
        }
        co_await cache.put_raw("key", numbered(2), 1h);
        const auto value = co_await cache.get_raw("key");
        CHECK(value == numbered(2));
    });
}

TEST_CASE("What must not be done twice is not sent again, whatever the options say") {
    const auto port = tcp_port();
    if (!port) {
        return;
    }
    TestSchema schema;
    Gate gate(*port);
    gate.switch_on();
    asio::io_context context;
    auto options = schema.cache_options();
    options.timeout = 20s;
    options.replay_writes = true;
    AsyncPostgresCache cache(context.get_executor(), gated_pool(gate), options);
    const int which = GENERATE(0, 1, 2, 3);
    CAPTURE(which);

    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto call = [&]() -> asio::awaitable<void> {
            if (which == 0) {
                co_await cache.increment("key", 1, 1h);
            } else if (which == 1) {
                co_await cache.take<int>("key");
            } else if (which == 2) {
                co_await cache.put_if_absent("key", 1, 1h);
            } else {
                co_await cache.compare_and_put("key", 1, 2, 1h);
            }
        };
        // Once before, so that it is prepared: what breaks while it is being prepared was not sent.
        co_await call();
        TableLock lock(schema);
        auto write = start(context.get_executor(), call());
        const auto blocked = [&] { return lock.waiting() >= 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        gate.switch_off();
        gate.switch_on();
        const auto failure = co_await write.failure();
        CHECK(failure.code() == Errc::outcome_unknown);
        CHECK(cache.statistics().retries == 0);
        lock.release();
    });
}

TEST_CASE("A remove or a flush whose connection breaks ends with outcome_unknown") {
    const auto port = tcp_port();
    if (!port) {
        return;
    }
    TestSchema schema;
    Gate gate(*port);
    gate.switch_on();
    asio::io_context context;
    AsyncPostgresCache cache(context.get_executor(), gated_pool(gate), schema.cache_options());
    const bool flushes = GENERATE(false, true);
    CAPTURE(flushes);

    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto call = [&]() -> asio::awaitable<void> {
            if (flushes) {
                co_await cache.flush();
            } else {
                co_await cache.remove("key");
            }
        };
        co_await call();  // so that it is prepared: preparing can be done again
        TableLock lock(schema);
        auto running = start(context.get_executor(), call());
        const auto blocked = [&] { return lock.waiting() >= 1; };
        const bool is_blocked = co_await until(blocked);
        REQUIRE(is_blocked);
        gate.switch_off();
        gate.switch_on();
        const auto failure = co_await running.failure();
        CHECK(failure.code() == Errc::outcome_unknown);
        lock.release();
        co_await cache.put_raw("key", numbered(2), 1h);
    });
}

TEST_CASE("A get whose connection breaks before its answer is sent once more") {
    const auto port = tcp_port();
    if (!port) {
        return;
    }
    TestSchema schema;
    Gate gate(*port);
    gate.switch_on();
    asio::io_context context;
    auto options = schema.cache_options();
    options.timeout = 20s;
    AsyncPostgresCache cache(context.get_executor(), gated_pool(gate), options);

    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.put_raw("key", numbered(1), 1h);
        std::optional<TableLock> lock(std::in_place, schema);
        auto get = start(context.get_executor(), cache.get_raw("key"));
        const auto blocked = [&] { return lock->waiting() >= 1; };
        const auto blocked_again = [&] { return lock->waiting() >= 2; };
        const bool first = co_await until(blocked);
        REQUIRE(first);
        gate.switch_off();
        gate.switch_on();
        const bool second = co_await until(blocked_again);
        REQUIRE(second);
        CHECK_FALSE(get.done());
        lock->release();
        const auto value = co_await get.get();
        CHECK(value == numbered(1));
        CHECK(cache.statistics().retries == 1);
    });
}

TEST_CASE("A get or a cleanup whose connection breaks twice before its answer is connection_lost") {
    const bool cleans = GENERATE(false, true);
    CAPTURE(cleans);
    const auto port = tcp_port();
    if (!port) {
        return;
    }
    TestSchema schema;
    Gate gate(*port);
    gate.switch_on();
    asio::io_context context;
    auto pool = gated_pool(gate);
    pool.prepare_statements = false;  // or the second break would hit the preparation
    AsyncPostgresCache cache(context.get_executor(), pool, schema.cache_options());

    run_coro(context, [&]() -> asio::awaitable<void> {
        const auto call = [&]() -> asio::awaitable<void> {
            if (cleans) {
                co_await cache.cleanup_expired();
            } else {
                co_await cache.get_raw("key");
            }
        };
        co_await cache.put_raw("key", numbered(1), 1h);
        TableLock lock(schema);
        auto running = start(context.get_executor(), call());
        for (int times = 1; times <= 2; ++times) {
            const auto blocked = [&] { return lock.waiting() >= times; };
            const bool is_blocked = co_await until(blocked);
            REQUIRE(is_blocked);
            gate.switch_off();
            gate.switch_on();
        }
        const auto failure = co_await running.failure();
        CHECK(failure.code() == Errc::connection_lost);
        CHECK(failure.code() == Condition::unavailable);
        lock.release();
        const auto value = co_await cache.get_raw("key");
        CHECK(value == numbered(1));
    });
}

TEST_CASE(
    "A call whose backend is terminated is done once more, since the server said it was not done") {
    TestSchema schema;
    NamedPool named;
    asio::io_context context;
    auto options = schema.cache_options();
    options.timeout = 20s;
    AsyncPostgresCache cache(context.get_executor(), named.options, options);
    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.put_raw("key", numbered(1), 1h);
        TableLock lock(schema);
        auto get = start(context.get_executor(), cache.get_raw("key"));
        auto put = start(context.get_executor(), cache.put_raw("other", numbered(2), 1h));
        const auto blocked = [&] { return lock.waiting() == 2; };
        const bool first = co_await until(blocked);
        REQUIRE(first);
        schema.sql().terminate(named.name);
        const bool second = co_await until(blocked);
        REQUIRE(second);
        lock.release();
        const auto value = co_await get.get();
        CHECK(value == numbered(1));
        co_await put.get();
        CHECK(schema.has("other"));
    });
}

TEST_CASE("Beyond max_queued_calls a call fails at once, and the others are answered") {
    TestSchema schema;
    asio::io_context context;
    auto options = schema.cache_options();
    options.max_queued_calls = 4;
    options.timeout = 20s;
    AsyncPostgresCache cache(context.get_executor(), server_pool(1), options);

    run_coro(context, [&]() -> asio::awaitable<void> {
        co_await cache.put_raw("key", numbered(0), 1h);
        TableLock lock(schema);
        std::vector<Started<void>> puts;
        const auto add = [&](int count) {
            for (int i = 0; i < count; ++i) {
                puts.push_back(start(context.get_executor(),
                                     cache.put_raw(std::to_string(puts.size()), numbered(1), 1h)));
            }
        };
        const auto done = [&] {
            return std::count_if(puts.begin(), puts.end(), [](auto& put) { return put.done(); });
        };
        // What was sent is not queued: fill the connection first, then the queue.
        for (int i = 0; i < 20; ++i) {
            add(3);
            const auto blocked = [&] { return lock.waiting() >= 1; };
            co_await until(blocked);
            co_await pause(1ms);
        }
        const auto some_failed = [&] { return done() >= 1; };
        const bool overflown = co_await until(some_failed, 5s);
        CHECK(overflown);
        const auto refused = done();
        CHECK(cache.statistics().queued <= 4);
        for (auto& put : puts) {
            if (put.done()) {
                const auto failure = co_await put.failure();
                CHECK(failure.code() == Errc::queue_full);
                CHECK(failure.code() == Condition::transient);
            }
        }
        lock.release();
        std::int64_t stored = 0;
        for (auto& put : puts) {
            const auto failure = co_await put.failure();
            stored += failure ? 0 : 1;
        }
        CHECK(stored == static_cast<std::int64_t>(puts.size()) - refused);
        CHECK(schema.rows("key <> 'key'") == stored);
        co_await cache.put_raw("key", numbered(2), 1h);
        const auto value = co_await cache.get_raw("key");
        CHECK(value == numbered(2));
    });
}

TEST_CASE("Errors of the server that have no name of their own keep their SQLSTATE") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    schema.sql().exec("ALTER TABLE " + schema.table() + " ADD CHECK (key <> 'forbidden')");

    const auto failure = failure_of([&] { cache->put("forbidden", numbered(1), 1h); });

    CHECK(failure.code() == sqlstate_code("23514"));
    CHECK(failure.sqlstate() == "23514");
    cache->put("allowed", numbered(1), 1h);
    CHECK(cache->get("allowed") == numbered(1));
}

TEST_CASE("A write that deadlocks or cannot be serialized is tried again within its deadline") {
    const auto flavour = EVERY_FLAVOUR();
    const std::string sqlstate(GENERATE(as<std::string>(), "40001", "40P01"));
    CAPTURE(flavour, sqlstate);
    TestSchema schema;
    const auto cache = make_cache(flavour, schema);
    // Sequences are not rolled back, so the trigger fails the first two times only.
    schema.sql().exec(
        "CREATE SEQUENCE " + schema.quoted() + ".attempts; CREATE FUNCTION " + schema.quoted() +
        ".fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF nextval('" + schema.quoted() +
        ".attempts') <= 2 THEN RAISE EXCEPTION USING ERRCODE = '" + sqlstate +
        "'; END IF; RETURN NEW; END$$; CREATE TRIGGER fail BEFORE INSERT ON " + schema.table() +
        " FOR EACH ROW EXECUTE FUNCTION " + schema.quoted() + ".fail()");

    cache->put("key", numbered(1), 1h);

    CHECK(cache->get("key") == numbered(1));
    CHECK(cache->statistics().retries == 2);
    CHECK(schema.sql().number("SELECT last_value FROM " + schema.quoted() + ".attempts") == 3);
}

TEST_CASE("A statement_timeout of the role fails the call only") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    PoolOptions pool;
    pool.dsn = dsn_with({{"options", "-cstatement_timeout=150"}});
    const auto cache = make_cache(flavour, schema.cache_options(), pool);
    cache->put("key", numbered(1), 1h);
    {
        TableLock lock(schema);
        const auto failure = failure_of([&] { cache->get("key"); });
        CHECK(failure.sqlstate() == "57014");
        CHECK(failure.code() != asio::error::operation_aborted);
        lock.release();
    }
    CHECK(cache->get("key") == numbered(1));
}

TEST_CASE("With OnOutage::miss a server that is away costs nobody a wait, and is found again") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const auto port = tcp_port();
    if (!port) {
        return;
    }
    TestSchema schema;
    Gate gate(*port);
    gate.switch_on();
    LogCapture log;
    auto options = schema.cache_options();
    options.on_outage = OnOutage::miss;
    options.timeout = 500ms * slowness;
    options.log = log.sink();
    auto pool = gated_pool(gate);
    pool.max_size = 1;
    const auto cache = make_cache(flavour, options, pool);
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
    CHECK_FALSE(cache->statistics().circuit_open);

    gate.swallow(true);
    // Each of these waits for its deadline in vain.
    for (int i = 0; !cache->statistics().circuit_open && i < 20; ++i) {
        CHECK(cache->get("key") == std::nullopt);
    }
    REQUIRE(cache->statistics().circuit_open);
    const auto started = Clock::now();
    int calls = 0;
    for (; Clock::now() - started < 3s; ++calls) {
        CHECK(cache->get("key") == std::nullopt);
        CHECK_NOTHROW(cache->put("key", numbered(2), 1h));
        CHECK_FALSE(cache->remove("key"));
        CHECK(cache->get_many({"key", "other"}).size() == 2);
        CHECK(failure_of([&] { cache->get("\xFF"); }).code() == Errc::invalid_key);
    }
    CHECK(calls > 100);  // those that were let through took half a second each
    CHECK(cache->statistics().circuit_open);

    gate.swallow(false);
    CHECK(eventually([&] { return cache->get("key").has_value(); }));
    CHECK_FALSE(cache->statistics().circuit_open);
    CHECK(log.journal().count("the server cannot be reached") == 1);
    CHECK(log.journal().count("the server answers again") == 1);
}

TEST_CASE("With OnOutage::miss a blocking call that finds all connections hung is answered") {
    TestSchema schema;
    auto options = schema.cache_options();
    options.on_outage = OnOutage::miss;
    options.timeout = 500ms * slowness;
    auto pool = server_pool(1);
    PostgresCache cache(pool, options);
    cache.put_raw("key", numbered(1), 1h);
    TableLock lock(schema);
    std::optional<json::object> found = numbered(0);
    std::thread hung([&] { found = cache.get_raw("key"); });
    CHECK(eventually([&] { return lock.waiting() == 1; }));
    CHECK(cache.get_raw("key") == std::nullopt);
    CHECK(cache.get_raw_many({"key"}) == std::vector<std::optional<json::object>>(1));
    CHECK_NOTHROW(cache.put_raw("key", numbered(2), 1h));
    CHECK(failure_of([&] { cache.get_raw("\xFF"); }).code() == Errc::invalid_key);
    hung.join();
    CHECK(found == std::nullopt);
    lock.release();
}
