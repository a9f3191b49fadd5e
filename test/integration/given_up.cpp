// Statements that nobody waits for any longer: the server is told so at once, whoever owns the
// connection, and with no right but that of having made it.

#include <catch2/catch.hpp>
#include <thread>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// How soon the server is free of a statement, on a busy machine.
constexpr auto soon = 1s * slowness;

/// A role that takes on another one when it logs in, so that the names of its sessions and of what
/// runs in them differ.
class DisguisedRole {
  public:
    explicit DisguisedRole(TestSchema& schema) : sql_(schema.sql()) {
        sql_.exec("CREATE ROLE " + worker_ + "; CREATE ROLE " + name_ + " LOGIN; GRANT " + worker_ +
                  " TO " + name_ + "; ALTER ROLE " + name_ + " SET role = " + worker_);
        sql_.exec("GRANT USAGE ON SCHEMA " + schema.quoted() + " TO " + worker_ +
                  "; GRANT ALL ON ALL TABLES IN SCHEMA " + schema.quoted() + " TO " + worker_);
    }
    DisguisedRole(const DisguisedRole&) = delete;
    DisguisedRole& operator=(const DisguisedRole&) = delete;
    ~DisguisedRole() {
        try {
            sql_.exec("DROP OWNED BY " + worker_ + ", " + name_);
            sql_.exec("DROP ROLE " + worker_ + ", " + name_);
        } catch (const std::exception& error) {
            std::cerr << "test roles stay behind: " << error.what() << '\n';
        }
    }

    const std::string& name() const { return name_; }

  private:
    Psql& sql_;
    const std::string worker_ = unique_name("worker");
    const std::string name_ = unique_name("login");
};

}  // namespace

TEST_CASE("Calls that time out leave no statement on the server, whatever its role") {
    const auto flavour = EVERY_FLAVOUR();
    const bool disguised = GENERATE(false, true);
    CAPTURE(flavour, disguised);
    TestSchema schema;
    const DisguisedRole role(schema);
    auto options = schema.cache_options();
    options.timeout = 100ms;
    auto pool = server_pool(2);
    if (disguised) {
        pool.dsn = dsn_with({{"user", role.name()}});
    }
    auto cache = make_cache(flavour, options, pool);
    CHECK(eventually([&] { return !failure_of([&] { cache->get("key"); }); }));
    TableLock lock(schema);
    for (int call = 0; call < 15; ++call) {
        CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::timed_out);
    }
    // What is on its way ends when its event loop runs, or with the cache.
    CHECK(eventually([&] { return lock.waiting() <= 2; }, soon));
    cache.reset();
    CHECK(eventually([&] { return lock.waiting() == 0; }, soon));
}

TEST_CASE("Calls that time out over TLS leave no statement on the server either") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    const auto where = tcp_dsn({{"sslmode", "require"}});
    if (!where) {
        return;
    }
    TestSchema schema;
    auto options = schema.cache_options();
    options.timeout = 100ms;
    auto pool = server_pool(2);
    pool.dsn = *where;
    auto cache = make_cache(flavour, options, pool);
    CHECK(eventually([&] { return !failure_of([&] { cache->get("key"); }); }));
    TableLock lock(schema);
    for (int call = 0; call < 10; ++call) {
        CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::timed_out);
    }
    CHECK(eventually([&] { return lock.waiting() <= 2; }, soon));
    cache.reset();
    CHECK(eventually([&] { return lock.waiting() == 0; }, soon));
}

TEST_CASE("A flush that is given up lets go of its locks, though its blocker goes on") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema;
    schema.insert("a", "{}");
    schema.insert("b", "{}");
    auto options = schema.cache_options();
    options.maintenance_timeout = 300ms;
    const auto cache = make_cache(flavour, options, server_pool(2));
    CHECK(cache->get("a"));
    Psql blocker;
    blocker.exec("BEGIN; SELECT key FROM " + schema.table() + " WHERE key = 'b' FOR UPDATE");
    CHECK(failure_of([&] { cache->flush(); }).code() == Errc::timed_out);
    const auto is_free = [&] {
        try {
            schema.sql().exec("SELECT key FROM " + schema.table() +
                              " WHERE key = 'a' FOR UPDATE NOWAIT");
            return true;
        } catch (const SqlError& error) {
            CHECK(error.sqlstate() == "55P03");
            return false;
        }
    };
    CHECK(eventually(is_free, soon));
    blocker.exec("COMMIT");
    CHECK(schema.rows() == 2);
}

TEST_CASE("A statement is given up when the context of its call is destroyed") {
    const bool borrowed = GENERATE(false, true);
    CAPTURE(borrowed);
    TestSchema schema;
    schema.insert("key", "{}");
    TableLock lock(schema);
    {
        asio::io_context context;
        const std::shared_ptr<AsyncCachePool> pool =
            borrowed ? std::make_shared<AppConnections>()->pool(context.get_executor())
                     : std::make_shared<ConnectionPool>(context.get_executor(), server_pool(1));
        AsyncPostgresCache cache(pool, schema.cache_options());
        asio::co_spawn(context, cache.get_raw("key"), asio::detached);
        const auto deadline = Clock::now() + patience;
        while (lock.waiting() == 0 && Clock::now() < deadline) {
            context.run_one_for(5ms);
        }
        CHECK(lock.waiting() == 1);
    }
    CHECK(eventually([&] { return lock.waiting() == 0; }, soon));
}

TEST_CASE("What an application runs next on a connection that it lent is not cancelled") {
    const auto flavour = GENERATE(Flavour::async_borrowing, Flavour::blocking_borrowing);
    CAPTURE(flavour);
    TestSchema schema;
    schema.insert("key", "{}");
    auto options = schema.cache_options();
    options.timeout = 300ms;  // in which a slow machine connects, too
    auto pool = server_pool(1);
    const auto cache = make_cache(flavour, options, pool);
    for (int round = 0; round < 10; ++round) {
        {
            TableLock lock(schema);
            CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::timed_out);
        }
        // The same connection or another one: no cancellation arrives late.
        CHECK(eventually([&] { return !failure_of([&] { cache->get("key"); }); }));
        for (int call = 0; call < 5; ++call) {
            CHECK_FALSE(failure_of([&] { cache->get("key"); }));
        }
    }
}
