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

// Says which entries a statement has changed. No trigger on INSERT calls it: who keeps entries in
// memory keeps nothing about absent ones, so that a new row makes nothing stale; and INSERT ... ON
// CONFLICT fires the trigger on UPDATE for rows that it overwrites.
//
// An UPDATE tells of expired rows as well: those who wait for a load want to hear of its end. A
// DELETE does not: expired entries are not answered from memory, and a cleanup would tell of them
// all. 400 hashes are 6,799 bytes at most, of the 7,999 that a notification may have.
//
// Names and operators are qualified, since it runs under the search_path of the writer; to set
// one for the function would cost each call more than all the rest of it.
constexpr std::string_view notify_body = R"(
DECLARE
  payload pg_catalog.text := '*';
BEGIN
  IF TG_OP OPERATOR(pg_catalog.<>) 'TRUNCATE' THEN
    SELECT CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.<=) 400
        THEN pg_catalog.string_agg(pg_catalog.to_hex(pg_catalog.hashtextextended(o.key, 0)), ' ')
        ELSE '*' END
      INTO payload FROM (SELECT key FROM old_rows WHERE TG_OP OPERATOR(pg_catalog.=) 'UPDATE'
        OR expires_at OPERATOR(pg_catalog.>) pg_catalog.now() LIMIT 401) AS o;
  END IF;
  IF payload IS NOT NULL THEN
    PERFORM pg_catalog.pg_notify(pg_catalog.concat('psycache_', TG_RELID), payload);
  END IF;
  RETURN NULL;
END
)";

/// In PL/pgSQL, the variables `cache`, the table if it is there, and `notifier`, the name of that
/// function, in the schema of the table.
///
/// Not by a query of the catalogs: in a transaction that is not READ COMMITTED that would see what
/// there was before the wait for the lock.
std::string notify_names(const TableOptions& options) {
    const std::string place = options.schema ? quoted_literal(quoted_identifier(*options.schema))
                                             : "quote_ident(current_schema())";
    return concat({"cache constant regclass := to_regclass(", place,
                   " || '.psycache');\n    notifier constant text := ", place,
                   " || '.psycache_notify()';"});
}

/// The block that makes the triggers. It asks what is there before it makes anything: CREATE
/// TRIGGER waits for those who write to the table, and holds up others meanwhile.
std::string notify_ddl(const TableOptions& options) {
    return concat({R"(DECLARE
    )",
                   notify_names(options), R"(
    body constant text := $body$)",
                   notify_body, R"($body$;
    change text;
    name text;
  BEGIN
    IF NOT EXISTS (SELECT FROM pg_proc WHERE oid = to_regprocedure(notifier) AND prosrc = body) THEN
      EXECUTE concat('CREATE OR REPLACE FUNCTION ', notifier,
        ' RETURNS trigger LANGUAGE plpgsql AS ', quote_literal(body));
    END IF;
    FOREACH change IN ARRAY ARRAY['update', 'delete', 'truncate'] LOOP
      name := concat('psycache_notify_', change);
      IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = cache AND tgname = name) THEN
        BEGIN
          EXECUTE concat('CREATE TRIGGER ', name, ' AFTER ', change, ' ON ', cache,
            CASE WHEN change <> 'truncate' THEN ' REFERENCING OLD TABLE AS old_rows' END,
            ' FOR EACH STATEMENT EXECUTE FUNCTION ', notifier);
        EXCEPTION WHEN duplicate_object THEN
          NULL;
        END;
      END IF;
      IF EXISTS (SELECT FROM pg_trigger
          WHERE tgrelid = cache AND tgname = name AND tgenabled <> 'A') THEN
        EXECUTE concat('ALTER TABLE ', cache, ' ENABLE ALWAYS TRIGGER ', name);
      END IF;
    END LOOP;
  END)"});
}

/// The block that removes them. Nothing is locked where there are none.
std::string drop_notify_ddl(const TableOptions& options) {
    return concat({R"(DECLARE
    )",
                   notify_names(options), R"(
    name text;
  BEGIN
    FOR name IN SELECT quote_ident(tgname) FROM pg_trigger
        WHERE tgrelid = cache AND tgfoid = to_regprocedure(notifier) LOOP
      EXECUTE concat('DROP TRIGGER IF EXISTS ', name, ' ON ', cache);
    END LOOP;
    IF to_regprocedure(notifier) IS NOT NULL THEN
      EXECUTE concat('DROP FUNCTION ', notifier);
    END IF;
  END)"});
}

/// The statements that make the tables, their indexes and triggers, without a semicolon at the end.
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
    if (options.notify) {
        ddl.push_back(notify_ddl(options));
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

/// A statement in a block that takes the lock first.
std::string in_block(std::string_view statement) {
    return concat({"DO E'BEGIN\n  ", escaped(concat({"PERFORM ", lock, ";\n  ", statement, ";"})),
                   "\nEND';\n"});
}

// No notices about what is there already: on a borrowed connection the application would see them.
constexpr std::string_view quietly = "SET LOCAL client_min_messages = warning;\n";

}  // namespace

std::string table_sql(const TableOptions& options) {
    std::string sql;
    for (const std::string& statement : table_ddl(options)) {
        sql += in_block(statement);
    }
    return sql;
}

std::string table_script(const TableOptions& options) {
    return concat({quietly, table_sql(options)});
}

std::string notify_removal_sql(const TableOptions& options) {
    return in_block(drop_notify_ddl(options));
}

std::string notify_removal_script(const TableOptions& options) {
    return concat({quietly, notify_removal_sql(options)});
}

}  // namespace psycache::detail
