#include "operations/table.hpp"

namespace psycache::detail {

namespace {

constexpr std::string_view tag_table = "psycache_tags";

std::string name_in(const std::optional<std::string>& schema, std::string_view table) {
    const std::string quoted = quoted_identifier(table);
    return schema ? concat({quoted_identifier(*schema), ".", quoted}) : quoted;
}

/// @returns whether a failure is about the table of tags: the server names the table that it is
/// about, in every language.
bool is_about_tags(const Failure& failure) {
    const std::string_view message = failure.server_message;
    const std::size_t at = message.rfind(tag_table);
    // A schema may have the same name.
    return at != std::string_view::npos && !message.substr(at + tag_table.size()).starts_with('.');
}

std::string milliseconds_of(std::string_view setting) {
    return concat(
        {"(extract(epoch FROM current_setting('", setting, "')::interval) * 1000)::bigint"});
}

/// The limit of the role's own that ends a statement first, if one does before its callers lose
/// patience.
std::string limit_of_role(std::chrono::milliseconds patience) {
    return concat({"SELECT NULL, l.sqlstate, l.after FROM (VALUES ('55P03', ",
                   milliseconds_of("lock_timeout"), "), ('57014', ",
                   milliseconds_of("statement_timeout"),
                   ")) AS l(sqlstate, after) WHERE l.after > 0 AND l.after < ",
                   std::to_string(patience.count()), " ORDER BY l.after LIMIT 1"});
}

}  // namespace

std::string concat(std::initializer_list<std::string_view> parts) {
    std::string whole;
    for (const std::string_view part : parts) {
        whole += part;
    }
    return whole;
}

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

std::string quoted_literal(std::string_view text) {
    std::string quoted = "E'";
    for (const char c : text) {
        quoted += c;
        if (c == '\'' || c == '\\') {
            quoted += c;
        }
    }
    return quoted + '\'';
}

std::string table_name(const std::optional<std::string>& schema) {
    return name_in(schema, "psycache");
}

std::string tag_table_name(const std::optional<std::string>& schema) {
    return name_in(schema, tag_table);
}

Table::Table(const std::optional<std::string>& schema, bool with_sizes,
             std::chrono::milliseconds patience)
    : name(table_name(schema)),
      tags(tag_table_name(schema)),
      sizes(with_sizes),
      is_local(concat({"NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid =",
                       " to_regclass(", quoted_literal(name), "))"})),
      looks_for_locks(
          concat({"WITH free AS (SELECT key FROM ", name,
                  " WHERE key = ANY($1) FOR NO KEY UPDATE SKIP LOCKED)"
                  " (SELECT key, concat(ctid, ' ', xmax), NULL::bigint FROM ",
                  name, " WHERE key = ANY($1) AND key NOT IN (SELECT key FROM free)) UNION ALL (",
                  limit_of_role(patience), ")"}),
          {pg::Oid::text_array}) {}

Failure Table::explain(Failure failure) const {
    const bool about_tags = is_about_tags(failure);
    if (failure.code == Errc::table_missing && about_tags) {
        failure.cause = "table " + tags +
                        " does not exist, which tags need: run init_db with TableOptions::tags or "
                        "\"psycache init-db --tags\" for its schema";
    } else if (failure.code == Errc::table_missing) {
        failure.cause =
            "table " + name + " does not exist: run init_db or \"psycache init-db\" for its schema";
    } else if (failure.code == Errc::permission_denied) {
        failure.cause = "permission denied on table " + (about_tags ? tags : name) +
                        ": the role needs SELECT, INSERT, UPDATE and DELETE on it, and USAGE on "
                        "its schema";
    }
    if (distributed && failure.sqlstate.starts_with("08") &&
        failure.code != Errc::connection_lost) {
        failure.cause =
            "the server cannot connect to another node of its cluster: the role must be allowed to "
            "log in there, from the other nodes and without a password that they do not know";
    }
    return failure;
}

std::string Table::lock_limit(std::string_view milliseconds) {
    return concat(
        {"(SELECT set_config('lock_timeout', ", milliseconds, "::text, true)) AS lock_limit"});
}

StoredValue Table::stored_value(const pg::Rows& rows, std::size_t row) const {
    return {rows.bytes(row, 1), sizes ? static_cast<std::size_t>(rows.integer(row, 2)) : 0};
}

std::string Table::live_keys(std::string_view keys, std::string_view milliseconds) const {
    return concat({"WITH live AS (SELECT t.key FROM ", name, " AS t, ", lock_limit(milliseconds),
                   " WHERE t.key = ANY(", keys,
                   "::text[]) AND t.expires_at > statement_timestamp()"
                   " ORDER BY t.key COLLATE \"C\" FOR UPDATE OF t)"});
}

LockSight Table::lock_sight(const pg::Rows& rows) {
    LockSight sight;
    for (std::size_t row = 0; row < rows.size(); ++row) {
        if (!rows.bytes(row, 2).empty()) {
            sight.limit = LockLimit{std::chrono::milliseconds(rows.integer(row, 2)),
                                    rows.bytes(row, 1) == "57014" ? "57014" : "55P03"};
        } else {
            sight.held.push_back(
                {std::string(rows.bytes(row, 0)), std::string(rows.bytes(row, 1))});
        }
    }
    return sight;
}

std::string Table::expiry_for_update(std::string_view ttl) {
    return concat({"greatest(statement_timestamp() + ", ttl,
                   " * interval '1 microsecond', CASE WHEN ", ttl,
                   " IS NULL THEN 'infinity'::timestamptz END)"});
}

std::string Table::expiry_of(std::string_view ttl) {
    return concat({"coalesce(statement_timestamp() + ", ttl,
                   " * interval '1 microsecond', 'infinity'::timestamptz)"});
}

std::string Table::look_after(std::string_view expiry) {
    return concat({"least(", expiry, ", statement_timestamp() + interval '1 day')"});
}

std::string keys_of(const Group& group) {
    pg::ArrayBuilder keys(pg::Oid::text, group.keys());
    for (std::size_t i = 0; i < group.keys(); ++i) {
        keys.add(group.key(i));
    }
    return keys.take();
}

void add_ttl(pg::Parameters& parameters, Duration ttl) {
    if (ttl == no_expiry) {
        parameters.null();
    } else {
        parameters.int8(ttl.count());
    }
}

std::vector<bool> found_keys(const Group& group, const pg::Rows& rows) {
    std::vector<bool> found(group.keys());
    if (group.lone()) {
        found.front() = rows.affected() > 0;
    }
    for (std::size_t row = 0; row < rows.size(); ++row) {
        if (const auto number = group.find(rows.bytes(row, 0))) {
            found[*number] = true;
        }
    }
    return found;
}

std::vector<std::optional<std::size_t>> rows_by_key(const Group& group, const pg::Rows& rows) {
    std::vector<std::optional<std::size_t>> found(group.keys());
    for (std::size_t row = 0; row < rows.size(); ++row) {
        if (const auto number = group.find(rows.bytes(row, 0))) {
            found[*number] = row;
        }
    }
    return found;
}

}  // namespace psycache::detail
