#pragma once

/// @file
/// A schema of a test's own, so that tests run side by side on one server.

#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>

#include <psycache/options.hpp>
#include <psycache/table.hpp>

#include "server.hpp"

namespace psycache::test {

/// What a TestSchema starts with.
enum class Table {
    none,
    ours,                  ///< as init_db makes it
    tagged,                ///< the same with a table of tags
    notifying,             ///< the same, and triggers that tell of changes
    python,                ///< as Python's psycache makes it
    python_without_index,  ///< the same with its index dropped
};

/// An end of a schema's name that must be quoted to survive.
inline constexpr std::string_view nasty = " it's a \"schema\"; -- \\ %s \xC3\xA9\xF0\x9F\x98\x80";

/// Makes a uniquely named schema and drops it at the end.
class TestSchema {
  public:
    explicit TestSchema(Table table = Table::ours, std::string_view decoration = {})
        : name_(unique_name() + std::string(decoration)) {
        sql_.exec("CREATE SCHEMA " + quoted());
        if (table == Table::ours || table == Table::tagged || table == Table::notifying) {
            TableOptions options = table_options();
            options.tags = table == Table::tagged || table == Table::notifying;
            options.notify = table == Table::notifying;
            init_db(dsn(), options);
        } else if (table != Table::none) {
            sql_.exec("CREATE UNLOGGED TABLE IF NOT EXISTS " + this->table() +
                      " (key text PRIMARY KEY, value jsonb NOT NULL, expires_at timestamptz NOT "
                      "NULL)");
            sql_.exec("CREATE INDEX IF NOT EXISTS ix_psycache_expires_at ON " + this->table() +
                      " (expires_at)");
        }
        if (table != Table::none && shards() > 0) {
            // Where they are is another matter: each test makes its own.
            sql_.exec("SET citus.shard_count = " + std::to_string(shards()));
            sql_.exec("SELECT create_distributed_table(" + quote_literal(this->table()) +
                      ", 'key', colocate_with := 'none')");
        }
        if (table == Table::python_without_index) {
            sql_.exec("DROP INDEX " + quoted() + ".ix_psycache_expires_at");
        }
    }
    TestSchema(const TestSchema&) = delete;
    TestSchema& operator=(const TestSchema&) = delete;
    ~TestSchema() {
        try {
            sql_.exec("SET lock_timeout = '20s'; DROP SCHEMA " + quoted() + " CASCADE");
        } catch (const std::exception& error) {
            std::cerr << "a test schema stays behind: " << error.what() << '\n';
        }
    }

    const std::string& name() const { return name_; }
    std::string quoted() const { return quote_identifier(name_); }
    /// The table, as SQL names it.
    std::string table() const { return quoted() + ".\"psycache\""; }
    /// The table of tags.
    std::string tags() const { return quoted() + ".\"psycache_tags\""; }

    TableOptions table_options() const {
        TableOptions options;
        options.schema = name_;
        return options;
    }
    CacheOptions cache_options() const {
        CacheOptions options;
        options.schema = name_;
        return options;
    }
    /// A DSN whose default schema is this one.
    std::string default_schema_dsn() const {
        std::string escaped;
        for (const char c : quoted()) {
            if (c == ' ' || c == '\\') {
                escaped += '\\';
            }
            escaped += c;
        }
        return dsn_with({{"options", "-csearch_path=" + escaped}});
    }

    /// Into how many shards tables are divided: `PSYCACHE_TEST_SHARDS`, where the tests are run on
    /// a cluster of Citus; 0: not at all.
    static int shards() {
        const char* const text = std::getenv("PSYCACHE_TEST_SHARDS");
        return text != nullptr ? std::atoi(text) : 0;
    }

    Psql& sql() { return sql_; }

    std::int64_t rows(const std::string& condition = "true") {
        return sql_.number("SELECT count(*) FROM " + table() + " WHERE " + condition);
    }
    std::int64_t tag_rows(const std::string& condition = "true") {
        return sql_.number("SELECT count(*) FROM " + tags() + " WHERE " + condition);
    }
    bool has(std::string_view key) { return rows("key = " + quote_literal(key)) == 1; }

    /// Stores a row as any SQL client would.
    void insert(std::string_view key, std::string_view value,
                const std::string& expires_at = "now() + interval '1 hour'") {
        sql_.exec("INSERT INTO " + table() + " (key, value, expires_at) VALUES (" +
                  quote_literal(key) + "," + quote_literal(value) + "::jsonb, " + expires_at + ")");
    }
    /// Stores rows "prefix1" ... "prefixN".
    void insert_many(std::string_view prefix, std::int64_t count, const std::string& expires_at) {
        sql_.exec("INSERT INTO " + table() + " (key, value, expires_at) SELECT " +
                  quote_literal(prefix) + " || i, '{\"a\": 1}', " + expires_at +
                  " FROM generate_series(1, " + std::to_string(count) + ") AS i");
    }
    /// Lets an entry expire now.
    void expire(std::string_view key) {
        sql_.exec(
            "UPDATE " + table() +
            " SET expires_at = statement_timestamp() - interval '1 microsecond' WHERE key = " +
            quote_literal(key));
    }
    /// Seconds from now, by the server's clock, until an entry expires.
    double expires_in(std::string_view key) {
        return sql_.real("SELECT extract(epoch FROM expires_at - statement_timestamp()) FROM " +
                         table() + " WHERE key = " + quote_literal(key));
    }

  private:
    std::string name_;
    Psql sql_;
};

/// Holds the table of a schema, so that every statement on it waits.
class TableLock {
  public:
    explicit TableLock(const TestSchema& schema, const std::string& mode = "ACCESS EXCLUSIVE")
        : table_(schema.table()) {
        sql_.exec("BEGIN; LOCK TABLE " + table_ + " IN " + mode + " MODE");
    }

    void release() { sql_.exec("COMMIT"); }

    /// How many connections wait for the table.
    std::int64_t waiting() {
        return sql_.number(
            "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND relation = " +
            quote_literal(table_) + "::regclass");
    }

  private:
    Psql sql_;
    std::string table_;
};

/// Options of a pool on the server of the tests.
inline PoolOptions server_pool(std::size_t max_size = 4) {
    PoolOptions options;
    options.dsn = dsn();
    options.max_size = max_size;
    return options;
}

/// A pool's options whose connections can be told from all others by `application_name`.
struct NamedPool {
    NamedPool() : name(unique_name("app")) { options.dsn = dsn_with({{"application_name", name}}); }

    std::string name;
    PoolOptions options;
};

}  // namespace psycache::test
