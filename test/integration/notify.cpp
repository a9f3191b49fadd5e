// TableOptions::notify: what the triggers tell of, and how they are made and removed.

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <functional>
#include <thread>

#include "support/both.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

using Payloads = std::vector<std::string>;

TableOptions notifying(const TestSchema& schema) {
    TableOptions options = schema.table_options();
    options.notify = true;
    return options;
}

/// A connection that listens to what the table of a schema tells.
class Ear {
  public:
    explicit Ear(const TestSchema& schema)
        : channel_("psycache_" +
                   sql_.value("SELECT " + quote_literal(schema.table()) + "::regclass::oid")) {
        sql_.exec("LISTEN " + channel_ + "; LISTEN psycache_test_end");
    }

    /// @returns what was told until now.
    Payloads heard() {
        // Notifications come in the order of their commits: behind this one there is no other.
        const std::string end = unique_name("end");
        Psql().exec("NOTIFY psycache_test_end, " + quote_literal(end));
        Payloads payloads;
        for (const auto deadline = Clock::now() + patience; Clock::now() < deadline;) {
            sql_.exec("SELECT 1");
            while (PGnotify* const notification = PQnotifies(sql_.native())) {
                const std::string channel = notification->relname;
                const std::string payload = notification->extra;
                PQfreemem(notification);
                if (channel == channel_) {
                    payloads.push_back(payload);
                } else if (payload == end) {
                    return payloads;
                }
            }
        }
        throw OutOfPatience("the notification at the end has not come");
    }

  private:
    Psql sql_;
    std::string channel_;
};

/// What is told of keys, whatever their order.
std::string told(const std::vector<std::string>& keys) {
    std::vector<std::string> hashes;
    Psql sql;
    for (const std::string& key : keys) {
        hashes.push_back(
            sql.value("SELECT to_hex(hashtextextended(" + quote_literal(key) + ", 0))"));
    }
    std::sort(hashes.begin(), hashes.end());
    std::string payload;
    for (const std::string& hash : hashes) {
        payload += (payload.empty() ? "" : " ") + hash;
    }
    return payload;
}
/// The same of a payload that was heard.
std::string sorted(const std::string& payload) {
    std::vector<std::string> hashes;
    for (std::size_t at = 0; at < payload.size();) {
        const std::size_t end = std::min(payload.find(' ', at), payload.size());
        hashes.push_back(payload.substr(at, end - at));
        at = end + 1;
    }
    std::sort(hashes.begin(), hashes.end());
    std::string result;
    for (const std::string& hash : hashes) {
        result += (result.empty() ? "" : " ") + hash;
    }
    return result;
}

std::vector<std::string> keys_numbered(int count) {
    std::vector<std::string> keys;
    for (int i = 1; i <= count; ++i) {
        keys.push_back("k" + std::to_string(i));
    }
    return keys;
}
std::vector<Entry> entries_of(const std::vector<std::string>& keys) {
    std::vector<Entry> entries;
    for (const std::string& key : keys) {
        entries.emplace_back(key, numbered(1), 1h);
    }
    return entries;
}

/// What the catalogs say of the triggers of a table.
Rows triggers_of(TestSchema& schema) {
    return schema.sql().exec(
        "SELECT t.tgname, t.tgenabled, t.oid FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid "
        "JOIN pg_class c ON c.oid = t.tgrelid WHERE p.proname = 'psycache_notify' AND "
        "p.pronamespace = c.relnamespace AND t.tgrelid = " +
        quote_literal(schema.table()) + "::regclass ORDER BY t.tgname");
}
bool all_there(TestSchema& schema) {
    const Rows rows = triggers_of(schema);
    Payloads names;
    for (const auto& row : rows) {
        names.push_back(row[0] + " " + row[1]);
    }
    return names == Payloads{"psycache_notify_delete A", "psycache_notify_truncate A",
                             "psycache_notify_update A"};
}
std::int64_t notify_functions(TestSchema& schema) {
    return schema.sql().number(
        "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE "
        "p.proname = 'psycache_notify' AND n.nspname = " +
        quote_literal(schema.name()));
}

/// Runs eight of a kind at once. @returns what failed.
Payloads eight_at_once(const std::function<void(int)>& body) {
    std::vector<std::thread> threads;
    Journal failures;
    std::atomic<int> ready = 0;
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&, i] {
            try {
                ++ready;
                while (ready != 8) {
                    std::this_thread::yield();
                }
                body(i);
            } catch (const std::exception& error) {
                failures.write(error.what());
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    return failures.lines();
}

}  // namespace

