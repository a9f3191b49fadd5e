#include "cli/doctor_findings.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <set>
#include <string>
#include <vector>

using namespace psycache;
using namespace psycache::cli;
using namespace std::chrono_literals;

namespace {

TableFacts healthy_table(bool tags) {
    TableFacts table;
    table.oid = "16384";
    table.name = tags ? "app.psycache_tags" : "app.psycache";
    table.schema = "app";
    table.estimate = 1000;
    table.columns = {{tags ? "tag" : "key", "text", true, false},
                     {tags ? "key" : "value", tags ? "text" : "jsonb", true, false},
                     {"expires_at", "timestamp with time zone", true, false}};
    table.indexes = {{"app.ix_psycache_expires_at", "expires_at", false, true},
                     {"app.psycache_pkey", tags ? "tag,key" : "key", true, true}};
    table.triggers.emplace();
    table.statistics = RowStatistics{1000, 10, true, 1h, 2min};
    table.sizes = Sizes{1 << 20, 1 << 20, 0};
    table.row_width = 200;
    table.privileges.emplace();
    return table;
}

DoctorFacts healthy_facts() {
    DoctorFacts facts;
    facts.schema = "app";
    facts.role = "\"App\"";
    facts.database = "db";
    facts.create_table = "CREATE TABLE;";
    facts.create_tags = "CREATE TAGS;";
    facts.create_triggers = "CREATE TRIGGERS;";
    facts.call_timeout = 5s;
    facts.maintenance_timeout = 1min;
    facts.pool_idle_timeout = 10min;
    facts.pool_size = 4;
    facts.server = ServerFacts{150003, "15.3", false, true, true};
    facts.table_looked_for = true;
    facts.table = healthy_table(false);
    facts.tags = healthy_table(true);
    facts.expired_looked_for = true;
    facts.transactions_looked_for = true;
    facts.pooler.emplace();
    facts.connections = ConnectionFacts{100, 3, 20, 4, -1, 5, -1, 6};
    facts.clock = ClockFacts{20ms, 1ms};
    facts.notify_queue = 0;
    for (const char* name : {"idle_in_transaction_session_timeout", "idle_session_timeout",
                             "lock_timeout", "statement_timeout", "transaction_timeout"}) {
        facts.timeouts.push_back({name, 0s});
    }
    return facts;
}

void set_timeout(DoctorFacts& facts, const std::string& name, Duration value) {
    for (TimeoutFacts& timeout : facts.timeouts) {
        timeout.value = timeout.name == name ? value : timeout.value;
    }
}

std::vector<Trigger> three_triggers(char enabled) {
    return {{"psycache_notify_delete", 'A'},
            {"psycache_notify_truncate", 'A'},
            {"psycache_notify_update", enabled}};
}

struct FindingCase {
    const char* id;
    Severity severity;
    const char* found;  ///< is in the sentence
    const char* sql;    ///< is in the SQL; "": there is none
    std::function<void(DoctorFacts&)> change;
};

using enum Severity;

const std::vector<FindingCase>& finding_cases() {
    static const std::vector<FindingCase> all = {
        {"server.version", note, "older than", "", [](auto& f) { f.server->version = 120009; }},
        {"server.version", ok, "15.3", "", [](auto& f) { f.server->version = 130000; }},
        {"server.version", ok, "15.3", "", [](auto& f) { f.server->version = 180004; }},
        {"server.version", note, "newer than", "", [](auto& f) { f.server->version = 190000; }},
        {"server.recovery", problem, "standby", "", [](auto& f) { f.server->in_recovery = true; }},
        {"table.missing", problem, "psycache in schema app", "CREATE TABLE;",
         [](auto& f) { f.table.reset(); }},
        {"table.missing", problem, "search path", "CREATE TABLE;",
         [](auto& f) {
             f.table.reset();
             f.schema = "";
         }},
        {"table.unlogged", note, "logged", "ALTER TABLE app.psycache SET UNLOGGED;",
         [](auto& f) { f.table->persistence = 'p'; }},
        {"tags.table.unlogged", note, "logged", "ALTER TABLE app.psycache_tags SET UNLOGGED;",
         [](auto& f) { f.tags->persistence = 'p'; }},
        {"table.kind", note, "a view", "", [](auto& f) { f.table->kind = 'v'; }},
        {"table.kind", note, "a partitioned table", "", [](auto& f) { f.table->kind = 'p'; }},
        {"table.kind", problem, "a materialized view", "", [](auto& f) { f.table->kind = 'm'; }},
        {"table.columns", problem, "value is of type json, not jsonb",
         "RENAME TO ix_psycache_expires_at_old;\nCREATE TABLE;",
         [](auto& f) { (*f.table->columns)[1].type = "json"; }},
        {"table.columns", problem, "no column expires_at", "CREATE TABLE;",
         [](auto& f) { f.table->columns->pop_back(); }},
        {"table.columns", problem, "its column more is NOT NULL", "CREATE TABLE;",
         [](auto& f) {
             f.table->columns->push_back({"more", "int", true, false});
         }},
        {"table.columns", ok, "has the columns", "",
         [](auto& f) {
             f.table->columns->push_back({"more", "int", true, true});
         }},
        {"tags.table.columns", problem, "no column expires_at", "CREATE TAGS;",
         [](auto& f) { f.tags->columns->pop_back(); }},
        {"index.key", problem, "no primary key", "ADD PRIMARY KEY (key);",
         [](auto& f) { f.table->indexes->pop_back(); }},
        {"index.key", problem, "no primary key", "ADD PRIMARY KEY (key);",
         [](auto& f) { f.table->indexes->back().columns = "key,value"; }},
        {"tags.index.key", problem, "no primary key", "ADD PRIMARY KEY (tag,key);",
         [](auto& f) { f.tags->indexes->back().unique = false; }},
        {"index.expiry", warning, "no index on expires_at",
         "CREATE INDEX CONCURRENTLY ix_psycache_expires_at ON app.psycache (expires_at);",
         [](auto& f) { f.table->indexes->erase(f.table->indexes->begin()); }},
        {"index.expiry", note, "--no-expiry-index", "CREATE INDEX",
         [](auto& f) {
             f.table->indexes->erase(f.table->indexes->begin());
             f.table->fillfactor = true;
         }},
        {"index.expiry", warning, "not valid",
         "DROP INDEX CONCURRENTLY app.ix_psycache_expires_at;\nCREATE INDEX",
         [](auto& f) { f.table->indexes->front().valid = false; }},
        {"index.expiry", ok, "has an index", "",
         [](auto& f) { f.table->indexes->front().columns = "expires_at,key"; }},
        {"privileges.missing", problem, "lacks SELECT, UPDATE and DELETE on app.psycache",
         "GRANT SELECT, UPDATE, DELETE ON app.psycache TO \"App\";",
         [](auto& f) {
             f.table->privileges->missing = {"SELECT", "UPDATE", "DELETE"};
         }},
        {"privileges.missing", problem, "lacks USAGE of the schema on",
         "GRANT USAGE ON SCHEMA app TO \"App\";",
         [](auto& f) { f.table->privileges->usage_of_schema = false; }},
        {"privileges.truncate", note, "only clear needs", "GRANT TRUNCATE ON app.psycache",
         [](auto& f) { f.table->privileges->truncate = false; }},
        {"privileges.row_security", warning, "Policies", "DISABLE ROW LEVEL SECURITY",
         [](auto& f) { f.table->privileges->row_security = true; }},
        {"vacuum.autovacuum", problem, "autovacuum = off", "ALTER SYSTEM SET autovacuum = on;",
         [](auto& f) { f.server->autovacuum = false; }},
        {"vacuum.autovacuum", problem, "track_counts = off", "SET track_counts = on;",
         [](auto& f) { f.server->track_counts = false; }},
        {"vacuum.autovacuum", warning, "switched off", "RESET (autovacuum_enabled);",
         [](auto& f) { f.table->autovacuum = false; }},
        {"vacuum.never", ok, "last vacuumed 2 min ago", "", [](auto&) {}},
        {"vacuum.never", ok, "has not needed it: 10 dead rows", "",
         [](auto& f) {
             f.table->statistics = RowStatistics{1000, 10, true, {}, {}};
         }},
        {"vacuum.never", ok, "has not needed it", "",
         [](auto& f) {
             f.table->statistics = RowStatistics{1'000'000, 20'000, true, {}, {}};
         }},
        {"vacuum.never", warning, "20000 dead rows", "VACUUM (ANALYZE) app.psycache;",
         [](auto& f) {
             f.table->statistics = RowStatistics{60'000, 20'000, true, {}, {}};
         }},
        {"table.bloat", warning, "20000 dead rows beside 30000",
         "SET (autovacuum_vacuum_scale_factor",
         [](auto& f) {
             f.table->statistics = RowStatistics{30'000, 20'000, true, 1h, {}};
         }},
        {"table.bloat", ok, "20000 dead rows", "",
         [](auto& f) {
             f.table->statistics = RowStatistics{50'000, 20'000, true, 1h, {}};
         }},
        {"table.bloat", warning, "takes 1024 MiB", "VACUUM (FULL, ANALYZE) app.psycache;",
         [](auto& f) { f.table->sizes->rows = 1 << 30; }},
        {"table.bloat", ok, "live ones", "",
         [](auto& f) {
             f.table->sizes->rows = 1 << 30;
             f.table->statistics->live = 4'000'000;
         }},
        {"tags.table.bloat", warning, "takes 1024 MiB", "app.psycache_tags;",
         [](auto& f) { f.tags->sizes->rows = 1 << 30; }},
        {"cleanup.overdue", ok, "No entry", "", [](auto& f) { f.oldest_expired = 23h; }},
        {"cleanup.overdue", warning, "expired 2 d ago", "DELETE FROM app.psycache",
         [](auto& f) { f.oldest_expired = 48h; }},
        {"vacuum.held_back", ok, "No transaction", "",
         [](auto& f) { f.oldest_transaction = 59min; }},
        {"vacuum.held_back", warning, "open for 2 h", "pg_prepared_xacts",
         [](auto& f) { f.oldest_transaction = 2h; }},
        {"citus.distribution", note, "coordinator alone",
         "SELECT create_distributed_table('app.psycache', 'key', shard_count := 6,",
         [](auto& f) {
             f.table->distribution = Distribution{0, "", 0, 3};
         }},
        {"citus.distribution", warning, "reference table",
         "undistribute_table('app.psycache');\nSELECT create_distributed_table(",
         [](auto& f) {
             f.table->distribution = Distribution{'n', "", 1, 2};
         }},
        {"citus.distribution", problem, "by value, not by key", "undistribute_table(",
         [](auto& f) {
             f.table->distribution = Distribution{'h', "value", 4, 2};
         }},
        {"citus.distribution", note, "32 shards on 2 nodes", "shard_count := 4",
         [](auto& f) {
             f.table->distribution = Distribution{'h', "key", 32, 2};
         }},
        {"citus.distribution", ok, "8 shards on 2 nodes", "",
         [](auto& f) {
             f.table->distribution = Distribution{'h', "key", 8, 2};
         }},
        {"citus.distribution", warning, "reference table", "undistribute_table(E'a''\\\\b')",
         [](auto& f) {
             f.table->name = "a'\\b";
             f.table->distribution = Distribution{'n', "", 1, 2};
         }},
        {"notify.triggers", ok, "no triggers", "", [](auto&) {}},
        {"notify.triggers", ok, "told of", "",
         [](auto& f) { f.table->triggers = three_triggers('A'); }},
        {"notify.triggers", note, "session_replication_role", "CREATE TRIGGERS;",
         [](auto& f) { f.table->triggers = three_triggers('O'); }},
        {"notify.triggers", warning, "1 of the 3 triggers", "CREATE TRIGGERS;",
         [](auto& f) { f.table->triggers = three_triggers('D'); }},
        {"notify.triggers", warning, "Only 2 of 3", "CREATE TRIGGERS;",
         [](auto& f) {
             f.table->triggers = three_triggers('A');
             f.table->triggers->pop_back();
         }},
        {"notify.queue", ok, "1 % full", "", [](auto& f) { f.notify_queue = 0.01; }},
        {"notify.queue", warning, "30 % full", "pg_stat_activity",
         [](auto& f) { f.notify_queue = 0.3; }},
        {"notify.queue", problem, "99 % full", "pg_stat_activity",
         [](auto& f) { f.notify_queue = 0.99; }},
        {"pooler.transaction_mode", ok, "No pooler", "", [](auto&) {}},
        {"pooler.transaction_mode", ok, "has kept the session", "",
         [](auto& f) { f.pooler->between = true; }},
        {"pooler.transaction_mode", note, "transaction mode", "",
         [](auto& f) {
             *f.pooler = {true, true};
         }},
        {"pooler.transaction_mode", warning, "no near cache can listen", "",
         [](auto& f) {
             *f.pooler = {true, true};
             f.table->triggers = three_triggers('A');
         }},
        {"connections.budget", ok, "20 of the 97", "", [](auto&) {}},
        {"connections.budget", ok, "93 of the 97", "",
         [](auto& f) { f.connections->clients = 93; }},
        {"connections.budget", warning, "94 of the 97", "ALTER SYSTEM SET max_connections = 200;",
         [](auto& f) { f.connections->clients = 94; }},
        {"connections.role_limit", warning, "5 of the 6", "ALTER ROLE \"App\" CONNECTION LIMIT 12;",
         [](auto& f) { f.connections->role_limit = 6; }},
        {"connections.role_limit", ok, "5 of the 9", "",
         [](auto& f) { f.connections->role_limit = 9; }},
        {"connections.database_limit", warning, "6 of the 3",
         "ALTER DATABASE db CONNECTION LIMIT 8;",
         [](auto& f) { f.connections->database_limit = 3; }},
        {"clock.skew", ok, "agree to 21 ms", "", [](auto&) {}},
        {"clock.skew", ok, "agree", "",
         [](auto& f) {
             *f.clock = {2s, 1100ms};
         }},
        {"clock.skew", warning, "3 s 500 ms ahead of the server's, give or take 1 ms", "",
         [](auto& f) {
             *f.clock = {3500ms, 1ms};
         }},
        {"clock.skew", warning, "1 h behind", "",
         [](auto& f) {
             *f.clock = {-1h, 1ms};
         }},
        {"role.lock_timeout", ok, "is not set", "", [](auto&) {}},
        {"role.lock_timeout", warning, "lock_timeout is 1 s",
         "ALTER ROLE \"App\" IN DATABASE db SET lock_timeout = '5000ms';",
         [](auto& f) { set_timeout(f, "lock_timeout", 1s); }},
        {"role.lock_timeout", ok, "no less", "",
         [](auto& f) { set_timeout(f, "lock_timeout", 5s); }},
        {"role.statement_timeout", warning, "statement_timeout is 4 s 999 ms",
         "SET statement_timeout = '60000ms';",
         [](auto& f) { set_timeout(f, "statement_timeout", 4999ms); }},
        {"role.statement_timeout", note, "cleanups", "SET statement_timeout = '60000ms';",
         [](auto& f) { set_timeout(f, "statement_timeout", 5s); }},
        {"role.statement_timeout", ok, "no less", "",
         [](auto& f) { set_timeout(f, "statement_timeout", 1min); }},
        {"role.transaction_timeout", warning, "transaction_timeout is 1 ms",
         "SET transaction_timeout = '60000ms';",
         [](auto& f) { set_timeout(f, "transaction_timeout", 1ms); }},
        {"role.idle_in_transaction_session_timeout", note, "TransactionCache", "",
         [](auto& f) { set_timeout(f, "idle_in_transaction_session_timeout", 1s); }},
        {"role.idle_in_transaction_session_timeout", ok, "TransactionCache", "",
         [](auto& f) { set_timeout(f, "idle_in_transaction_session_timeout", 1min); }},
        {"role.idle_session_timeout", note, "pays for a new one",
         "SET idle_session_timeout = '1200000ms';",
         [](auto& f) { set_timeout(f, "idle_session_timeout", 1min); }},
        {"role.idle_session_timeout", ok, "no less", "",
         [](auto& f) { set_timeout(f, "idle_session_timeout", 10min); }},
        {"not_looked_at", note, "columns of psycache [42501]", "",
         [](auto& f) { f.unseen.push_back({"columns of psycache", "42501"}); }},
    };
    return all;
}

}  // namespace

TEST_CASE("nothing is wrong where all is well", "[doctor_findings]") {
    const auto findings = doctor_findings(healthy_facts());
    CHECK_FALSE(something_is_wrong(findings));
    std::set<std::string> ids;
    for (const Finding& finding : findings) {
        CAPTURE(finding.id, finding.found);
        CHECK(finding.severity == ok);
        CHECK(finding.remedy.empty());
        CHECK(finding.sql.empty());
        CHECK(ids.insert(finding.id).second);
    }
    CHECK(findings.size() >= 25);
}

TEST_CASE("each thing that is wrong is found, and nothing else", "[doctor_findings]") {
    for (const FindingCase& one : finding_cases()) {
        DoctorFacts facts = healthy_facts();
        one.change(facts);
        const auto findings = doctor_findings(facts);
        CAPTURE(one.id, one.found, severity_text(one.severity));
        const auto finding = std::find_if(findings.begin(), findings.end(),
                                          [&](const Finding& f) { return f.id == one.id; });
        REQUIRE(finding != findings.end());
        CAPTURE(finding->found, finding->sql);
        CHECK(finding->severity == one.severity);
        CHECK(finding->found.find(one.found) != std::string::npos);
        CHECK(finding->sql.find(one.sql) != std::string::npos);
        CHECK(finding->sql.empty() == std::string(one.sql).empty());
        if (one.severity == warning) {
            CHECK_FALSE(finding->remedy.empty());
        }
        CHECK(something_is_wrong(findings) == (one.severity >= warning));
    }
}

TEST_CASE("what could not be looked at is left out", "[doctor_findings]") {
    DoctorFacts facts;
    CHECK(doctor_findings(facts).empty());
    facts = healthy_facts();
    TableFacts bare;
    bare.name = "app.psycache";
    facts.table = bare;
    facts.server.reset();
    facts.pooler.reset();
    facts.connections.reset();
    facts.clock.reset();
    facts.notify_queue.reset();
    facts.timeouts.clear();
    CHECK_FALSE(something_is_wrong(doctor_findings(facts)));
}

TEST_CASE("the table that nothing vacuums is a problem once for each table", "[doctor_findings]") {
    DoctorFacts facts = healthy_facts();
    facts.server->autovacuum = false;
    facts.tags.reset();
    const auto findings = doctor_findings(facts);
    CHECK(std::count_if(findings.begin(), findings.end(),
                        [](const Finding& finding) { return finding.severity == problem; }) == 1);
}
