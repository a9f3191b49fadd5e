// init_db: the table, as the catalogs tell it.

#include <algorithm>
#include <catch2/catch.hpp>
#include <ostream>
#include <thread>

#include "support/both.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

enum class Form { pool, connection, dsn };

std::ostream& operator<<(std::ostream& out, Form form) {
    static constexpr const char* names[] = {"init_db(pool)", "init_db(connection)", "init_db(dsn)"};
    return out << names[static_cast<int>(form)];
}

void init(Form form, const TableOptions& options, const std::string& where = dsn()) {
    switch (form) {
        case Form::pool: {
            asio::io_context context;
            PoolOptions pool_options;
            pool_options.dsn = where;
            ConnectionPool pool(context.get_executor(), pool_options);
            run_coro(context, init_db(pool, options));
            break;
        }
        case Form::connection: {
            Psql connection(where);
            init_db(connection.native(), options);
            REQUIRE(PQtransactionStatus(connection.native()) == PQTRANS_IDLE);
            REQUIRE(PQpipelineStatus(connection.native()) == PQ_PIPELINE_OFF);
            REQUIRE(PQisnonblocking(connection.native()) == 0);
            REQUIRE(connection.number("SELECT count(*) FROM pg_prepared_statements") == 0);
            REQUIRE(connection.number(
                        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = "
                        "pg_backend_pid()") == 0);
            break;
        }
        case Form::dsn:
            init_db(where, options);
            break;
    }
}

#define EVERY_FORM() GENERATE(Form::pool, Form::connection, Form::dsn)

/// What the catalogs say about the cache's table in a schema.
Rows columns_of(TestSchema& schema) {
    return schema.sql().exec(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, atthasdef, attidentity, "
        "attgenerated FROM pg_attribute WHERE attrelid = " +
        quote_literal(schema.table()) +
        "::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum");
}
Rows indexes_of(TestSchema& schema) {
    return schema.sql().exec(
        "SELECT c.relname, am.amname, i.indisprimary, i.indisunique, i.indpred IS NULL, "
        "(SELECT string_agg(pg_get_indexdef(i.indexrelid, k, true), ',') FROM "
        "generate_series(1, i.indnatts) k) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_am am ON am.oid = c.relam WHERE i.indrelid = " +
        quote_literal(schema.table()) + "::regclass ORDER BY c.relname COLLATE \"C\"");
}
std::string persistence_of(TestSchema& schema) {
    return schema.sql().value("SELECT relpersistence FROM pg_class WHERE oid = " +
                              quote_literal(schema.table()) + "::regclass");
}
/// Those beside NOT NULL, which are in this list from PostgreSQL 18 on.
std::string constraints_of(TestSchema& schema) {
    return schema.sql().value(
        "SELECT coalesce(string_agg(conname || ' ' || pg_get_constraintdef(oid), ';'), '') FROM "
        "pg_constraint WHERE contype <> 'n' AND conrelid = " +
        quote_literal(schema.table()) + "::regclass");
}

}  // namespace

TEST_CASE("init_db makes the table of psycache") {
    const auto form = EVERY_FORM();
    CAPTURE(form);
    TestSchema ours(Table::none);
    TestSchema pythons(Table::python);

    init(form, ours.table_options());

    CHECK(columns_of(ours) == columns_of(pythons));
    CHECK(columns_of(ours) == Rows{{"key", "text", "t", "f", "", ""},
                                   {"value", "jsonb", "t", "f", "", ""},
                                   {"expires_at", "timestamp with time zone", "t", "f", "", ""}});
    CHECK(indexes_of(ours) == indexes_of(pythons));
    CHECK(indexes_of(ours) == Rows{{"ix_psycache_expires_at", "btree", "f", "f", "t", "expires_at"},
                                   {"psycache_pkey", "btree", "t", "t", "t", "key"}});
    CHECK(constraints_of(ours) == "psycache_pkey PRIMARY KEY (key)");
    CHECK(persistence_of(ours) == "u");
    CHECK(persistence_of(pythons) == "u");
}

