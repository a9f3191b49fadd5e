#include "cli/doctor_findings.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "cli/duration_text.hpp"

namespace psycache::cli {

namespace {

using namespace std::chrono_literals;

constexpr int oldest_version = 13;
constexpr int newest_version = 18;

// Autovacuum comes when a fifth of the rows are dead, by default; few of them cost nothing.
constexpr std::int64_t many = 10'000;

std::string number(std::int64_t value) {
    return std::to_string(value);
}

/// @returns "1 row", "2 rows".
std::string counted(std::int64_t value, const std::string& noun) {
    return number(value) + " " + noun + (value == 1 ? "" : "s");
}

std::string megabytes(std::int64_t bytes) {
    return number((bytes + (1 << 19)) >> 20) + " MiB";
}

std::string percent(double share) {
    return number(std::lround(share * 100)) + " %";
}

std::string joined(const std::vector<std::string>& words) {
    std::string text;
    for (std::size_t i = 0; i < words.size(); ++i) {
        text += (i == 0 ? "" : i + 1 == words.size() ? " and " : ", ") + words[i];
    }
    return text;
}

const Index* find_index(const TableFacts& table, bool (*fits)(const Index&)) {
    const auto index = std::find_if(table.indexes->begin(), table.indexes->end(), fits);
    return index == table.indexes->end() ? nullptr : &*index;
}

/// Looks at the facts in the order in which one reads the findings.
class Examination {
  public:
    explicit Examination(const DoctorFacts& facts) : facts_(facts) {}

    std::vector<Finding> run() {
        server();
        table();
        distribution();
        notifications();
        pooler();
        connections();
        clock();
        timeouts();
        unseen();
        return std::move(findings_);
    }

  private:
    void add(Severity severity, const std::string& id, std::string found, std::string remedy = {},
             std::string sql = {}) {
        findings_.push_back({severity, id, std::move(found), std::move(remedy), std::move(sql)});
    }

    void server() {
        if (!facts_.server) {
            return;
        }
        const ServerFacts& server = *facts_.server;
        const int major = server.version / 10000;
        const std::string version = "The server is PostgreSQL " + server.version_text;
        const std::string tested = number(oldest_version) + " to " + number(newest_version);
        if (major < oldest_version) {
            add(Severity::note, "server.version",
                version + ", which is older than what psycache is tested with (" + tested + ").",
                "Upgrade the server.");
        } else if (major > newest_version) {
            add(Severity::note, "server.version",
                version + ", which is newer than what psycache was tested with (" + tested + ").");
        } else {
            add(Severity::ok, "server.version", version + ".");
        }
        if (!server.in_recovery) {
            add(Severity::ok, "server.recovery", "The server is a primary.");
        } else {
            add(Severity::problem, "server.recovery",
                "The server is a standby: it takes no writes, and UNLOGGED tables cannot even be "
                "read there.",
                "Name the primary in the DSN, or all servers and target_session_attrs=read-write.");
        }
    }

    void table() {
        if (!facts_.table_looked_for) {
            return;
        }
        if (!facts_.table) {
            const std::string place =
                facts_.schema.empty() ? "any schema of the search path" : "schema " + facts_.schema;
            add(Severity::problem, "table.missing", "There is no table psycache in " + place + ".",
                "Run \"psycache init-db\" with the same --schema and DSN, or let its SQL run; or "
                "name the schema in which the table is.",
                facts_.create_table);
            return;
        }
        examine(*facts_.table, "", {"key", "value", "expires_at"},
                {"text", "jsonb", "timestamp with time zone"}, "key", facts_.create_table);
        expired();
        transactions();
        if (facts_.tags) {
            examine(*facts_.tags, "tags.", {"tag", "key", "expires_at"},
                    {"text", "text", "timestamp with time zone"}, "tag,key", facts_.create_tags);
        }
    }

    /// @param prefix of the ids. @param key what the primary key consists of.
    void examine(const TableFacts& table, const std::string& prefix,
                 const std::vector<std::string>& names, const std::vector<std::string>& types,
                 const std::string& key, const std::string& create) {
        kind(table, prefix);
        columns(table, prefix, names, types, create);
        primary_key(table, prefix, key);
        expiry_index(table, prefix);
        privileges(table, prefix);
        vacuum(table, prefix);
        bloat(table, prefix);
    }

