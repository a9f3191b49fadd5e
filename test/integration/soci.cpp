// The cache on the sessions of a SOCI connection pool.

#ifdef PSYCACHE_TEST_SOCI

#include <soci/postgresql/soci-postgresql.h>
#include <soci/soci.h>

#include <catch2/catch.hpp>
#include <psycache/soci.hpp>
#include <thread>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// A SOCI pool on the test server, and a cache on it.
class SociTest {
  public:
    explicit SociTest(std::size_t size = 2) : sessions(size) {
        for (std::size_t i = 0; i < size; ++i) {
            sessions.at(i).open(soci::postgresql, dsn());
        }
    }
    std::shared_ptr<SociCachePool> pool(Duration timeout = 2s) {
        return std::make_shared<SociCachePool>(sessions, timeout);
    }
    // SOCI hides the type information of its backends: nothing for dynamic_cast, nor for a
    // sanitizer.
    __attribute__((no_sanitize("vptr"))) PGconn* native(std::size_t i) {
        return static_cast<soci::postgresql_session_backend*>(sessions.at(i).get_backend())->conn_;
    }
    /// How many sessions are free now.
    std::size_t free_sessions() {
        std::vector<std::size_t> taken;
        std::size_t position = 0;
        while (sessions.try_lease(position, 0)) {
            taken.push_back(position);
        }
        for (const auto i : taken) {
            sessions.give_back(i);
        }
        return taken.size();
    }

    soci::connection_pool sessions;
};

/// Ends the server's sessions that fulfil a condition, and waits until they are gone.
void end_sessions(TestSchema& schema, const std::string& condition) {
    const std::string sessions = " FROM pg_stat_activity WHERE " + condition;
    schema.sql().exec("SELECT pg_terminate_backend(pid)" + sessions);
    REQUIRE(eventually([&] { return schema.sql().number("SELECT count(*)" + sessions) == 0; }));
}

}  // namespace

TEST_CASE("A cache works on SOCI's sessions") {
    TestSchema schema(GENERATE(Table::ours, Table::python), nasty);
    SociTest soci_test;
    PostgresCache cache(soci_test.pool(), schema.cache_options());

    const auto value = object(R"({"a": [1, null, "x"]})");
    cache.put_raw("key", value, 1h);
    CHECK(cache.get_raw("key") == value);
    CHECK(cache.get_raw("absent") == std::nullopt);
    cache.put_raw("expired", numbered(1), -1s);
    CHECK(cache.get_raw("expired") == std::nullopt);
    CHECK(cache.cleanup_expired() == 1);
    CHECK(cache.remove("key"));
    CHECK(cache.flush() == 0);
    CHECK(soci_test.free_sessions() == 2);
}

TEST_CASE("SOCI's sessions come back as they were found, also after an error") {
    TestSchema schema(GENERATE(Table::ours, Table::none));
    SociTest soci_test(1);
    PostgresCache cache(soci_test.pool(), schema.cache_options());
    failure_of([&] { cache.put_raw("key", numbered(1), 1h); });
    failure_of([&] { cache.get_raw("key"); });
    failure_of([&] { cache.cleanup_expired(); });

    CHECK(soci_test.free_sessions() == 1);
    CHECK(PQtransactionStatus(soci_test.native(0)) == PQTRANS_IDLE);
    CHECK(PQisnonblocking(soci_test.native(0)) == 0);
    CHECK(PQpipelineStatus(soci_test.native(0)) == PQ_PIPELINE_OFF);
    soci::session session(soci_test.sessions);
    int prepared = -1;
    session << "SELECT count(*) FROM pg_prepared_statements", soci::into(prepared);
    CHECK(prepared <= 1);  // the question itself
    int one = 0;
    session << "SELECT 1", soci::into(one);
    CHECK(one == 1);
}

TEST_CASE("A SOCI session inside a transaction is refused and given back untouched") {
    TestSchema schema;
    SociTest soci_test(1);
    PostgresCache cache(soci_test.pool(), schema.cache_options());
    soci_test.sessions.at(0).begin();
    soci_test.sessions.at(0) << "CREATE TABLE " + schema.quoted() + ".other (i int)";

    const auto failure = failure_of([&] { cache.put_raw("key", numbered(1), 1h); });
    CHECK(failure.code() == Errc::connection_unusable);
    CHECK_THAT(failure.what(), Catch::Contains("transaction"));
    CHECK(PQtransactionStatus(soci_test.native(0)) == PQTRANS_INTRANS);
    CHECK(soci_test.free_sessions() == 1);
    soci_test.sessions.at(0).commit();
    CHECK(schema.sql().number("SELECT count(*) FROM pg_tables WHERE schemaname = " +
                              quote_literal(schema.name()) + " AND tablename = 'other'") == 1);
    CHECK(schema.rows() == 0);
    cache.put_raw("key", numbered(1), 1h);
    CHECK(cache.get_raw("key") == numbered(1));
}

