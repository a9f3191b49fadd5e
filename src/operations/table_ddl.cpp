#include "operations/table_ddl.hpp"

#include <string_view>
#include <utility>
#include <vector>

#include "operations/table.hpp"

namespace psycache::detail {

namespace {

// Any number will do, as long as all who create the table take the same one.
constexpr std::string_view lock = "pg_advisory_xact_lock(7090261125263520867)";

/// Adds the statements that make a table and the index of its expiry.
void add_table(std::vector<std::string>& ddl, const TableOptions& options, const std::string& table,
               std::string_view columns, std::string_view index) {
    std::string create = options.unlogged ? "CREATE UNLOGGED TABLE" : "CREATE TABLE";
    create += concat({" IF NOT EXISTS ", table, " (", columns, ")"});
    if (!options.expiry_index) {
        // Room for the new version of a row on the page of the old one.
        ddl.push_back(create + " WITH (fillfactor = 70)");
        return;
    }
    ddl.push_back(std::move(create));
    ddl.push_back(concat(
        {"CREATE INDEX IF NOT EXISTS ", quoted_identifier(index), " ON ", table, " (expires_at)"}));
}

/// The statements that make the tables and their indexes, without semicolons.
std::vector<std::string> table_ddl(const TableOptions& options) {
    std::vector<std::string> ddl;
    add_table(ddl, options, table_name(options.schema),
              "key text PRIMARY KEY, value jsonb NOT NULL, expires_at timestamptz NOT NULL",
              "ix_psycache_expires_at");
    if (options.tags) {
        add_table(ddl, options, tag_table_name(options.schema),
                  "tag text, key text, expires_at timestamptz NOT NULL, PRIMARY KEY (tag, key)",
                  "ix_psycache_tags_expires_at");
    }
    return ddl;
}

/// As the inner part of an escape string constant, without a semicolon in sight of what splits a
/// script at them.
std::string escaped(std::string_view sql) {
    std::string text;
    for (const char c : sql) {
        if (c == ';') {
            text += "\\x3b";
            continue;
        }
        if (c == '\'' || c == '\\') {
            text += c;
        }
        text += c;
    }
    return text;
}

}  // namespace

std::string table_sql(const TableOptions& options) {
    std::string sql;
    for (const std::string& statement : table_ddl(options)) {
        sql.append("DO E'BEGIN\n  ")
            .append(escaped(concat({"PERFORM ", lock, ";\n  ", statement, ";"})))
            .append("\nEND';\n");
    }
    return sql;
}

std::string table_script(const TableOptions& options) {
    // No notices about what is there already: on a borrowed connection the application would see
    // them.
    return "SET LOCAL client_min_messages = warning;\n" + table_sql(options);
}

}  // namespace psycache::detail