    void kind(const TableFacts& table, const std::string& prefix) {
        if (table.kind != 'r') {
            const std::string what = table.kind == 'p'   ? "a partitioned table"
                                     : table.kind == 'v' ? "a view"
                                     : table.kind == 'f' ? "a foreign table"
                                                         : "a materialized view";
            add(table.kind == 'm' ? Severity::problem : Severity::note, prefix + "table.kind",
                table.name + " is " + what +
                    ": CacheOptions::max_entries and max_bytes do not work with it, and cleanups "
                    "wait for locked rows.");
            return;
        }
        if (table.persistence == 'u') {
            add(Severity::ok, prefix + "table.unlogged", table.name + " is UNLOGGED.");
        } else {
            add(Severity::note, prefix + "table.unlogged",
                table.name +
                    " is logged: it survives a crash, and each write costs several times as much.",
                "Make it UNLOGGED, if its entries can be made anew. That rewrites it, and locks it "
                "meanwhile.",
                "ALTER TABLE " + table.name + " SET UNLOGGED;");
        }
    }

    void columns(const TableFacts& table, const std::string& prefix,
                 const std::vector<std::string>& names, const std::vector<std::string>& types,
                 const std::string& create) {
        if (!table.columns) {
            return;
        }
        std::vector<std::string> wrong;
        for (std::size_t i = 0; i < names.size(); ++i) {
            const auto column =
                std::find_if(table.columns->begin(), table.columns->end(),
                             [&](const Column& one) { return one.name == names[i]; });
            if (column == table.columns->end()) {
                wrong.push_back("it has no column " + names[i]);
            } else if (column->type != types[i]) {
                wrong.push_back(names[i] + " is of type " + column->type + ", not " + types[i]);
            }
        }
        for (const Column& column : *table.columns) {
            if (column.not_null && !column.has_default &&
                std::find(names.begin(), names.end(), column.name) == names.end()) {
                wrong.push_back("its column " + column.name + " is NOT NULL without a default");
            }
        }
        if (wrong.empty()) {
            add(Severity::ok, prefix + "table.columns",
                table.name + " has the columns that psycache makes.");
        } else {
            const std::string relation = prefix.empty() ? "psycache" : "psycache_tags";
            const std::string index = "ix_" + relation + "_expires_at";
            add(Severity::problem, prefix + "table.columns",
                table.name + " is not as psycache makes it: " + joined(wrong) + ".",
                "Put it aside and make it anew.",
                "ALTER TABLE " + table.name + " RENAME TO " + relation + "_old;\n" +
                    "ALTER INDEX IF EXISTS " + table.schema + "." + index + " RENAME TO " + index +
                    "_old;\n" + create);
        }
    }

    void primary_key(const TableFacts& table, const std::string& prefix, const std::string& key) {
        if (!table.indexes || table.kind == 'v' || table.kind == 'f') {
            return;
        }
        for (const Index& index : *table.indexes) {
            if (index.unique && index.valid && index.columns == key) {
                add(Severity::ok, prefix + "index.key",
                    table.name + " has a unique index on (" + key + ").");
                return;
            }
        }
        add(Severity::problem, prefix + "index.key",
            table.name + " has no primary key on (" + key +
                "): puts fail, look-ups read all of it.",
            "Add it.", "ALTER TABLE " + table.name + " ADD PRIMARY KEY (" + key + ");");
    }

