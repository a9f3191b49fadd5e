// Options: their defaults, and that every field is checked by name before anything happens.

#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include <psycache/psycache.hpp>

using namespace psycache;
using namespace std::chrono_literals;

namespace {

template <class Options>
struct Wrong {
    std::string field;
    std::function<void(Options&)> make;
};

/// Everything wrong about one duration that must be positive.
template <class Options>
void add_duration(std::vector<Wrong<Options>>& all, const std::string& field,
                  Duration Options::*member, bool may_be_endless) {
    for (const auto value : {Duration(0), Duration(-1), Duration::min()}) {
        all.push_back({field, [=](Options& options) { options.*member = value; }});
    }
    if (!may_be_endless) {
        all.push_back({field, [=](Options& options) { options.*member = no_expiry; }});
    }
}

std::vector<Wrong<PoolOptions>> wrong_pools() {
    std::vector<Wrong<PoolOptions>> all;
    all.push_back({"dsn", [](PoolOptions& options) { options.dsn = "this is no dsn"; }});
    all.push_back({"dsn", [](PoolOptions& options) { options.dsn = "nonsense=1"; }});
    all.push_back({"dsn", [](PoolOptions& options) { options.dsn = "postgresql://[x"; }});
    all.push_back({"dsn", [](PoolOptions& options) { options.dsn = std::string("host=a\0b", 8); }});
    all.push_back({"max_size", [](PoolOptions& options) { options.max_size = 0; }});
    all.push_back({"PoolOptions::min_idle", [](PoolOptions& options) { options.min_idle = 5; }});
    all.push_back(
        {"PoolOptions::max_connecting", [](PoolOptions& options) { options.max_connecting = 0; }});
    all.push_back({"PoolOptions::init_sql", [](PoolOptions& options) {
                       options.init_sql = {"SELECT 1", ""};
                   }});
    all.push_back({"PoolOptions::init_sql", [](PoolOptions& options) {
                       options.init_sql = {std::string("SELECT\0 1", 9)};
                   }});
    all.push_back({"PoolOptions::instrumentations",
                   [](PoolOptions& options) { options.instrumentations.push_back(nullptr); }});
    add_duration(all, "connect_timeout", &PoolOptions::connect_timeout, false);
    add_duration(all, "acquire_timeout", &PoolOptions::acquire_timeout, false);
    add_duration(all, "idle_timeout", &PoolOptions::idle_timeout, true);
    add_duration(all, "max_lifetime", &PoolOptions::max_lifetime, true);
    return all;
}

std::vector<Wrong<CacheOptions>> wrong_caches() {
    std::vector<Wrong<CacheOptions>> all;
    all.push_back({"schema must not be empty", [](CacheOptions& options) { options.schema = ""; }});
    all.push_back(
        {"schema", [](CacheOptions& options) { options.schema = std::string("a\0b", 3); }});
    all.push_back({"CacheOptions::instrumentations", [](CacheOptions& options) {
                       options.instrumentations.push_back(std::make_shared<CacheInstrumentation>());
                       options.instrumentations.push_back(nullptr);
                   }});
    all.push_back(
        {"max_queued_calls", [](CacheOptions& options) { options.max_queued_calls = 0; }});
    add_duration(all, "timeout", &CacheOptions::timeout, false);
    add_duration(all, "maintenance_timeout", &CacheOptions::maintenance_timeout, false);
    return all;
}

PoolOptions good_pool() {
    PoolOptions options;
    options.dsn = "host=127.0.0.1 port=1";
    return options;
}

/// Checks that it throws std::invalid_argument and names the field.
template <class F>
void check_refused(const std::string& field, F&& make) {
    CAPTURE(field);
    try {
        make();
        FAIL_CHECK("was accepted");
    } catch (const std::invalid_argument& error) {
        CHECK_THAT(error.what(), Catch::Contains(field));
    }
}

}  // namespace

TEST_CASE("Defaults are finite and positive") {
    const PoolOptions pool;
    CHECK(pool.dsn.empty());
    CHECK(pool.max_size == 4);
    CHECK(pool.min_idle == 0);
    CHECK(pool.max_connecting == 2);
    CHECK_FALSE(pool.password);
    CHECK(pool.init_sql.empty());
    CHECK(pool.prepare_statements);
    for (const auto value :
         {pool.connect_timeout, pool.acquire_timeout, pool.idle_timeout, pool.max_lifetime}) {
        CHECK(value > 0us);
        CHECK(value < no_expiry);
    }
    CHECK_FALSE(pool.log);
    const CacheOptions cache;
    CHECK_FALSE(cache.schema);
    CHECK(cache.instrumentations.empty());
    CHECK(cache.timeout > 0us);
    CHECK(cache.timeout < 1min);
    CHECK(cache.maintenance_timeout > cache.timeout);
    CHECK(cache.on_outage == OnOutage::raise);
    CHECK_FALSE(cache.replay_writes);
    CHECK(cache.max_queued_calls >= 1);
    CHECK_FALSE(cache.log);
    const TableOptions table;
    CHECK_FALSE(table.schema);
    CHECK(table.unlogged);
    CHECK_FALSE(table.notify);
}

