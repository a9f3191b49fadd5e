#include "cli/doctor_facts.hpp"

#include <chrono>
#include <utility>

#include <psycache/options.hpp>
#include <psycache/table.hpp>

#include "cli/looks.hpp"
#include "cli/session.hpp"

namespace psycache::cli {

namespace {

constexpr const char* session_name = "psycache doctor";

std::string sql_of(const Place& place, bool tags, bool notify) {
    TableOptions options;
    options.schema = place.schema;
    options.tags = tags;
    options.notify = notify;
    return init_db_sql(options);
}

void look_at_names(Session& session, const Place& place, DoctorFacts& facts) {
    const auto rows = session.query(
        "SELECT quote_ident(current_user), quote_ident(current_database()), quote_ident(" +
        (place.schema ? session.literal(*place.schema) : std::string("current_schema()")) + ")");
    facts.role = rows.at(0)[0].value_or("");
    facts.database = rows.at(0)[1].value_or("");
    facts.schema = rows.at(0)[2].value_or("");
}

void look_at_server(Session& session, DoctorFacts& facts) {
    const auto rows = session.query(
        "SELECT current_setting('server_version_num'), current_setting('server_version'),"
        " pg_is_in_recovery(), current_setting('autovacuum')::boolean,"
        " current_setting('track_counts')::boolean");
    const auto& row = rows.at(0);
    facts.server = ServerFacts{static_cast<int>(to_integer(row[0])), row[1].value_or(""),
                               to_bool(row[2]), to_bool(row[3]), to_bool(row[4])};
}

/// A stub, the mark of one who loads a value, expires some 2,700 years ago: see load_lease.hpp.
void look_at_expired(Session& session, DoctorFacts& facts) {
    const auto rows =
        session.query("SELECT extract(epoch FROM statement_timestamp() - (SELECT expires_at FROM " +
                      facts.table->name +
                      " WHERE expires_at > now() - interval '900000 days' AND expires_at < now()"
                      " ORDER BY expires_at LIMIT 1))");
    facts.oldest_expired = to_duration(rows.at(0)[0]);
    facts.expired_looked_for = true;
}

/// Of sessions of other roles, only a member of pg_monitor sees it. A VACUUM does not hold up
/// others.
void look_at_transactions(Session& session, DoctorFacts& facts) {
    const auto rows = session.query(
        "SELECT extract(epoch FROM clock_timestamp() - least("
        "(SELECT min(xact_start) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND datid IS NOT NULL AND backend_type <> 'autovacuum worker' AND query !~* '^ *vacuum'"
        " AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)),"
        " (SELECT min(prepared) FROM pg_prepared_xacts)))");
    facts.oldest_transaction = to_duration(rows.at(0)[0]);
    facts.transactions_looked_for = true;
}

bool has_expiry_index(const TableFacts& table) {
    for (const Index& index : table.indexes.value_or(std::vector<Index>())) {
        if (index.valid && (index.columns + ",").starts_with("expires_at,")) {
            return true;
        }
    }
    return false;
}

/// While a second session is in a transaction, a pooler that shares sessions of the server has to
/// answer the first one from another process, or has given the second one that of the first.
void look_at_pooler(Session& session, const Place& place, DoctorFacts& facts) {
    const auto process_of = [](Session& asked) {
        return to_integer(asked.query("SELECT pg_backend_pid()").at(0)[0]);
    };
    const std::int64_t first = process_of(session);
    Session other(place, session_name);
    other.begin();
    PoolerFacts pooler;
    pooler.between = first != session.told_process();
    pooler.moves = process_of(other) == first || process_of(session) != first;
    other.end();
    facts.pooler = pooler;
}

void look_at_connections(Session& session, DoctorFacts& facts) {
    const Sessions sessions = look_at_sessions(session);
    const auto rows = session.query(
        "WITH others AS (SELECT * FROM pg_stat_activity WHERE pid <> pg_backend_pid())"
        " SELECT current_setting('max_connections')::int,"
        " current_setting('superuser_reserved_connections')::int"
        "  + coalesce(current_setting('reserved_connections', true)::int, 0),"
        " r.rolconnlimit, (SELECT count(*) FROM others WHERE usesysid = r.oid),"
        " d.datconnlimit, (SELECT count(*) FROM others WHERE datid = d.oid)"
        " FROM pg_roles AS r, pg_database AS d"
        " WHERE r.rolname = current_user AND d.datname = current_database()");
    const auto& row = rows.at(0);
    facts.connections = ConnectionFacts{to_integer(row[0]), to_integer(row[1]), sessions.clients,
                                        sessions.psycache,  to_integer(row[2]), to_integer(row[3]),
                                        to_integer(row[4]), to_integer(row[5])};
}

/// The shortest of some round trips tells most: the server's clock was read within it.
void look_at_clock(Session& session, DoctorFacts& facts) {
    using std::chrono::system_clock;
    ClockFacts best;
    for (int i = 0; i < 5; ++i) {
        const auto sent =
            std::chrono::duration_cast<Duration>(system_clock::now().time_since_epoch());
        const auto rows =
            session.query("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint");
        const auto heard =
            std::chrono::duration_cast<Duration>(system_clock::now().time_since_epoch());
        const Duration half = (heard - sent) / 2;
        if (i == 0 || half < best.error) {
            best = {sent + half - Duration(to_integer(rows.at(0)[0])), half};
        }
    }
    facts.clock = best;
}

void look_at_queue(Session& session, DoctorFacts& facts) {
    facts.notify_queue = to_number(session.query("SELECT pg_notification_queue_usage()").at(0)[0]);
}

/// What a session begins with, which is not what this one has set for itself.
void look_at_timeouts(Session& session, DoctorFacts& facts) {
    for (const auto& row : session.query(
             "SELECT name, reset_val FROM pg_settings WHERE unit = 'ms' AND name IN"
             " ('lock_timeout', 'statement_timeout', 'transaction_timeout',"
             " 'idle_in_transaction_session_timeout', 'idle_session_timeout') ORDER BY name")) {
        facts.timeouts.push_back(
            {row[0].value_or(""), std::chrono::milliseconds(to_integer(row[1]))});
    }
}

}  // namespace

DoctorFacts gather_doctor_facts(const Place& place) {
    DoctorFacts facts;
    facts.create_table = sql_of(place, false, false);
    facts.create_tags = sql_of(place, true, false);
    facts.create_triggers = sql_of(place, false, true);
    facts.call_timeout = CacheOptions().timeout;
    facts.maintenance_timeout = CacheOptions().maintenance_timeout;
    facts.pool_idle_timeout = PoolOptions().idle_timeout;
    facts.pool_size = static_cast<std::int64_t>(PoolOptions().max_size);

    Session session(place, session_name);
    const auto ask = [&](const char* what, const std::function<void()>& body) {
        look(session, facts.unseen, what, body);
    };
    ask("names", [&] { look_at_names(session, place, facts); });
    ask("server", [&] { look_at_server(session, facts); });
    ask("table", [&] {
        facts.table = look_at_table(session, place, "psycache", facts.unseen);
        facts.table_looked_for = true;
    });
    if (facts.table) {
        ask("table of tags",
            [&] { facts.tags = look_at_table(session, place, "psycache_tags", facts.unseen); });
        // Without the index it would read the table.
        if (facts.table->kind == 'r' && has_expiry_index(*facts.table)) {
            ask("expired entries", [&] { look_at_expired(session, facts); });
        }
    }
    ask("transactions", [&] { look_at_transactions(session, facts); });
    // Before the pooler is looked at, by a second session.
    ask("connections", [&] { look_at_connections(session, facts); });
    ask("pooler", [&] { look_at_pooler(session, place, facts); });
    ask("clock", [&] { look_at_clock(session, facts); });
    ask("queue of notifications", [&] { look_at_queue(session, facts); });
    ask("time-outs", [&] { look_at_timeouts(session, facts); });
    return facts;
}

}  // namespace psycache::cli