    void expiry_index(const TableFacts& table, const std::string& prefix) {
        if (!table.indexes || table.kind == 'v' || table.kind == 'f') {
            return;
        }
        const std::string id = prefix + "index.expiry";
        const std::string name =
            prefix.empty() ? "ix_psycache_expires_at" : "ix_psycache_tags_expires_at";
        const std::string create =
            "CREATE INDEX CONCURRENTLY " + name + " ON " + table.name + " (expires_at);";
        const auto on_expiry = [](const Index& index) {
            return (index.columns + ",").starts_with("expires_at,");
        };
        const Index* const invalid = find_index(table, [](const Index& index) {
            return !index.valid && (index.columns + ",").starts_with("expires_at,");
        });
        if (std::any_of(table.indexes->begin(), table.indexes->end(),
                        [&](const Index& index) { return index.valid && on_expiry(index); })) {
            add(Severity::ok, id, table.name + " has an index on expires_at.");
        } else if (invalid != nullptr) {
            add(Severity::warning, id,
                "The index " + invalid->name +
                    " is not valid: writes pay for it, and cleanups read the whole table.",
                "Make it anew.", "DROP INDEX CONCURRENTLY " + invalid->name + ";\n" + create);
        } else if (table.fillfactor) {
            add(Severity::note, id,
                table.name +
                    " has no index on expires_at, as --no-expiry-index makes it: cheaper to "
                    "overwrite, while each cleanup reads the whole table.",
                "Make the index if cleanups take too long.", create);
        } else {
            add(Severity::warning, id,
                table.name + " has no index on expires_at: each cleanup reads the whole table.",
                "Make it.", create);
        }
    }

    void privileges(const TableFacts& table, const std::string& prefix) {
        if (!table.privileges) {
            return;
        }
        const Privileges& has = *table.privileges;
        const std::string usage =
            "GRANT USAGE ON SCHEMA " + table.schema + " TO " + facts_.role + ";";
        if (has.usage_of_schema && has.missing.empty()) {
            add(Severity::ok, prefix + "privileges.missing",
                "The role " + facts_.role + " may read and write " + table.name + ".");
        } else {
            std::vector<std::string> missing = has.missing;
            std::string sql;
            if (!missing.empty()) {
                std::string list = missing[0];
                for (std::size_t i = 1; i < missing.size(); ++i) {
                    list += ", " + missing[i];
                }
                sql = "GRANT " + list + " ON " + table.name + " TO " + facts_.role + ";";
            }
            if (!has.usage_of_schema) {
                missing.insert(missing.begin(), "USAGE of the schema");
                sql = usage + (sql.empty() ? "" : "\n" + sql);
            }
            add(Severity::problem, prefix + "privileges.missing",
                "The role " + facts_.role + " lacks " + joined(missing) + " on " + table.name + ".",
                "Let the owner of the table grant what the role needs: SELECT to read; UPDATE and "
                "DELETE as well to clean up; INSERT, too, to write.",
                sql);
        }
        if (!has.truncate) {
            add(Severity::note, prefix + "privileges.truncate",
                "The role " + facts_.role + " may not TRUNCATE " + table.name +
                    ", which only clear needs.",
                "Grant it if that is wanted.",
                "GRANT TRUNCATE ON " + table.name + " TO " + facts_.role + ";");
        }
        if (has.row_security) {
            add(Severity::warning, prefix + "privileges.row_security",
                "Policies for rows apply to the role " + facts_.role + " on " + table.name +
                    ": entries may be hidden from it.",
                "Switch them off for this table.",
                "ALTER TABLE " + table.name + " DISABLE ROW LEVEL SECURITY;");
        }
    }

    void vacuum(const TableFacts& table, const std::string& prefix) {
        if (table.kind != 'r' || !table.statistics) {
            return;
        }
        const std::string id = prefix + "vacuum.autovacuum";
        if (facts_.server && !(facts_.server->autovacuum && facts_.server->track_counts)) {
            const std::string setting = facts_.server->autovacuum ? "track_counts" : "autovacuum";
            add(Severity::problem, id,
                "The server has " + setting + " = off: nothing vacuums " + table.name +
                    ", which grows with every overwrite.",
                "Switch it on.",
                "ALTER SYSTEM SET " + setting + " = on;\nSELECT pg_reload_conf();");
        } else if (!table.autovacuum) {
            add(Severity::warning, id, "Autovacuum is switched off for " + table.name + ".",
                "Switch it on.", "ALTER TABLE " + table.name + " RESET (autovacuum_enabled);");
        } else {
            add(Severity::ok, id, "Autovacuum is on for " + table.name + ".");
        }

        const RowStatistics& rows = *table.statistics;
        const auto since = !rows.since_vacuum ? rows.since_autovacuum
                           : !rows.since_autovacuum
                               ? rows.since_vacuum
                               : std::min(rows.since_vacuum, rows.since_autovacuum);
        if (since) {
            add(Severity::ok, prefix + "vacuum.never",
                table.name + " was last vacuumed " + duration_text(*since) + " ago.");
        } else if (rows.dead < many || rows.dead <= rows.live / 5) {
            add(Severity::ok, prefix + "vacuum.never",
                table.name + " has never been vacuumed, and has not needed it: " +
                    counted(rows.dead, "dead row") + ".");
        } else {
            add(Severity::warning, prefix + "vacuum.never",
                table.name + " has never been vacuumed, though it has " +
                    counted(rows.dead, "dead row") + ".",
                "Vacuum it now, and find out why autovacuum does not within a minute: its workers "
                "may all be busy, or a long transaction may hold it up.",
                "VACUUM (ANALYZE) " + table.name + ";");
        }
    }

