#include "cli/looks.hpp"

#include <cstdlib>
#include <utility>

#include <psycache/error.hpp>

namespace psycache::cli {

namespace {

void look_at_columns(Session& session, TableFacts& table) {
    std::vector<Column> columns;
    for (const auto& row :
         session.query("SELECT attname, format_type(atttypid, atttypmod), attnotnull,"
                       " atthasdef OR attidentity <> '' FROM pg_attribute WHERE attrelid = " +
                       table.oid + " AND attnum > 0 AND NOT attisdropped ORDER BY attnum")) {
        columns.push_back(
            {row[0].value_or(""), row[1].value_or(""), to_bool(row[2]), to_bool(row[3])});
    }
    table.columns = std::move(columns);
}

void look_at_indexes(Session& session, TableFacts& table) {
    std::vector<Index> indexes;
    for (const auto& row : session.query(
             "SELECT format('%I.%I', n.nspname, c.relname),"
             " (SELECT string_agg(a.attname, ',' ORDER BY k.place)"
             "  FROM unnest(i.indkey) WITH ORDINALITY AS k(number, place)"
             "  JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number"
             "  WHERE k.place <= i.indnkeyatts),"
             " i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL,"
             " i.indisvalid AND i.indisready"
             " FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
             " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE i.indpred IS NULL"
             " AND i.indrelid = " +
             table.oid + " ORDER BY 1")) {
        indexes.push_back(
            {row[0].value_or(""), row[1].value_or(""), to_bool(row[2]), to_bool(row[3])});
    }
    table.indexes = std::move(indexes);
}

void look_at_triggers(Session& session, TableFacts& table) {
    std::vector<Trigger> triggers;
    for (const auto& row : session.query("SELECT tgname, tgenabled FROM pg_trigger WHERE tgname IN"
                                         " ('psycache_notify_update', 'psycache_notify_delete',"
                                         " 'psycache_notify_truncate') AND tgrelid = " +
                                         table.oid + " ORDER BY 1")) {
        triggers.push_back({row[0].value_or(""), row[1].value_or("?")[0]});
    }
    table.triggers = std::move(triggers);
}

void look_at_distribution(Session& session, TableFacts& table) {
    if (!to_bool(session.query("SELECT to_regclass('pg_dist_partition') IS NOT NULL").at(0)[0])) {
        return;
    }
    Distribution distribution;
    const auto rows = session.query(
        "SELECT p.partmethod, column_to_column_name(p.logicalrelid, p.partkey),"
        " (SELECT count(*) FROM pg_dist_shard AS s WHERE s.logicalrelid = p.logicalrelid),"
        " (SELECT count(*) FROM pg_dist_node WHERE noderole = 'primary' AND isactive"
        "  AND shouldhaveshards)"
        " FROM pg_dist_partition AS p WHERE p.logicalrelid = " +
        table.oid + "::oid::regclass");
    if (!rows.empty()) {
        distribution = {rows[0][0].value_or("?")[0], rows[0][1].value_or(""),
                        to_integer(rows[0][2]), to_integer(rows[0][3])};
    }
    table.distribution = distribution;
}

void look_at_statistics(Session& session, TableFacts& table) {
    const auto rows = session.query(
        "SELECT n_live_tup, n_dead_tup, n_tup_ins + n_tup_upd + n_tup_del > 0,"
        " extract(epoch FROM clock_timestamp() - last_vacuum),"
        " extract(epoch FROM clock_timestamp() - last_autovacuum)"
        " FROM pg_stat_all_tables WHERE relid = " +
        table.oid);
    if (!rows.empty()) {
        const auto& row = rows[0];
        table.statistics = RowStatistics{to_integer(row[0]), to_integer(row[1]), to_bool(row[2]),
                                         to_duration(row[3]), to_duration(row[4])};
    }
}

void look_at_sizes(Session& session, TableFacts& table) {
    const auto rows = session.query(
        "SELECT coalesce(pg_relation_size(oid), 0), coalesce(pg_indexes_size(oid), 0),"
        " coalesce(pg_total_relation_size(nullif(reltoastrelid, 0)), 0) FROM pg_class WHERE oid "
        "= " +
        table.oid);
    if (!rows.empty()) {
        table.sizes = Sizes{to_integer(rows[0][0]), to_integer(rows[0][1]), to_integer(rows[0][2])};
    }
}

/// Empty before the first ANALYZE, and for a role that may not read all columns.
void look_at_width(Session& session, TableFacts& table) {
    const auto rows = session.query(
        "SELECT sum(s.avg_width) FROM pg_stats AS s JOIN pg_namespace AS n"
        " ON n.nspname = s.schemaname JOIN pg_class AS c"
        " ON c.relnamespace = n.oid AND c.relname = s.tablename"
        " WHERE NOT s.inherited AND c.oid = " +
        table.oid + " HAVING count(*) >= 3");
    if (!rows.empty()) {
        table.row_width = to_integer(rows[0][0]);
    }
}

void look_at_privileges(Session& session, TableFacts& table) {
    const auto rows = session.query(
        "SELECT has_schema_privilege(relnamespace, 'USAGE'),"
        " has_table_privilege(oid, 'SELECT'), has_table_privilege(oid, 'INSERT'),"
        " has_table_privilege(oid, 'UPDATE'), has_table_privilege(oid, 'DELETE'),"
        " has_table_privilege(oid, 'TRUNCATE'), row_security_active(oid)"
        " FROM pg_class WHERE oid = " +
        table.oid);
    if (rows.empty()) {
        return;
    }
    Privileges privileges;
    privileges.usage_of_schema = to_bool(rows[0][0]);
    const char* const names[] = {"SELECT", "INSERT", "UPDATE", "DELETE"};
    for (std::size_t i = 0; i < 4; ++i) {
        if (!to_bool(rows[0][i + 1])) {
            privileges.missing.emplace_back(names[i]);
        }
    }
    privileges.truncate = to_bool(rows[0][5]);
    privileges.row_security = to_bool(rows[0][6]);
    table.privileges = std::move(privileges);
}

}  // namespace

void look(const Session& session, std::vector<Unseen>& unseen, const std::string& what,
          const std::function<void()>& ask) {
    try {
        ask();
    } catch (const Error& error) {
        if (!session.open()) {
            throw;
        }
        unseen.push_back({what, std::string(error.sqlstate())});
    }
}

std::int64_t to_integer(const std::optional<std::string>& text) {
    return text ? std::strtoll(text->c_str(), nullptr, 10) : 0;
}

double to_number(const std::optional<std::string>& text) {
    return text ? std::strtod(text->c_str(), nullptr) : 0;
}

bool to_bool(const std::optional<std::string>& text) {
    return text == "t";
}

std::optional<Duration> to_duration(const std::optional<std::string>& seconds) {
    if (!seconds) {
        return std::nullopt;
    }
    return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(to_number(seconds)));
}