TEST_CASE("init_db makes a logged table when asked to") {
    const auto form = EVERY_FORM();
    CAPTURE(form);
    TestSchema schema(Table::none);
    TestSchema pythons(Table::python);
    auto options = schema.table_options();
    options.unlogged = false;

    init(form, options);

    CHECK(persistence_of(schema) == "p");
    CHECK(columns_of(schema) == columns_of(pythons));
    CHECK(indexes_of(schema) == indexes_of(pythons));
}

TEST_CASE("init_db again changes nothing and keeps the rows") {
    const auto first = EVERY_FORM();
    const auto again = EVERY_FORM();
    CAPTURE(first, again);
    TestSchema schema(Table::none);
    init(first, schema.table_options());
    schema.insert("key", R"({"n": 1})");
    const auto before = schema.sql().value("SELECT " + quote_literal(schema.table()) +
                                           "::regclass::oid || ' ' || relfilenode FROM pg_class "
                                           "WHERE oid = " +
                                           quote_literal(schema.table()) + "::regclass");
    auto options = schema.table_options();
    options.unlogged = GENERATE(true, false);
    init(again, options);

    const auto after = schema.sql().value("SELECT " + quote_literal(schema.table()) +
                                          "::regclass::oid || ' ' || relfilenode FROM pg_class "
                                          "WHERE oid = " +
                                          quote_literal(schema.table()) + "::regclass");
    CHECK(before == after);
    CHECK(schema.rows("key = 'key'") == 1);
    CHECK(persistence_of(schema) == "u");
    CHECK(indexes_of(schema).size() == 2);
}

TEST_CASE("init_db on a table that Python's psycache made changes nothing") {
    const auto form = EVERY_FORM();
    CAPTURE(form);
    TestSchema schema(Table::python);
    TestSchema untouched(Table::python);
    schema.insert("key", R"({"n": 1})");

    init(form, schema.table_options());

    CHECK(columns_of(schema) == columns_of(untouched));
    CHECK(indexes_of(schema) == indexes_of(untouched));
    CHECK(schema.rows() == 1);
}

TEST_CASE("init_db works in a schema of any name") {
    const auto form = EVERY_FORM();
    CAPTURE(form);
    const std::string decoration(GENERATE(as<std::string>(), " ", "\"", "'", "\"; DROP TABLE x; --",
                                          "$1", "%s", ".", "UPPER", "\\", "\t\n",
                                          "\xE6\x97\xA5\xE6\x9C\xAC", "\xF0\x9F\x98\x80"));
    CAPTURE(decoration);
    TestSchema schema(Table::none, decoration);

    init(form, schema.table_options());

    CHECK(schema.sql().number("SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = "
                              "c.relnamespace WHERE n.nspname = " +
                              quote_literal(schema.name()) + " AND relkind = 'r'") == 1);
    CHECK(indexes_of(schema).size() == 2);
    const auto cache = make_cache(Flavour::blocking, schema);
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
}

TEST_CASE("init_db without a schema uses the default schema of the connection") {
    const auto form = EVERY_FORM();
    CAPTURE(form);
    TestSchema schema(Table::none, GENERATE(std::string_view(), nasty));

    init(form, TableOptions(), schema.default_schema_dsn());

    CHECK(schema.rows() == 0);
    CHECK(indexes_of(schema).size() == 2);
}

TEST_CASE("init_db does not make the schema and says which is missing") {
    const auto form = EVERY_FORM();
    CAPTURE(form);
    TableOptions options;
    options.schema = unique_name("missing");

    const auto failure = failure_of([&] { init(form, options); });

    CHECK(failure.typed());
    CHECK(failure.sqlstate() == "3F000");
    CHECK(failure.code() == sqlstate_code("3F000"));
    CHECK(failure.code() == Condition::caller_mistake);
    CHECK_THAT(failure.what(), Catch::Contains(*options.schema));
    Psql sql;
    CHECK(sql.number("SELECT count(*) FROM pg_namespace WHERE nspname = " +
                     quote_literal(*options.schema)) == 0);
}

