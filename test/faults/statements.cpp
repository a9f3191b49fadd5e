// Statements that the server refuses under load, and what becomes of those beside them.

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "faults/load.hpp"
#include "faults/role.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// Sixty-four puts of keys "0" to "63" that share a statement, and how each of them ended.
class SharedPuts {
  public:
    SharedPuts(const TestSchema& schema, const Settings& changes) {
        auto pool = server_pool(4);
        pool.dsn = dsn_with(changes);
        auto options = schema.cache_options();
        options.timeout = 20s;
        cache_.emplace(context_.get_executor(), pool, options);
        run_coro(context_, cache_->put_raw("warm", numbered(0), 1h));
    }

    /// Puts @p number under every key.
    std::vector<Failure> put(std::int64_t number) { return run_coro(context_, put_all(number)); }
    CacheStatistics statistics() const { return cache_->statistics(); }

  private:
    asio::awaitable<std::vector<Failure>> put_all(std::int64_t number) {
        std::vector<Started<void>> puts;
        for (int i = 0; i < 64; ++i) {
            puts.push_back(start(context_.get_executor(),
                                 cache_->put_raw(std::to_string(i), numbered(number), 1h)));
        }
        std::vector<Failure> failures;
        for (auto& put : puts) {
            auto failure = co_await put.failure();
            failures.push_back(std::move(failure));
        }
        co_return failures;
    }

    asio::io_context context_;
    std::optional<AsyncPostgresCache> cache_;
};

/// Another session's transaction that holds the row of a key.
class RowLock {
  public:
    RowLock(const TestSchema& schema, const std::string& key) {
        sql_.exec("BEGIN; UPDATE " + schema.table() + " SET expires_at = expires_at WHERE key = '" +
                  key + "'");
    }
    void release() { sql_.exec("COMMIT"); }

  private:
    Psql sql_;
};

bool has_failed(const Failure& failure) {
    return static_cast<bool>(failure);
}

}  // namespace

TEST_CASE("A table that is dropped and made again under load is missing only meanwhile") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    Trial trial(flavour, dsn(), schema.cache_options());
    REQUIRE(trial.load().works());
    trial.load().entries(Entries::vanish);
    for (int round = 0; round < 3; ++round) {
        schema.sql().exec("DROP TABLE " + schema.table());
        CHECK(trial.load().fails());
        init_db(dsn(), schema.table_options());
        CHECK(trial.load().works());
    }
    CHECK(trial.record().count(Errc::table_missing) >= 3);
    trial.finish({Errc::table_missing});
}

TEST_CASE("A table that is replaced in one transaction fails no call") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    Trial trial(flavour, dsn(), schema.cache_options());
    REQUIRE(trial.load().works());
    trial.load().entries(Entries::vanish);
    for (int round = 0; round < 10; ++round) {
        schema.sql().exec("BEGIN; DROP TABLE " + schema.table() + ";" +
                          init_db_sql(schema.table_options()) + "; COMMIT");
        CHECK(trial.load().works());
    }
    trial.finish({});
}

TEST_CASE("A table whose columns change under load fails no call") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    auto options = schema.cache_options();
    // Observed caches ask for more columns.
    if (GENERATE(false, true)) {
        options.instrumentations.push_back(std::make_shared<CacheInstrumentation>());
    }
    Trial trial(flavour, dsn(), options);
    REQUIRE(trial.load().works());
    for (int round = 0; round < 10; ++round) {
        // The types of what statements return are others, and back again.
        schema.sql().exec("ALTER TABLE " + schema.table() + " ALTER COLUMN key TYPE varchar");
        CHECK(trial.load().works());
        schema.sql().exec("ALTER TABLE " + schema.table() + " ADD COLUMN note" +
                          std::to_string(round) + " text DEFAULT 'x'");
        CHECK(trial.load().works());
        schema.sql().exec("ALTER TABLE " + schema.table() + " ALTER COLUMN key TYPE text");
        CHECK(trial.load().works());
    }
    trial.finish({});
}