    void bloat(const TableFacts& table, const std::string& prefix) {
        if (table.kind != 'r' || !table.statistics) {
            return;
        }
        const std::string id = prefix + "table.bloat";
        const RowStatistics& rows = *table.statistics;
        if (rows.dead >= many && rows.dead > rows.live / 2) {
            add(Severity::warning, id,
                table.name + " has " + counted(rows.dead, "dead row") + " beside " +
                    number(rows.live) + " live ones.",
                "Vacuum it, and let autovacuum come sooner.",
                "VACUUM (ANALYZE) " + table.name + ";\nALTER TABLE " + table.name +
                    " SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = "
                    "0);");
            return;
        }
        if (table.sizes && table.row_width && rows.live > 0) {
            // What a row has beside its columns: header, pointer, alignment.
            constexpr std::int64_t overhead = 32;
            const std::int64_t needed =
                rows.live * (*table.row_width + overhead) * (table.fillfactor ? 10 : 7) / 7;
            if (table.sizes->rows > (std::int64_t(64) << 20) && table.sizes->rows / 4 > needed) {
                add(Severity::warning, id,
                    table.name + " takes " + megabytes(table.sizes->rows) +
                        " on the disk, while its rows need about " + megabytes(needed) + ".",
                    "Give the space back, which locks the table meanwhile; or empty it at once: "
                    "\"psycache clear\".",
                    "VACUUM (FULL, ANALYZE) " + table.name + ";");
                return;
            }
        }
        add(Severity::ok, id,
            table.name + " has " + counted(rows.dead, "dead row") + " beside " + number(rows.live) +
                " live ones.");
    }

    void expired() {
        if (!facts_.expired_looked_for) {
            return;
        }
        if (facts_.oldest_expired.value_or(0s) < 24h) {
            add(Severity::ok, "cleanup.overdue", "No entry has been expired for more than a day.");
            return;
        }
        add(Severity::warning, "cleanup.overdue",
            "There is an entry that expired " + duration_text(*facts_.oldest_expired) +
                " ago: no cleanup runs, or it does not come to an end.",
            "Run \"psycache cleanup\" every few minutes, or start_cleanup_task or "
            "start_cleanup_thread in one of the services.",
            "DELETE FROM " + facts_.table->name + " WHERE ctid = ANY (ARRAY(SELECT ctid FROM " +
                facts_.table->name +
                " WHERE expires_at <= now() AND expires_at > now() - interval '900000 days'"
                " ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED));");
    }

    void transactions() {
        if (!facts_.transactions_looked_for) {
            return;
        }
        constexpr const char* id = "vacuum.held_back";
        if (facts_.oldest_transaction.value_or(0s) < 1h) {
            add(Severity::ok, id, "No transaction was seen that has been open for an hour.");
            return;
        }
        add(Severity::warning, id,
            "A transaction has been open for " + duration_text(*facts_.oldest_transaction) +
                ": no VACUUM removes rows that died since, in any table.",
            "Find it, and end it; idle_in_transaction_session_timeout does so by itself.",
            "SELECT pid, usename, application_name, state, xact_start FROM pg_stat_activity\n"
            "  WHERE backend_xmin IS NOT NULL OR backend_xid IS NOT NULL ORDER BY xact_start LIMIT "
            "5;\n"
            "-- SELECT pg_terminate_backend(PID);\n"
            "SELECT gid, prepared, owner, database FROM pg_prepared_xacts ORDER BY prepared LIMIT "
            "5;\n"
            "-- ROLLBACK PREPARED 'GID';");
    }