TEST_CASE("An empty schema is refused by everything that takes one") {
    TableOptions table;
    table.schema = "";
    CacheOptions options;
    options.schema = "";
    const auto pool_options = server_pool();
    asio::io_context context;
    const auto pool = std::make_shared<ConnectionPool>(context.get_executor(), pool_options);
    const auto connections = std::make_shared<AppConnections>();
    Psql connection;
    const auto tells = Catch::Contains("schema must not be empty");

    CHECK_THROWS_AS(init_db_sql(table), std::invalid_argument);
    CHECK_THROWS_WITH(init_db_sql(table), tells);
    CHECK_THROWS_AS(init_db(dsn(), table), std::invalid_argument);
    CHECK_THROWS_WITH(init_db(dsn(), table), tells);
    CHECK_THROWS_AS(init_db(connection.native(), table), std::invalid_argument);
    CHECK_THROWS_WITH(init_db(connection.native(), table), tells);
    CHECK_THROWS_AS(run_coro(context, init_db(*pool, table)), std::invalid_argument);
    CHECK_THROWS_WITH(run_coro(context, init_db(*pool, table)), tells);
    CHECK_THROWS_AS(AsyncPostgresCache(pool, options), std::invalid_argument);
    CHECK_THROWS_WITH(AsyncPostgresCache(pool, options), tells);
    CHECK_THROWS_WITH(AsyncPostgresCache(context.get_executor(), pool_options, options), tells);
    CHECK_THROWS_WITH(PostgresCache(pool_options, options), tells);
    CHECK_THROWS_WITH(PostgresCache(connections->pool(), options), tells);
    CHECK(connections->borrows() == 0);
    CHECK(pool->statistics().connects == 0);
}

TEST_CASE("init_db without the privilege is refused") {
    const auto form = EVERY_FORM();
    CAPTURE(form);
    TestSchema schema(Table::none);
    const auto role = unique_name("role");
    schema.sql().exec("CREATE ROLE " + role + "; GRANT USAGE ON SCHEMA " + schema.quoted() +
                      " TO " + role);

    const auto failure = failure_of([&] {
        init(form, schema.table_options(), dsn_with({{"options", "-crole=" + role}}));
    });
    schema.sql().exec("DROP OWNED BY " + role + "; DROP ROLE " + role);

    CHECK(failure.code() == Errc::permission_denied);
    CHECK(failure.sqlstate() == "42501");
}

TEST_CASE("init_db refuses a connection that is inside a transaction and leaves it untouched") {
    TestSchema schema(Table::none);
    Psql connection;
    connection.exec("BEGIN; CREATE TABLE " + schema.quoted() + ".made_before (i int)");
    const bool failed = GENERATE(false, true);
    if (failed) {
        CHECK_THROWS_AS(connection.exec("SELECT 1 / 0"), SqlError);
    }
    const auto status = failed ? PQTRANS_INERROR : PQTRANS_INTRANS;

    const auto failure = failure_of([&] { init_db(connection.native(), schema.table_options()); });

    CHECK(failure.code() == Errc::connection_unusable);
    CHECK(PQtransactionStatus(connection.native()) == status);
    connection.exec("COMMIT");
    CHECK(schema.sql().number("SELECT count(*) FROM pg_tables WHERE schemaname = " +
                              quote_literal(schema.name())) == (failed ? 0 : 1));
}

