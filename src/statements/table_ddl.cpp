#include "statements/table_ddl.hpp"

#include "statements/table_statements.hpp"

namespace psycache {

namespace {

// Any number will do, as long as all who create the table take the same one.
constexpr const char* advisory_lock = "7090261125263520867";

}  // namespace

std::string table_ddl(const TableOptions& options) {
    const std::string table = table_name(options.schema);
    std::string sql = options.unlogged ? "CREATE UNLOGGED TABLE" : "CREATE TABLE";
    sql += " IF NOT EXISTS ";
    sql += table;
    sql += " (key text PRIMARY KEY, value jsonb NOT NULL, expires_at timestamptz NOT NULL)";
    if (!options.expiry_index) {
        // Room for the new version of a row on the page of the old one.
        sql += " WITH (fillfactor = 70);\n";
        return sql;
    }
    sql += ";\n";
    sql += "CREATE INDEX IF NOT EXISTS ";
    sql += quoted_identifier("ix_psycache_expires_at");
    sql += " ON ";
    sql += table;
    sql += " (expires_at);\n";
    return sql;
}

std::string table_script(const TableOptions& options) {
    // No notices about what is there already: on a borrowed connection the application would see
    // them.
    return "SET LOCAL client_min_messages = warning;\nSELECT pg_advisory_xact_lock(" +
           std::string(advisory_lock) + ");\n" + table_ddl(options);
}

}  // namespace psycache