    void distribution() {
        if (!facts_.table || !facts_.table->distribution) {
            return;
        }
        constexpr const char* id = "citus.distribution";
        const Distribution& is = *facts_.table->distribution;
        const std::string& name = facts_.table->name;
        const std::string distribute =
            "SELECT create_distributed_table(" + quoted_name() +
            ", 'key', shard_count := " + number(std::max<std::int64_t>(2 * is.nodes, 2)) +
            ", colocate_with := 'none');";
        const std::string undistribute = "SELECT undistribute_table(" + quoted_name() + ");\n";
        if (is.method == 0) {
            add(Severity::note, id,
                "The server has Citus, and " + name + " is a table of the coordinator alone.",
                "Distribute it by its key if one machine is not enough for it.", distribute);
        } else if (is.method == 'n') {
            add(Severity::warning, id,
                name + " is a reference table: each write goes to all nodes, in two phases.",
                "Distribute it by its key.", undistribute + distribute);
        } else if (is.column != "key") {
            add(Severity::problem, id,
                name + " is distributed by " + is.column + ", not by key: puts fail.",
                "Distribute it by its key.", undistribute + distribute);
        } else if (is.nodes > 0 && is.shards > 4 * is.nodes) {
            add(Severity::note, id,
                name + " has " + counted(is.shards, "shard") + " on " + counted(is.nodes, "node") +
                    ": calls share statements with those of the same shard only, and what looks at "
                    "the whole table asks each of them.",
                "A few shards a node are enough. Changing their number copies the table.",
                "SELECT alter_distributed_table(" + quoted_name() + ", shard_count := " +
                    number(2 * is.nodes) + ", cascade_to_colocated := false);");
        } else {
            add(Severity::ok, id,
                name + " is distributed by its key: " + counted(is.shards, "shard") + " on " +
                    counted(is.nodes, "node") + ".");
        }
    }

    /// The name of the table as a constant, which Citus wants.
    std::string quoted_name() const {
        std::string text = "'";
        bool escapes = false;
        for (const char c : facts_.table->name) {
            escapes = escapes || c == '\\';
            text += c == '\'' || c == '\\' ? std::string(2, c) : std::string(1, c);
        }
        return (escapes ? "E" : "") + text + "'";
    }

    void notifications() {
        if (facts_.table && facts_.table->triggers) {
            triggers(*facts_.table, *facts_.table->triggers);
        }
        if (!facts_.notify_queue) {
            return;
        }
        const double used = *facts_.notify_queue;
        const std::string full =
            "The server's queue of notifications is " + percent(used) + " full";
        if (used < 0.25) {
            add(Severity::ok, "notify.queue", full + ".");
            return;
        }
        add(used < 0.75 ? Severity::warning : Severity::problem, "notify.queue",
            full +
                ": a session that listens stays in a transaction. When it is full, all that notify "
                "fail, writes of entries among them.",
            "Find the transaction that is open for longest, and end its session.",
            "SELECT pid, usename, application_name, xact_start FROM pg_stat_activity\n"
            "  WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT "
            "5;\n"
            "-- SELECT pg_terminate_backend(PID);\n"
            "SELECT pg_notification_queue_usage();");
    }

    void triggers(const TableFacts& table, const std::vector<Trigger>& triggers) {
        constexpr const char* id = "notify.triggers";
        const auto silent = std::count_if(triggers.begin(), triggers.end(), [](const Trigger& one) {
            return one.enabled == 'D' || one.enabled == 'R';
        });
        const bool replica = std::any_of(triggers.begin(), triggers.end(),
                                         [](const Trigger& one) { return one.enabled == 'O'; });
        if (triggers.empty()) {
            add(Severity::ok, id,
                "Changes of " + table.name +
                    " are not told of (no triggers), which only a near cache with "
                    "Invalidation::listen wants.");
        } else if (triggers.size() < 3) {
            add(Severity::warning, id,
                "Only " + number(static_cast<std::int64_t>(triggers.size())) +
                    " of 3 triggers that tell of changes are on " + table.name +
                    ": near caches that listen keep nothing.",
                "Make the others (psycache init-db --notify).", facts_.create_triggers);
        } else if (silent > 0) {
            add(Severity::warning, id,
                number(silent) + " of the 3 triggers that tell of changes of " + table.name +
                    (silent == 1 ? " is" : " are") +
                    " switched off: near caches that listen keep nothing.",
                "Switch them on (psycache init-db --notify).", facts_.create_triggers);
        } else if (replica) {
            add(Severity::note, id,
                "The triggers that tell of changes of " + table.name +
                    " do not run where session_replication_role is replica.",
                "Let them run always (psycache init-db --notify).", facts_.create_triggers);
        } else {
            add(Severity::ok, id, "Changes of " + table.name + " are told of, by 3 triggers.");
        }
    }