TEST_CASE("init_db refuses a busy connection and leaves its answer to be read") {
    TestSchema schema(Table::none);
    Psql connection;
    REQUIRE(PQsendQuery(connection.native(), "SELECT 'answer' FROM pg_sleep(0.1)") == 1);

    const auto failure = failure_of([&] { init_db(connection.native(), schema.table_options()); });

    CHECK(failure.code() == Errc::connection_unusable);
    PGresult* result = PQgetResult(connection.native());
    REQUIRE(PQresultStatus(result) == PGRES_TUPLES_OK);
    CHECK(std::string(PQgetvalue(result, 0, 0)) == "answer");
    PQclear(result);
    CHECK(PQgetResult(connection.native()) == nullptr);
    init_db(connection.native(), schema.table_options());
    CHECK(schema.rows() == 0);
}

TEST_CASE("init_db refuses a connection in pipeline mode, and one that is closed") {
    TestSchema schema(Table::none);
    Psql connection;
    REQUIRE(PQenterPipelineMode(connection.native()) == 1);
    CHECK(failure_of([&] { init_db(connection.native(), schema.table_options()); }).code() ==
          Errc::connection_unusable);
    CHECK(PQpipelineStatus(connection.native()) == PQ_PIPELINE_ON);

    PGconn* closed = PQconnectdb("host=/nonexistent");
    CHECK(failure_of([&] { init_db(closed, schema.table_options()); }).code() ==
          Errc::connection_unusable);
    PQfinish(closed);
}

TEST_CASE("init_db gives a non-blocking connection back as it was") {
    TestSchema schema(Table::none);
    Psql connection;
    REQUIRE(PQsetnonblocking(connection.native(), 1) == 0);

    init_db(connection.native(), schema.table_options());

    CHECK(PQisnonblocking(connection.native()) == 1);
    CHECK(PQtransactionStatus(connection.native()) == PQTRANS_IDLE);
    CHECK(schema.rows() == 0);
}

TEST_CASE("init_db with a DSN leaves no connection behind, also when it fails") {
    TestSchema schema(Table::none);
    const auto name = unique_name("app");
    const auto where = dsn_with({{"application_name", name}});

    init_db(where, schema.table_options());
    TableOptions missing;
    missing.schema = unique_name("missing");
    CHECK(failure_of([&] { init_db(where, missing); }).sqlstate() == "3F000");

    CHECK(eventually([&] { return schema.sql().connections(name) == 0; }));
}

TEST_CASE("init_db tells a DSN that cannot be read from a server that cannot be reached") {
    CHECK_THROWS_AS(init_db("this is no dsn"), std::invalid_argument);
    CHECK_THROWS_AS(init_db("host=x password=top-secret-1 nonsense=1"), std::invalid_argument);
    CHECK_THROWS_WITH(init_db("host=x password=top-secret-1 nonsense=1"),
                      !Catch::Contains("top-secret-1"));
    const auto started = Clock::now();
    CHECK(failure_of([] { init_db(std::string("host=127.0.0.1 port=1")); }).code() ==
          Errc::connect_failed);
    CHECK(failure_of([] { init_db(std::string("host=/nonexistent/dir")); }).code() ==
          Errc::connect_failed);
    CHECK(Clock::now() - started < 20s);
}

TEST_CASE("The text of init_db_sql makes a table that works") {
    TestSchema schema(Table::none, nasty);
    TestSchema pythons(Table::python);
    const auto text = init_db_sql(schema.table_options());

    schema.sql().exec(text);
    schema.sql().exec(text);

    CHECK(columns_of(schema) == columns_of(pythons));
    CHECK(indexes_of(schema) == indexes_of(pythons));
    CHECK(persistence_of(schema) == "u");
    const auto cache = make_cache(Flavour::blocking, schema);
    cache->put("key", numbered(1), 1h);
    CHECK(cache->get("key") == numbered(1));
}