TEST_CASE("When all SOCI sessions are taken a call gives up in time") {
    TestSchema schema;
    SociTest soci_test(1);
    PostgresCache cache(soci_test.pool(150ms), schema.cache_options());
    {
        soci::session taken(soci_test.sessions);
        const auto started = Clock::now();
        CHECK(failure_of([&] { cache.get_raw("key"); }).code() == Errc::acquire_timed_out);
        CHECK(Clock::now() - started >= 140ms);
        CHECK(Clock::now() - started < 2s);
    }
    CHECK(cache.get_raw("key") == std::nullopt);
}

TEST_CASE("A SOCI session that is not open is refused and given back") {
    TestSchema schema;
    SociTest soci_test(1);
    PostgresCache cache(soci_test.pool(), schema.cache_options());
    soci_test.sessions.at(0).close();
    CHECK(failure_of([&] { cache.get_raw("key"); }).code() == Errc::connection_unusable);
    CHECK(soci_test.free_sessions() == 1);
    soci_test.sessions.at(0).open(soci::postgresql, dsn());
    CHECK(cache.get_raw("key") == std::nullopt);
}

TEST_CASE("SOCI sessions that have lost their connections are passed over") {
    TestSchema schema;
    SociTest soci_test(9);
    PostgresCache cache(soci_test.pool(), schema.cache_options());
    for (std::size_t i = 0; i < 8; ++i) {
        end_sessions(schema, "pid = " + std::to_string(PQbackendPID(soci_test.native(i))));
        PQclear(PQexec(soci_test.native(i), "SELECT"));
        REQUIRE(PQstatus(soci_test.native(i)) == CONNECTION_BAD);
    }
    for (int i = 0; i < 3; ++i) {
        CHECK(cache.get_raw("key") == std::nullopt);
    }
    CHECK(cache.statistics().retries == 0);
    CHECK(PQstatus(soci_test.native(0)) == CONNECTION_BAD);

    soci_test.sessions.at(3).close();
    std::size_t taken = 0;
    {
        // The good one is the last that is free.
        std::vector<std::size_t> positions(9);
        for (auto& position : positions) {
            REQUIRE(soci_test.sessions.try_lease(position, 0));
        }
        taken = positions.back();
        positions.pop_back();
        for (const auto position : positions) {
            soci_test.sessions.give_back(position);
        }
    }
    REQUIRE(taken == 8);
    cache.put_raw("key", numbered(1), 1h);
    CHECK(cache.get_raw("key") == numbered(1));
    CHECK(PQstatus(soci_test.native(7)) == CONNECTION_OK);
    CHECK(PQstatus(soci_test.native(0)) == CONNECTION_BAD);
    CHECK(cache.statistics().retries == 0);
    soci_test.sessions.give_back(taken);
    CHECK(soci_test.free_sessions() == 9);
}

TEST_CASE("When all SOCI sessions have lost their connections a call says so, until one is back") {
    TestSchema schema;
    const std::string role = unique_name("role");
    schema.sql().exec("CREATE ROLE " + role + " LOGIN SUPERUSER");
    {
        soci::connection_pool sessions(1);
        sessions.at(0).open(soci::postgresql, dsn_with({{"user", role}}));
        PostgresCache cache(std::make_shared<SociCachePool>(sessions), schema.cache_options());
        CHECK(cache.get_raw("key") == std::nullopt);
        schema.sql().exec("ALTER ROLE " + role + " NOLOGIN");
        end_sessions(schema, "usename = '" + role + "'");
        for (int i = 0; i < 2; ++i) {
            const auto failure = failure_of([&] { cache.get_raw("key"); });
            CHECK(failure.code() == Errc::connect_failed);
            CHECK_THAT(failure.what(), Catch::Contains("SOCI"));
        }
        schema.sql().exec("ALTER ROLE " + role + " LOGIN");
        CHECK(cache.get_raw("key") == std::nullopt);
    }
    schema.sql().exec("DROP ROLE " + role);
}

TEST_CASE("A SociCachePool refuses a time-out that is not positive and finite") {
    SociTest soci_test(1);
    for (const auto timeout : {Duration(0), Duration(-1), no_expiry}) {
        CHECK_THROWS_AS(SociCachePool(soci_test.sessions, timeout), std::invalid_argument);
    }
}

TEST_CASE("Many threads share SOCI's sessions with the application") {
    TestSchema schema;
    SociTest soci_test(2);
    PostgresCache cache(soci_test.pool(10s), schema.cache_options());
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 8; ++thread) {
        threads.emplace_back([&, thread] {
            try {
                for (int i = 0; i < 20; ++i) {
                    const auto key = std::to_string(thread);
                    cache.put_raw(key, numbered(i), 1h);
                    wrong += cache.get_raw(key) == numbered(i) ? 0 : 1;
                    soci::session session(soci_test.sessions);
                    int rows = 0;
                    session << "SELECT count(*) FROM " + schema.table(), soci::into(rows);
                    wrong += rows >= 1 ? 0 : 1;
                }
            } catch (const std::exception&) {
                ++wrong;
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK(wrong == 0);
    CHECK(soci_test.free_sessions() == 2);
}

#endif
