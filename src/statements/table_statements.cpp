#include "statements/table_statements.hpp"

#include <initializer_list>

namespace psycache {

namespace {

using pg::Oid;

std::string concat(std::initializer_list<std::string_view> parts) {
    std::string whole;
    for (const std::string_view part : parts) {
        whole += part;
    }
    return whole;
}

std::string get_one_sql(std::string_view table, bool sizes) {
    return concat({"SELECT value", sizes ? ", pg_column_size(value)" : "", " FROM ", table,
                   " WHERE key = $1 AND expires_at > statement_timestamp()"});
}

std::string get_many_sql(std::string_view table, bool sizes) {
    return concat({"SELECT o.i, t.value", sizes ? ", pg_column_size(t.value)" : "",
                   " FROM unnest($1::text[]) WITH ORDINALITY AS o(k, i) JOIN ", table,
                   " AS t ON t.key = o.k WHERE t.expires_at > statement_timestamp()"});
}

/// The moment at which a ttl ends; a NULL ttl is one without end.
std::string expiry_of(std::string_view ttl) {
    return concat({"coalesce(statement_timestamp() + ", ttl,
                   " * interval '1 microsecond', 'infinity'::timestamptz)"});
}

std::string_view upsert_tail(bool sizes) {
    return sizes ? " ON CONFLICT (key) DO UPDATE SET value = excluded.value,"
                   " expires_at = excluded.expires_at RETURNING key, pg_column_size(value)"
                 : " ON CONFLICT (key) DO UPDATE SET value = excluded.value,"
                   " expires_at = excluded.expires_at";
}

/// Whether a limit of the server's own, for the role or the database, ends a statement before its
/// callers lose patience.
std::string is_limited(std::string_view setting, std::chrono::milliseconds patience) {
    const std::string value = concat({"current_setting('", setting, "')"});
    return concat({"(", value, " <> '0' AND ", value, "::interval < interval '",
                   std::to_string(patience.count()), " milliseconds')"});
}

/// What a write joins with, so that it waits for a locked row for so many milliseconds at most. The
/// setting ends with the statement; where the server has a limit, that one counts.
std::string lock_limit(std::string_view milliseconds, std::string_view limited) {
    return concat({"(SELECT CASE WHEN NOT ", limited, " THEN set_config('lock_timeout', ",
                   milliseconds, "::text, true) END) AS lock_limit"});
}

std::string put_one_sql(std::string_view table, bool sizes, std::string_view limited) {
    return concat({"INSERT INTO ", table, " (key, value, expires_at) SELECT $1::text, $2::jsonb, ",
                   expiry_of("$3::bigint"), " FROM ", lock_limit("$4", limited),
                   upsert_tail(sizes)});
}

std::string put_many_sql(std::string_view table, bool sizes, std::string_view limited) {
    return concat({"INSERT INTO ", table, " (key, value, expires_at) SELECT e.k, e.v, ",
                   expiry_of("e.ttl"), " FROM ", lock_limit("$4", limited),
                   ", unnest($1::text[], $2::jsonb[], $3::bigint[]) AS e(k, v, ttl)",
                   upsert_tail(sizes)});
}

std::string remove_one_sql(std::string_view table, std::string_view limited) {
    return concat({"DELETE FROM ", table, " USING ", lock_limit("$2", limited), " WHERE key = $1"});
}

std::string remove_many_sql(std::string_view table, std::string_view limited) {
    return concat({"WITH doomed AS (SELECT t.key FROM ", table, " AS t, ",
                   lock_limit("$2", limited),
                   " WHERE t.key = ANY($1::text[]) ORDER BY t.key COLLATE \"C\" FOR UPDATE OF t)"
                   " DELETE FROM ",
                   table, " AS t USING doomed WHERE t.key = doomed.key RETURNING t.key"});
}

/// The place of a row is unique within one partition only: what is deleted must have expired, too.
std::string cleanup_sql(std::string_view table) {
    return concat({"DELETE FROM ", table, " WHERE ctid = ANY(ARRAY(SELECT ctid FROM ", table,
                   " WHERE expires_at < statement_timestamp() LIMIT ",
                   std::to_string(TableStatements::cleanup_batch_size),
                   " FOR UPDATE SKIP LOCKED)) AND expires_at < statement_timestamp()"});
}

std::string cleanup_by_key_sql(std::string_view table) {
    return concat({"WITH doomed AS (SELECT key FROM ", table,
                   " WHERE expires_at < statement_timestamp() LIMIT ",
                   std::to_string(TableStatements::cleanup_batch_size), ") DELETE FROM ", table,
                   " AS t USING doomed WHERE t.key = doomed.key"
                   " AND t.expires_at < statement_timestamp()"});
}

}  // namespace

std::string quoted_identifier(std::string_view name) {
    std::string quoted = "\"";
    for (const char c : name) {
        quoted += c;
        if (c == '"') {
            quoted += c;
        }
    }
    return quoted + '"';
}

std::string table_name(const std::optional<std::string>& schema) {
    const std::string table = quoted_identifier("psycache");
    return schema ? concat({quoted_identifier(*schema), ".", table}) : table;
}

TableStatements::TableStatements(const std::optional<std::string>& schema, bool with_sizes,
                                 std::chrono::milliseconds patience)
    : table(table_name(schema)),
      sizes(with_sizes),
      limited(concat({"(", is_limited("lock_timeout", patience), " OR ",
                      is_limited("statement_timeout", patience), ")"})),
      get_one(get_one_sql(table, sizes), {Oid::text}),
      get_many(get_many_sql(table, sizes), {Oid::text_array}),
      put_one(put_one_sql(table, sizes, limited), {Oid::text, Oid::jsonb, Oid::int8, Oid::text}),
      put_many(put_many_sql(table, sizes, limited),
               {Oid::text_array, Oid::jsonb_array, Oid::int8_array, Oid::text}),
      remove_one(remove_one_sql(table, limited), {Oid::text, Oid::text}),
      remove_many(remove_many_sql(table, limited), {Oid::text_array, Oid::text}),
      limits_locks(concat({"SELECT ", limited}), {}),
      cleanup(cleanup_sql(table), {}),
      cleanup_by_key(cleanup_by_key_sql(table), {}),
      flush(concat({"DELETE FROM ", table}), {}) {}

Failure TableStatements::explain(Failure failure) const {
    if (failure.code == Errc::table_missing) {
        failure.cause = "table " + table +
                        " does not exist: run init_db or \"psycache init-db\" for its schema";
    } else if (failure.code == Errc::permission_denied) {
        failure.cause = "permission denied on table " + table +
                        ": the role needs SELECT, INSERT, UPDATE and DELETE on it, and USAGE on "
                        "its schema";
    }
    return failure;
}

}  // namespace psycache