    void pooler() {
        if (!facts_.pooler) {
            return;
        }
        constexpr const char* id = "pooler.transaction_mode";
        if (!facts_.pooler->moves) {
            add(Severity::ok, id,
                facts_.pooler->between
                    ? "A pooler is between, and has kept the session of the server. Its size must "
                      "be at least the sum of PoolOptions::max_size of all pools."
                    : "No pooler was seen between this machine and the server.");
            return;
        }
        const bool triggers =
            facts_.table && facts_.table->triggers && !facts_.table->triggers->empty();
        const std::string found =
            "A pooler in transaction mode is between: one connection has been answered by several "
            "processes of the server. Prepared statements get through PgBouncer from 1.21 on, "
            "where "
            "max_prepared_statements is set.";
        if (triggers) {
            add(Severity::warning, id,
                found + " Through it no near cache can listen, though the table has triggers.",
                "Let caches with Invalidation::listen connect to the server itself, or in session "
                "mode; else take Invalidation::none. With another pooler, or an older one, set "
                "PoolOptions::prepare_statements = false.");
        } else {
            add(Severity::note, id, found,
                "With another pooler, or an older one, set PoolOptions::prepare_statements = "
                "false. A near cache needs Invalidation::none.");
        }
    }

    void connections() {
        if (!facts_.connections) {
            return;
        }
        const ConnectionFacts& is = *facts_.connections;
        const std::int64_t usable = is.max_connections - is.reserved;
        limit("connections.budget", usable, is.clients,
              "connections that max_connections = " + number(is.max_connections) +
                  " leaves to ordinary roles",
              ", " + number(is.psycache) + " of them by psycache",
              "Lower PoolOptions::max_size (a few connections serve hundreds of callers), put a "
              "pooler in between, or raise max_connections and restart the server.",
              "ALTER SYSTEM SET max_connections = " + number(2 * is.max_connections) + ";");
        if (is.role_limit >= 0) {
            limit("connections.role_limit", is.role_limit, is.of_role,
                  "connections that the role " + facts_.role + " may have", "",
                  "Raise its limit, or lower PoolOptions::max_size.",
                  "ALTER ROLE " + facts_.role + " CONNECTION LIMIT " +
                      number(std::max<std::int64_t>(2 * is.role_limit, 2 * facts_.pool_size)) +
                      ";");
        }
        if (is.database_limit >= 0) {
            limit("connections.database_limit", is.database_limit, is.of_database,
                  "connections that the database " + facts_.database + " may have", "",
                  "Raise its limit, or lower PoolOptions::max_size.",
                  "ALTER DATABASE " + facts_.database + " CONNECTION LIMIT " +
                      number(std::max<std::int64_t>(2 * is.database_limit, 2 * facts_.pool_size)) +
                      ";");
        }
    }

    /// @param noun what there are @p most of.
    void limit(const std::string& id, std::int64_t most, std::int64_t used, const std::string& noun,
               const std::string& more, const std::string& remedy, const std::string& sql) {
        const std::string found =
            number(used) + " of the " + number(most) + " " + noun + " are in use" + more + ".";
        if (most - used >= facts_.pool_size) {
            add(Severity::ok, id, found);
        } else {
            add(Severity::warning, id,
                found + " One more pool of the default size (" + number(facts_.pool_size) +
                    ") does not fit.",
                remedy, sql);
        }
    }