TEST_CASE("With notify each change that the library makes of an entry is told once") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    TestSchema schema(Table::tagged, nasty);
    init_db(dsn(), notifying(schema));
    const auto cache = make_cache(flavour, schema);
    Ear ear(schema);

    cache->put("key", numbered(1), 1h);
    cache->put_many(entries_of(keys_numbered(64)));
    CHECK(ear.heard() == Payloads{});

    cache->put("key", numbered(2), 1h);
    CHECK(ear.heard() == Payloads{told({"key"})});
    cache->touch("key", 2h);
    CHECK(ear.heard() == Payloads{told({"key"})});
    cache->put_many(entries_of(keys_numbered(64)));
    const Payloads many = ear.heard();
    REQUIRE(many.size() == 1);
    CHECK(sorted(many[0]) == told(keys_numbered(64)));

    CHECK(cache->remove("key"));
    CHECK(ear.heard() == Payloads{told({"key"})});
    CHECK_FALSE(cache->remove("key"));
    cache->put("key", numbered(3), 1h);
    CHECK(ear.heard() == Payloads{});

    PutOptions options;
    options.tags = {"t"};
    cache->put_with("key", numbered(4), 1h, options);
    CHECK(ear.heard() == Payloads{told({"key"})});
    CHECK(cache->remove_tag("t") == 1);
    CHECK(ear.heard() == Payloads{told({"key"})});
    CHECK(cache->remove_prefix("k1") == 11);
    const Payloads prefix = ear.heard();
    REQUIRE(prefix.size() == 1);
    CHECK(std::count(prefix[0].begin(), prefix[0].end(), ' ') == 10);

    CHECK(cache->flush() == 53);
    const Payloads flushed = ear.heard();
    REQUIRE(flushed.size() == 1);
    CHECK(std::count(flushed[0].begin(), flushed[0].end(), ' ') == 52);
    cache->clear();
    CHECK(ear.heard() == Payloads{"*"});
}

TEST_CASE("Expired entries are told of when they are overwritten, and not when they are removed") {
    TestSchema schema;
    init_db(dsn(), notifying(schema));
    const auto cache = make_cache(Flavour::blocking, schema);
    Ear ear(schema);
    schema.insert_many("k", 3, "now() - interval '1 second'");

    cache->put("k1", numbered(1), 1h);
    CHECK(ear.heard() == Payloads{told({"k1"})});
    cache->remove("k2");
    CHECK(cache->cleanup() == 1);
    CHECK(ear.heard() == Payloads{});
    schema.insert_many("e", 500, "now() - interval '1 second'");
    CHECK(cache->flush() == 501);
    CHECK(ear.heard() == Payloads{told({"k1"})});
}

TEST_CASE("With notify each change that plain SQL makes of an entry is told once") {
    TestSchema schema(Table::python, nasty);
    init_db(dsn(), notifying(schema));
    Ear ear(schema);
    Psql sql;
    // Names that hide those of the catalogs, for all but what qualifies them.
    sql.exec("CREATE FUNCTION " + schema.quoted() +
             ".now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'; "
             "CREATE TABLE " +
             schema.quoted() + ".old_rows (); SET search_path = " + schema.quoted() +
             ", pg_catalog");

    schema.insert_many("k", 500, "'infinity'");
    CHECK(ear.heard() == Payloads{});
    sql.exec("UPDATE psycache SET value = '{}' WHERE key = 'k1'");
    CHECK(ear.heard() == Payloads{told({"k1"})});
    sql.exec("UPDATE psycache SET value = '{}' WHERE key = 'none'");
    CHECK(ear.heard() == Payloads{});
    sql.exec("UPDATE psycache SET key = 'new' WHERE key = 'k1'");
    CHECK(ear.heard() == Payloads{told({"k1"})});
    sql.exec(
        "INSERT INTO psycache VALUES ('new', '{}', 'infinity'), ('newer', '{}', 'infinity') ON "
        "CONFLICT (key) DO UPDATE SET value = excluded.value");
    CHECK(ear.heard() == Payloads{told({"new"})});
    sql.exec(
        "WITH gone AS (DELETE FROM psycache WHERE key = 'newer') UPDATE psycache SET value = '{}' "
        "WHERE key = 'new'");
    Payloads both = ear.heard();
    std::sort(both.begin(), both.end());
    Payloads expected{told({"new"}), told({"newer"})};
    std::sort(expected.begin(), expected.end());
    CHECK(both == expected);
    sql.exec(
        "UPDATE psycache SET value = '{}' WHERE key = ANY (SELECT key FROM psycache LIMIT 400)");
    const Payloads most = ear.heard();
    REQUIRE(most.size() == 1);
    CHECK(std::count(most[0].begin(), most[0].end(), ' ') == 399);
    sql.exec(
        "UPDATE psycache SET value = '{}' WHERE key = ANY (SELECT key FROM psycache LIMIT 401)");
    CHECK(ear.heard() == Payloads{"*"});
    sql.exec("BEGIN; UPDATE psycache SET value = '{}'; DELETE FROM psycache; ROLLBACK");
    CHECK(ear.heard() == Payloads{});
    sql.exec("SET session_replication_role = replica; DELETE FROM psycache WHERE key = 'new'");
    CHECK(ear.heard() == Payloads{told({"new"})});
    sql.exec("DELETE FROM psycache");
    CHECK(ear.heard() == Payloads{"*"});
    sql.exec("TRUNCATE psycache");
    CHECK(ear.heard() == Payloads{"*"});
}