TEST_CASE("Statements that another user of the connection throws away are prepared again") {
    TestSchema schema;
    asio::io_context context;
    const auto named = NamedPool();
    auto pool_options = named.options;
    pool_options.max_size = 2;
    const auto pool = std::make_shared<ConnectionPool>(context.get_executor(), pool_options);
    AsyncPostgresCache cache(pool, schema.cache_options());
    const std::string what(GENERATE(as<std::string>(), "DISCARD ALL", "DEALLOCATE ALL"));
    CAPTURE(what);

    run_coro(context, [&]() -> asio::awaitable<void> {
        for (int round = 0; round < 5; ++round) {
            std::vector<Started<void>> puts;
            for (int i = 0; i < 64; ++i) {
                puts.push_back(start(context.get_executor(),
                                     cache.put_raw(std::to_string(i), numbered(round), 1h)));
            }
            for (auto& put : puts) {
                co_await put.get();
            }
            auto get = cache.get_raw("7");
            const auto value = co_await std::move(get);
            CHECK(value == numbered(round));
            // All connections of the pool, borrowed by the application.
            std::vector<ConnectionLease> leases;
            for (std::size_t i = 0; i < pool_options.max_size; ++i) {
                auto connect = pool->connect();
                leases.push_back(co_await std::move(connect));
            }
            for (const auto& lease : leases) {
                PQclear(PQexec(lease.native_handle(), what.c_str()));
            }
        }
    });

    CHECK(cache.statistics().errors == 0);
    CHECK(pool->statistics().lost == 0);
    CHECK(pool->statistics().connects == 2);
}

TEST_CASE("Rights that are revoked under load are missing until they are granted again") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const Role role(schema);
    Trial trial(flavour, dsn(), schema.cache_options(), {{"user", role.name()}});
    REQUIRE(trial.load().works());
    const auto connects = trial.load().pool_statistics().connects;
    for (int round = 0; round < 3; ++round) {
        role.revoke();
        CHECK(trial.load().fails());
        role.grant();
        CHECK(trial.load().works());
    }
    CHECK(trial.record().count("42501") >= 3);
    // No connection is thrown away for it.
    CHECK(trial.load().pool_statistics().lost == 0);
    CHECK(trial.load().pool_statistics().connects - connects <= 3);
    trial.finish({Errc::permission_denied});
}

TEST_CASE("Of many puts in one statement only that of a locked row fails by a limit of the role") {
    const auto [setting, sqlstate] = GENERATE(table<std::string, std::string>(
        {{"-cstatement_timeout=300", "57014"}, {"-clock_timeout=300", "55P03"}}));
    CAPTURE(setting);
    TestSchema schema;
    SharedPuts puts(schema, {{"options", setting}});
    const auto before = puts.statistics().statements;
    const auto first = puts.put(1);
    REQUIRE(std::none_of(first.begin(), first.end(), has_failed));
    const auto statements = puts.statistics().statements;
    const auto shared = statements - before;
    RowLock lock(schema, "17");

    const auto failures = puts.put(2);

    REQUIRE(failures.size() == 64);
    for (std::size_t i = 0; i < failures.size(); ++i) {
        CAPTURE(i);
        if (i == 17) {
            CHECK(failures[i].code() == sqlstate_code(sqlstate));
            CHECK(failures[i].code() == Condition::timeout);
            CHECK(failures[i].code() == Condition::transient);
            CHECK(failures[i].code() != asio::error::operation_aborted);
        } else {
            CHECK_FALSE(failures[i]);
        }
    }
    // They shared statements, and each that held the guilty one's was then done one by one.
    CHECK(puts.statistics().statements - statements >= 3);
    CHECK(shared < 64);
    CHECK(schema.rows("value = '{\"n\": 2}'") == 63);
    lock.release();
    const auto last = puts.put(3);
    CHECK(std::none_of(last.begin(), last.end(), has_failed));
    CHECK(schema.rows("value = '{\"n\": 3}'") == 64);
}