    void clock() {
        if (!facts_.clock) {
            return;
        }
        const Duration off = std::chrono::abs(facts_.clock->ahead);
        const std::string give_or_take = ", give or take " + duration_text(facts_.clock->error);
        if (off - facts_.clock->error < 1s) {
            add(Severity::ok, "clock.skew",
                "The clocks of this machine and of the server agree to " +
                    duration_text(off + facts_.clock->error) + ".");
            return;
        }
        const bool ahead = facts_.clock->ahead > 0s;
        add(Severity::warning, "clock.skew",
            "This machine's clock is " + duration_text(off) + (ahead ? " ahead of" : " behind") +
                " the server's" + give_or_take +
                ". What psycache for Python puts from here expires so much too " +
                (ahead ? "late" : "early") +
                ", since it counts by its own clock; this library counts by the server's.",
            "Let NTP set both clocks (chrony, systemd-timesyncd).");
    }

    void timeouts() {
        for (const TimeoutFacts& timeout : facts_.timeouts) {
            examine(timeout);
        }
    }

    void examine(const TimeoutFacts& timeout) {
        const std::string id = "role." + timeout.name;
        const std::string set =
            timeout.name + " is " + duration_text(timeout.value) + " for the role " + facts_.role;
        const auto raise = [&](Duration value) {
            return "ALTER ROLE " + facts_.role + " IN DATABASE " + facts_.database + " SET " +
                   timeout.name + " = '" +
                   number(std::chrono::duration_cast<std::chrono::milliseconds>(value).count()) +
                   "ms';";
        };
        if (timeout.value == 0s) {
            add(Severity::ok, id, timeout.name + " is not set for the role " + facts_.role + ".");
        } else if (timeout.name == "idle_session_timeout") {
            if (timeout.value >= facts_.pool_idle_timeout) {
                add(Severity::ok, id, set + ", no less than PoolOptions::idle_timeout.");
            } else {
                add(Severity::note, id,
                    set + ": the server closes idle connections before the pool does (" +
                        duration_text(facts_.pool_idle_timeout) +
                        "), and the next call pays for a new one.",
                    "Raise it, or set PoolOptions::idle_timeout below it.",
                    raise(2 * facts_.pool_idle_timeout));
            }
        } else if (timeout.name == "idle_in_transaction_session_timeout") {
            // Own calls are autocommit; only TransactionCache is in a transaction of others.
            add(timeout.value < facts_.call_timeout ? Severity::note : Severity::ok, id,
                set +
                    ", which counts for transactions of the application alone (TransactionCache).");
        } else if (timeout.value < facts_.call_timeout) {
            add(Severity::warning, id,
                set + ": calls fail before their deadline (" + duration_text(facts_.call_timeout) +
                    " by default).",
                "Raise it, or set CacheOptions::timeout below it.",
                raise(timeout.name == "lock_timeout" ? facts_.call_timeout
                                                     : facts_.maintenance_timeout));
        } else if (timeout.name != "lock_timeout" && timeout.value < facts_.maintenance_timeout) {
            add(Severity::note, id,
                set +
                    ": flush, clear, remove_prefix, remove_tag and cleanups of large tables may "
                    "fail before their deadline (" +
                    duration_text(facts_.maintenance_timeout) + " by default).",
                "Raise it, or set CacheOptions::maintenance_timeout below it.",
                raise(facts_.maintenance_timeout));
        } else {
            add(Severity::ok, id, set + ", no less than what calls wait.");
        }
    }

    void unseen() {
        for (const Unseen& one : facts_.unseen) {
            add(Severity::note, "not_looked_at",
                "Could not be looked at: " + one.what +
                    (one.sqlstate.empty() ? "" : " [" + one.sqlstate + "]") + ".",
                one.sqlstate == "42501" ? "Run the doctor as a role that may see it." : "");
        }
    }

    const DoctorFacts& facts_;
    std::vector<Finding> findings_;
};

}  // namespace

std::string severity_text(Severity severity) {
    switch (severity) {
        case Severity::ok:
            return "ok";
        case Severity::note:
            return "note";
        case Severity::warning:
            return "warning";
        case Severity::problem:
            return "problem";
    }
    return "problem";
}

std::vector<Finding> doctor_findings(const DoctorFacts& facts) {
    return Examination(facts).run();
}

bool something_is_wrong(const std::vector<Finding>& findings) {
    return std::any_of(findings.begin(), findings.end(), [](const Finding& finding) {
        return finding.severity >= Severity::warning;
    });
}

}  // namespace psycache::cli