TEST_CASE("Tables in different schemas tell each their own") {
    TestSchema one;
    TestSchema other;
    init_db(dsn(), notifying(one));
    init_db(dsn(), notifying(other));
    Ear ear(one);
    one.insert("key", "{}");
    other.insert("key", "{}");
    other.expire("key");
    CHECK(ear.heard() == Payloads{});
    one.expire("key");
    CHECK(ear.heard() == Payloads{told({"key"})});
}

TEST_CASE("init_db makes the triggers once, on a table that is there too, in all of its forms") {
    TestSchema schema(GENERATE(Table::none, Table::ours, Table::python),
                      GENERATE(std::string_view(), nasty));
    const TableOptions options = notifying(schema);
    const auto make = GENERATE(0, 1, 2, 3);
    CAPTURE(make);
    const auto init = [&] {
        if (make == 0) {
            init_db(dsn(), options);
        } else if (make == 1) {
            Psql connection;
            init_db(connection.native(), options);
        } else if (make == 2) {
            asio::io_context context;
            ConnectionPool pool(context.get_executor(), server_pool());
            run_coro(context, init_db(pool, options));
        } else {
            schema.sql().exec(init_db_sql(options));
        }
    };
    init();
    CHECK(all_there(schema));
    const Rows first = triggers_of(schema);
    init();
    // Without the option they stay.
    init_db(dsn(), schema.table_options());
    CHECK(triggers_of(schema) == first);

    // One that somebody has changed is mended.
    schema.sql().exec("ALTER TABLE " + schema.table() +
                      " DISABLE TRIGGER psycache_notify_update; DROP TRIGGER "
                      "psycache_notify_delete ON " +
                      schema.table());
    schema.sql().exec("CREATE OR REPLACE FUNCTION " + schema.quoted() +
                      ".psycache_notify() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; "
                      "END'");
    init();
    CHECK(all_there(schema));
    Ear ear(schema);
    schema.insert("key", "{}");
    schema.expire("key");
    CHECK(ear.heard() == Payloads{told({"key"})});
}

TEST_CASE("Without a schema the triggers are made for the table of the default schema") {
    TestSchema other;
    init_db(dsn(), notifying(other));
    TestSchema schema(Table::none);
    // A function of this name further down the search path is not taken for the table's own.
    const std::string where =
        dsn_with({{"options", "-csearch_path=" + schema.quoted() + "," + other.quoted()}});
    TableOptions options;
    options.notify = true;
    init_db(where, options);
    CHECK(all_there(schema));
    CHECK(all_there(other));
    drop_notify(where);
    drop_notify(where);
    CHECK(triggers_of(schema).empty());
    CHECK(notify_functions(schema) == 0);
    CHECK(all_there(other));
}