TEST_CASE("The statements of init_db_sql can be sent one by one, and by eight at once") {
    for (int round = 0; round < 6; ++round) {
        TestSchema schema(Table::none, round % 2 == 0 ? nasty : std::string_view());
        const auto text = init_db_sql(schema.table_options());
        std::vector<std::thread> threads;
        Journal failures;
        std::atomic<int> ready = 0;
        for (int i = 0; i < 8; ++i) {
            threads.emplace_back([&, i] {
                Psql connection;
                ++ready;
                while (ready != 8) {
                    std::this_thread::yield();
                }
                try {
                    if (i == 7) {
                        init_db(dsn(), schema.table_options());
                        return;
                    }
                    connection.exec(i % 2 == 0 ? "BEGIN" : "SELECT 1");
                    // As a tool does it that knows semicolons and no quotes, and prepares them.
                    for (std::size_t at = 0; text.find(';', at) != std::string::npos;) {
                        const auto end = text.find(';', at);
                        const std::unique_ptr<PGresult, void (*)(PGresult*)> result(
                            PQexecParams(connection.native(), text.substr(at, end - at).c_str(), 0,
                                         nullptr, nullptr, nullptr, nullptr, 0),
                            PQclear);
                        if (PQresultStatus(result.get()) != PGRES_COMMAND_OK) {
                            throw std::runtime_error(PQresultErrorMessage(result.get()));
                        }
                        at = end + 1;
                    }
                    connection.exec(i % 2 == 0 ? "COMMIT" : "SELECT 1");
                    if (connection.truth("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = "
                                         "'advisory' AND pid = pg_backend_pid())")) {
                        throw std::runtime_error("a lock is left");
                    }
                } catch (const std::exception& error) {
                    failures.write(error.what());
                }
            });
        }
        for (auto& thread : threads) {
            thread.join();
        }
        CHECK(failures.lines() == std::vector<std::string>{});
        CHECK(indexes_of(schema).size() == 2);
    }
}

TEST_CASE("Eight threads that run init_db at once all succeed") {
    for (int round = 0; round < 6; ++round) {
        TestSchema schema(Table::none);
        std::vector<std::thread> threads;
        Journal failures;
        std::atomic<int> ready = 0;
        for (int i = 0; i < 8; ++i) {
            threads.emplace_back([&, i] {
                ++ready;
                while (ready != 8) {
                    std::this_thread::yield();
                }
                try {
                    if (i % 2 == 0) {
                        init_db(dsn(), schema.table_options());
                    } else {
                        asio::io_context context;
                        ConnectionPool pool(context.get_executor(), server_pool());
                        run_coro(context, init_db(pool, schema.table_options()));
                    }
                } catch (const std::exception& error) {
                    failures.write(error.what());
                }
            });
        }
        for (auto& thread : threads) {
            thread.join();
        }
        CHECK(failures.lines() == std::vector<std::string>{});
        CHECK(indexes_of(schema).size() == 2);
    }
}

TEST_CASE("Eight processes that run init_db at once all succeed") {
    for (int round = 0; round < 3; ++round) {
        TestSchema schema(Table::none);
        std::vector<Child> children;
        for (int i = 0; i < 8; ++i) {
            children.emplace_back(std::vector<std::string>{"init-db", dsn(), schema.name()});
        }
        for (auto& child : children) {
            child.go();
        }
        std::vector<int> statuses;
        for (auto& child : children) {
            statuses.push_back(child.wait());
        }
        CHECK(statuses == std::vector<int>(8, 0));
        CHECK(indexes_of(schema).size() == 2);
    }
}

TEST_CASE("init_db with a pool gives the connection back and leaves no lock") {
    TestSchema schema(Table::none);
    NamedPool named;
    named.options.max_size = 1;
    asio::io_context context;
    ConnectionPool pool(context.get_executor(), named.options);

    run_coro(context, init_db(pool, schema.table_options()));
    CHECK(pool.statistics().busy == 0);
    CHECK(pool.statistics().idle == 1);
    CHECK(schema.sql().number(
              "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE "
              "a.application_name = " +
              quote_literal(named.name) + " AND locktype = 'advisory'") == 0);
    CHECK(schema.sql().value("SELECT state FROM pg_stat_activity WHERE application_name = " +
                             quote_literal(named.name)) == "idle");
    TableOptions missing;
    missing.schema = unique_name("missing");
    CHECK(failure_of([&] { run_coro(context, init_db(pool, missing)); }).sqlstate() == "3F000");
    CHECK(pool.statistics().idle == 1);
    run_coro(context, init_db(pool, schema.table_options()));
    CHECK(pool.statistics().connects == 1);
}