std::optional<TableFacts> look_at_table(Session& session, const Place& place,
                                        const std::string& relation, std::vector<Unseen>& unseen) {
    // Not by to_regclass, which refuses a schema that the role may not use.
    const auto rows = session.query(
        "SELECT c.oid, format('%I.%I', n.nspname, c.relname), quote_ident(n.nspname), c.relkind,"
        " c.relpersistence, c.reltuples,"
        " coalesce((SELECT option_value::boolean FROM pg_options_to_table(c.reloptions)"
        "  WHERE option_name = 'autovacuum_enabled'), true),"
        " EXISTS (SELECT FROM pg_options_to_table(c.reloptions)"
        "  WHERE option_name = 'fillfactor')"
        " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname = " +
        session.literal(relation) + " AND " +
        (place.schema ? "n.nspname = " + session.literal(*place.schema)
                      : std::string("pg_table_is_visible(c.oid)")));
    if (rows.empty()) {
        return std::nullopt;
    }
    const auto& row = rows[0];
    TableFacts table;
    table.oid = row[0].value_or("0");
    table.name = row[1].value_or("");
    table.schema = row[2].value_or("");
    table.kind = row[3].value_or("r")[0];
    table.persistence = row[4].value_or("p")[0];
    table.estimate = to_number(row[5]);
    table.autovacuum = to_bool(row[6]);
    table.fillfactor = to_bool(row[7]);
    look(session, unseen, "distribution of " + relation,
         [&] { look_at_distribution(session, table); });
    const std::pair<const char*, void (*)(Session&, TableFacts&)> looks[] = {
        {"columns", look_at_columns},
        {"indexes", look_at_indexes},
        {"triggers", look_at_triggers},
        {"privileges", look_at_privileges},
    };
    const std::pair<const char*, void (*)(Session&, TableFacts&)> looks_at_rows[] = {
        {"statistics", look_at_statistics},
        {"sizes", look_at_sizes},
        {"width of rows", look_at_width},
    };
    // What this server says of the rows is nothing where they are on others.
    for (const auto& one : looks_at_rows) {
        if (!table.is_elsewhere()) {
            look(session, unseen, std::string(one.first) + " of " + relation,
                 [&] { one.second(session, table); });
        }
    }
    for (const auto& one : looks) {
        look(session, unseen, std::string(one.first) + " of " + relation,
             [&] { one.second(session, table); });
    }
    return table;
}

TableFacts look_for_table(Session& session, const Place& place, std::vector<Unseen>& unseen) {
    std::optional<TableFacts> table = look_at_table(session, place, "psycache", unseen);
    if (!table) {
        throw Error(make_error_code(Errc::table_missing), "query",
                    "the cache's table does not exist; run psycache init-db", "", "", nullptr);
    }
    return std::move(*table);
}

Sessions look_at_sessions(Session& session) {
    // The kind of a session is hidden from other roles, its name and database are not.
    const auto rows = session.query(
        "SELECT count(*), count(*) FILTER (WHERE application_name = 'psycache')"
        " FROM pg_stat_activity WHERE datid IS NOT NULL AND pid <> pg_backend_pid()"
        " AND coalesce(backend_type, 'client backend') = 'client backend'");
    return {to_integer(rows.at(0)[0]), to_integer(rows.at(0)[1])};
}

}  // namespace psycache::cli