TEST_CASE("The triggers can be made and removed by eight at once") {
    // In a transaction of this kind queries of the catalogs see what was there before a wait.
    const auto isolation = GENERATE(as<std::string>(), "read\\ committed", "serializable");
    CAPTURE(isolation);
    const std::string where =
        dsn_with({{"options", "-cdefault_transaction_isolation=" + isolation}});
    for (int round = 0; round < 4; ++round) {
        TestSchema schema(round % 2 == 0 ? Table::none : Table::ours,
                          round < 2 ? nasty : std::string_view());
        const TableOptions options = notifying(schema);
        CHECK(eight_at_once([&](int number) {
                  if (number % 2 == 0) {
                      init_db(where, options);
                      return;
                  }
                  Psql connection(where);
                  connection.exec(number % 4 == 1 ? "BEGIN" : "SELECT 1");
                  const std::string text = init_db_sql(options);
                  for (std::size_t at = 0; text.find(';', at) != std::string::npos;) {
                      const auto end = text.find(';', at);
                      connection.exec(text.substr(at, end - at));
                      at = end + 1;
                  }
                  connection.exec(number % 4 == 1 ? "COMMIT" : "SELECT 1");
              }) == Payloads{});
        CHECK(all_there(schema));
        CHECK(eight_at_once([&](int /*number*/) { drop_notify(dsn(), options); }) == Payloads{});
        CHECK(triggers_of(schema).empty());
        CHECK(notify_functions(schema) == 0);
    }
}

TEST_CASE("Where the triggers are there, making them again waits for nobody who uses the table") {
    TestSchema schema;
    TableOptions options = notifying(schema);
    options.expiry_index = false;  // CREATE INDEX IF NOT EXISTS waits for writers, as it always did
    init_db(dsn(), options);
    schema.insert("key", "{}");
    Psql writer;
    writer.exec("BEGIN; UPDATE " + schema.table() + " SET value = '{}'");
    Psql impatient(dsn_with({{"options", "-clock_timeout=1s"}}));
    init_db(impatient.native(), options);
    writer.exec("COMMIT");
    drop_notify(dsn(), options);
    writer.exec("BEGIN; UPDATE " + schema.table() + " SET value = '{}'");
    impatient.exec(drop_notify_sql(options));
}

TEST_CASE("drop_notify leaves the table and its rows, and does nothing without a table") {
    TestSchema schema(Table::none, nasty);
    drop_notify(dsn(), schema.table_options());
    TableOptions missing;
    missing.schema = unique_name("missing");
    drop_notify(dsn(), missing);
    init_db(dsn(), notifying(schema));
    schema.insert("key", "{}");
    schema.sql().exec(drop_notify_sql(schema.table_options()));
    CHECK(triggers_of(schema).empty());
    CHECK(notify_functions(schema) == 0);
    CHECK(schema.rows() == 1);
    TableOptions empty;
    empty.schema = "";
    CHECK_THROWS_AS(drop_notify_sql(empty), std::invalid_argument);
    CHECK_THROWS_AS(drop_notify(dsn(), empty), std::invalid_argument);
    CHECK_THROWS_AS(drop_notify("this is no dsn"), std::invalid_argument);
}

TEST_CASE("A role that may only read and write the table needs nothing more for the triggers") {
    TestSchema schema(Table::none);
    const auto owner = unique_name("owner");
    const auto role = unique_name("role");
    schema.sql().exec("CREATE ROLE " + owner + "; ALTER DEFAULT PRIVILEGES FOR ROLE " + owner +
                      " REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; GRANT USAGE, CREATE ON SCHEMA " +
                      schema.quoted() + " TO " + owner);
    init_db(dsn_with({{"options", "-crole=" + owner}}), notifying(schema));
    schema.sql().exec("CREATE ROLE " + role + " LOGIN; GRANT USAGE ON SCHEMA " + schema.quoted() +
                      " TO " + role + "; GRANT SELECT, INSERT, UPDATE, DELETE ON " +
                      schema.table() + " TO " + role);
    REQUIRE_FALSE(schema.sql().truth("SELECT has_function_privilege(" + quote_literal(role) + ", " +
                                     quote_literal(schema.quoted() + ".psycache_notify()") +
                                     ", 'EXECUTE')"));
    PoolOptions pool;
    pool.dsn = dsn_with({{"user", role}});
    {
        const auto cache = make_cache(Flavour::blocking, schema.cache_options(), pool);
        Ear ear(schema);
        cache->put("key", numbered(1), 1h);
        cache->put("key", numbered(2), 1h);
        CHECK(cache->remove("key"));
        CHECK(ear.heard() == Payloads{told({"key"}), told({"key"})});
    }
    CHECK(failure_of([&] { init_db(pool.dsn, notifying(schema)); }).code() ==
          Errc::permission_denied);
    CHECK(failure_of([&] { drop_notify(pool.dsn, notifying(schema)); }).code() ==
          Errc::permission_denied);
    schema.sql().exec("DROP OWNED BY " + role + ", " + owner + "; DROP ROLE " + role + ", " +
                      owner);
}