TEST_CASE("init_db on a borrowed connection sends its owner no notices") {
    TestSchema schema;
    Psql connection;
    int notices = 0;
    PQsetNoticeReceiver(
        connection.native(), [](void* count, const PGresult*) { ++*static_cast<int*>(count); },
        &notices);
    init_db(connection.native(), schema.table_options());
    init_db(connection.native(), schema.table_options());
    CHECK(notices == 0);
    // And the setting that keeps them away is gone with its transaction.
    connection.exec("CREATE TABLE IF NOT EXISTS " + schema.table() + " (key text)");
    CHECK(notices == 1);
}

TEST_CASE(
    "A table without the index of its expiry serves, is cleaned, and is overwritten in place") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::none);
    auto table = schema.table_options();
    table.expiry_index = false;
    init_db(dsn(), table);
    init_db(dsn(), table);
    CHECK(schema.sql().number("SELECT count(*) FROM pg_indexes WHERE schemaname = " +
                              quote_literal(schema.name())) == 1);
    auto cache = make_cache(flavour, schema);
    for (int i = 0; i < 100; ++i) {
        cache->put("key", numbered(i), 1h);
    }
    CHECK(cache->get("key") == numbered(99));
    schema.insert_many("expired", 2500, "'-infinity'");
    CHECK(cache->cleanup() == 2500);
    CHECK(schema.rows() == 1);
    const auto in_place = [&] {
        return schema.sql().number(
            "SELECT coalesce(sum(n_tup_hot_upd), 0) FROM pg_stat_user_tables WHERE schemaname = " +
            quote_literal(schema.name()));
    };
    // The server counts when a session ends, or has been idle for ten seconds.
    cache.reset();
    CHECK(eventually([&] { return in_place() > 50; }));
    cache = make_cache(flavour, schema);
    init_db(dsn(), schema.table_options());  // as a Python service next to it would do
    CHECK(schema.sql().number("SELECT count(*) FROM pg_indexes WHERE schemaname = " +
                              quote_literal(schema.name())) == 2);
    CHECK(cache->get("key") == numbered(99));
}

TEST_CASE("init_db makes a table of tags when asked to, beside that of the entries") {
    const auto form = EVERY_FORM();
    const bool unlogged = GENERATE(true, false);
    const bool index = GENERATE(true, false);
    CAPTURE(form, unlogged, index);
    TestSchema schema(Table::none, nasty);
    TestSchema pythons(Table::python);
    auto options = schema.table_options();
    options.unlogged = unlogged;
    options.expiry_index = index;
    init(form, options);
    options.tags = true;
    init(form, options);  // also where there is a table of entries already
    init(form, options);
    schema.sql().exec(init_db_sql(options));

    CHECK(columns_of(schema) == columns_of(pythons));
    const auto about = [&](const std::string& sql) {
        return schema.sql().value(sql + quote_literal(schema.tags()) + "::regclass");
    };
    CHECK(about("SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod) || ' ' || "
                "attnotnull, ', ' ORDER BY attnum) FROM pg_attribute WHERE attnum > 0 AND "
                "attrelid = ") ==
          "tag text true, key text true, expires_at timestamp with time zone true");
    CHECK(about("SELECT relpersistence FROM pg_class WHERE oid = ") == (unlogged ? "u" : "p"));
    CHECK(about("SELECT string_agg(pg_get_constraintdef(oid), '') FROM pg_constraint WHERE "
                "contype <> 'n' AND conrelid = ") == "PRIMARY KEY (tag, key)");
    CHECK(about("SELECT count(*) FROM pg_index WHERE indrelid = ") == (index ? "2" : "1"));
}