TEST_CASE("Every wrong field of PoolOptions is refused by name by all that take them") {
    boost::asio::io_context context;
    for (const auto& wrong : wrong_pools()) {
        auto options = good_pool();
        wrong.make(options);
        check_refused(wrong.field, [&] { ConnectionPool(context.get_executor(), options); });
        check_refused(wrong.field,
                      [&] { AsyncPostgresCache(context.get_executor(), options, CacheOptions()); });
        check_refused(wrong.field, [&] { PostgresCache(options, CacheOptions()); });
    }
}

TEST_CASE("Every wrong field of CacheOptions is refused by name by all that take them") {
    boost::asio::io_context context;
    const auto async_pool = std::make_shared<ConnectionPool>(context.get_executor(), good_pool());
    const auto pool = std::make_shared<BorrowingPool>([] { return BorrowedConnection(); });
    for (const auto& wrong : wrong_caches()) {
        CacheOptions options;
        wrong.make(options);
        check_refused(wrong.field, [&] { AsyncPostgresCache(async_pool, options); });
        check_refused(wrong.field,
                      [&] { AsyncPostgresCache(context.get_executor(), good_pool(), options); });
        check_refused(wrong.field, [&] { PostgresCache(good_pool(), options); });
        check_refused(wrong.field, [&] { PostgresCache(pool, options); });
    }
}

TEST_CASE("Good options are accepted, and nothing is opened") {
    boost::asio::io_context context;
    for (const std::string dsn : {"", "host=a,b port=1,2", "postgresql://u:p@h:1/d?sslmode=require",
                                  "postgres://", "host='it\\'s'"}) {
        CAPTURE(dsn);
        PoolOptions pool;
        pool.dsn = dsn;
        pool.idle_timeout = no_expiry;
        pool.max_lifetime = no_expiry;
        pool.max_size = 1;
        pool.acquire_timeout = 1us;
        CacheOptions options;
        options.schema = "any \"thing\"; --";
        options.max_queued_calls = 1;
        options.timeout = 1us;
        CHECK_NOTHROW(ConnectionPool(context.get_executor(), pool));
        CHECK_NOTHROW(AsyncPostgresCache(context.get_executor(), pool, options));
        CHECK_NOTHROW(PostgresCache(pool, options));
    }
    CHECK(context.poll() == 0);
}

TEST_CASE("A DSN that is refused is not repeated") {
    boost::asio::io_context context;
    for (const std::string dsn : {"password=top-secret-77 nonsense=1", "password=top-secret-77 =",
                                  "password='top-secret-77", "postgresql://u:top-secret-77@[h/d",
                                  "postgresql://u:top-secret-77%zz@h/d", "top-secret-77"}) {
        CAPTURE(dsn);
        PoolOptions options;
        options.dsn = dsn;
        for (const std::function<void()>& make : std::vector<std::function<void()>>{
                 [&] { ConnectionPool(context.get_executor(), options); },
                 [&] { PostgresCache{options}; }, [&] { init_db(dsn); }}) {
            try {
                make();
                FAIL_CHECK("was accepted");
            } catch (const std::invalid_argument& error) {
                CHECK_THAT(error.what(), !Catch::Contains("top-secret-77"));
            }
        }
    }
}

TEST_CASE("Null pools and empty executors are refused") {
    CHECK_THROWS_AS(AsyncPostgresCache(std::shared_ptr<AsyncCachePool>()), std::invalid_argument);
    CHECK_THROWS_AS(PostgresCache(std::shared_ptr<CachePool>()), std::invalid_argument);
    CHECK_THROWS_AS(ConnectionPool(asio::any_io_executor(), good_pool()), std::invalid_argument);
    CHECK_THROWS_AS(AsyncPostgresCache(asio::any_io_executor(), good_pool()),
                    std::invalid_argument);
}

TEST_CASE("Options types are no aggregates, which g++ 12 would destroy twice") {
    static_assert(!std::is_aggregate_v<PoolOptions>);
    static_assert(!std::is_aggregate_v<CacheOptions>);
    static_assert(!std::is_aggregate_v<TableOptions>);
    PoolOptions a;
    a.dsn = "host=x";
    PoolOptions b = a;
    PoolOptions c = std::move(a);
    a = b;
    CHECK(c.dsn == "host=x");
    CHECK(a.dsn == "host=x");
}

TEST_CASE("Durations convert from the units of chrono, and the limits of a ttl are in order") {
    const Duration second = 1s;
    CHECK(second.count() == 1000000);
    CHECK(Duration(250ms).count() == 250000);
    CHECK(min_ttl < Duration(0));
    CHECK(max_ttl > Duration(24h * 365 * 1000));
    CHECK(max_ttl < no_expiry);
}