TEST_CASE("Puts that deadlock with another session are done once that has ended") {
    TestSchema schema;
    // The cache looks for a deadlock at once, and so is the one that gives way.
    SharedPuts puts(schema, {{"options", "-cdeadlock_timeout=1"}});
    const auto first = puts.put(1);
    REQUIRE(std::none_of(first.begin(), first.end(), has_failed));

    // The cache takes its keys in their order, the opponent in the other one.
    std::atomic<bool> ends = false;
    Journal refused;
    std::thread opponent([&] {
        Psql sql;
        sql.exec("SET deadlock_timeout = '10min'");
        while (!ends) {
            try {
                sql.exec("BEGIN");
                for (const char* key : {"9", "8", "7", "5", "3", "1", "0"}) {
                    sql.exec("UPDATE " + schema.table() +
                             " SET expires_at = expires_at WHERE key = '" + key + "'");
                }
                sql.exec("COMMIT");
            } catch (const SqlError& error) {
                refused.write(error.what());
                return;
            }
        }
    });
    const auto deadlocks = [] {
        return Psql().number(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()");
    };
    const auto before = deadlocks();
    std::int64_t number = 1;
    bool all_stored = true;
    const auto deadline = Clock::now() + patience;
    do {
        const auto failures = puts.put(++number);
        all_stored = std::none_of(failures.begin(), failures.end(), has_failed);
    } while (all_stored && deadlocks() == before && Clock::now() < deadline);
    ends = true;
    opponent.join();

    CHECK(all_stored);
    CHECK(deadlocks() > before);
    CHECK(puts.statistics().retries >= 1);
    CHECK(refused.lines() == std::vector<std::string>{});
    CHECK(schema.rows("value = '{\"n\": " + std::to_string(number) + "}'") == 64);
}

TEST_CASE("A row that a policy refuses fails its own call only") {
    TestSchema schema;
    const Role role(schema);
    schema.sql().exec("ALTER TABLE " + schema.table() +
                      " ENABLE ROW LEVEL SECURITY; CREATE POLICY "
                      "reads ON " +
                      schema.table() + " FOR ALL USING (true) WITH CHECK (key <> '17')");
    SharedPuts puts(schema, {{"user", role.name()}});
    const auto failures = puts.put(2);
    for (std::size_t i = 0; i < failures.size(); ++i) {
        CAPTURE(i);
        CHECK(failures[i].code() ==
              (i == 17 ? make_error_code(Errc::permission_denied) : boost::system::error_code()));
    }
    CHECK(schema.rows("value = '{\"n\": 2}'") == 63);
}

TEST_CASE("Conflicts of a hot row are tried again until the deadline, and hurt no neighbour") {
    TestSchema schema;
    const Role role(schema);
    role.alter("SET default_transaction_isolation = 'serializable'");
    SharedPuts puts(schema, {{"user", role.name()}});
    const auto first = puts.put(1);
    REQUIRE(std::none_of(first.begin(), first.end(), has_failed));
    std::atomic<bool> ends = false;
    std::vector<std::thread> rivals;
    for (int i = 0; i < 2; ++i) {
        rivals.emplace_back([&] {
            Psql sql(dsn_with({{"user", role.name()}}));
            while (!ends) {
                try {
                    sql.exec("BEGIN; UPDATE " + schema.table() +
                             " SET expires_at = expires_at + interval '1 s' WHERE key = '17'; "
                             "SELECT pg_sleep(0.002); COMMIT");
                } catch (const SqlError&) {
                    sql.exec("ROLLBACK");
                }
            }
        });
    }
    std::int64_t number = 1;
    bool all_stored = true;
    const auto deadline = Clock::now() + patience;
    do {
        const auto failures = puts.put(++number);
        all_stored = std::none_of(failures.begin(), failures.end(), has_failed);
    } while (all_stored && puts.statistics().retries < 30 && Clock::now() < deadline);
    ends = true;
    for (auto& rival : rivals) {
        rival.join();
    }
    CHECK(all_stored);
    CHECK(puts.statistics().retries >= 30);
}

TEST_CASE("Under serializable isolation conflicts are settled by trying again") {
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TestSchema schema;
    const Role role(schema);
    role.alter("SET default_transaction_isolation = 'serializable'");
    Trial trial(flavour, dsn(), schema.cache_options(), {{"user", role.name()}});
    REQUIRE(trial.load().works());

    // A rival that writes the same rows in transactions of its own.
    std::atomic<bool> ends = false;
    std::thread rival([&] {
        Psql sql(dsn_with({{"user", role.name()}}));
        while (!ends) {
            try {
                sql.exec("BEGIN; UPDATE " + schema.table() +
                         " SET expires_at = expires_at + interval '1 s' WHERE key IN ('caller1', "
                         "'caller2'); SELECT pg_sleep(0.003); COMMIT");
            } catch (const SqlError&) {
                sql.exec("ROLLBACK");
            }
        }
    });
    const auto conflict = [&] { return trial.load().statistics().retries >= 5; };
    CHECK(eventually(conflict));
    CHECK(trial.load().works());
    ends = true;
    rival.join();
    CHECK(trial.load().works());
    CHECK(sqlstate_code("40001") == Condition::transient);
    trial.finish({sqlstate_code("40001"), sqlstate_code("40P01")});
}
