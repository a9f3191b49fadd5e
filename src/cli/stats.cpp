#include "cli/stats.hpp"

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/duration_text.hpp"
#include "cli/looks.hpp"
#include "cli/outcome.hpp"
#include "cli/session.hpp"

namespace psycache::cli {

namespace {

namespace json = boost::json;

/// How many pages of the table are read for a sample.
constexpr std::int64_t sampled_pages = 100;

struct Sample {
    std::int64_t rows = 0;
    std::int64_t expired = 0;
};

struct StatsFacts {
    TableFacts table;
    std::optional<TableFacts> tags;
    std::optional<Sample> sample;
    std::optional<Sessions> sessions;
    std::vector<Unseen> unseen;
};

/// Only of a plain table: a view or the nodes of a distributed one may read anything.
Sample look_at_sample(Session& session, const TableFacts& table) {
    constexpr std::int64_t page = 8192;
    const std::int64_t pages = std::max<std::int64_t>(table.sizes->rows / page, 1);
    char share[32];
    std::snprintf(
        share, sizeof share, "%.6f",
        std::min(100.0, 100.0 * static_cast<double>(sampled_pages) / static_cast<double>(pages)));
    const auto rows = session.query(
        "SELECT count(*), count(*) FILTER (WHERE expires_at <= statement_timestamp()) FROM"
        " (SELECT expires_at FROM " +
        table.name + " TABLESAMPLE SYSTEM (" + share + ") LIMIT 20000) AS s");
    return {to_integer(rows.at(0)[0]), to_integer(rows.at(0)[1])};
}

StatsFacts gather(const Place& place) {
    Session session(place, "psycache stats");
    StatsFacts facts;
    facts.table = look_for_table(session, place, facts.unseen);
    look(session, facts.unseen, "table of tags",
         [&] { facts.tags = look_at_table(session, place, "psycache_tags", facts.unseen); });
    if (facts.table.kind == 'r' && facts.table.sizes && !facts.table.is_elsewhere()) {
        look(session, facts.unseen, "sample of entries",
             [&] { facts.sample = look_at_sample(session, facts.table); });
    }
    look(session, facts.unseen, "sessions", [&] { facts.sessions = look_at_sessions(session); });
    return facts;
}

/// What is not known is null.
template <class T, class Tell>
json::value known(const std::optional<T>& fact, Tell tell) {
    return fact ? json::value(tell(*fact)) : json::value();
}

json::value seconds(const std::optional<Duration>& duration) {
    return known(duration, [](Duration d) {
        return std::chrono::duration_cast<std::chrono::seconds>(d).count();
    });
}

/// The statistics count committed changes; what VACUUM or ANALYZE last saw is older.
std::optional<std::int64_t> rows_of(const TableFacts& table) {
    if (table.estimate > 0 && !(table.statistics && table.statistics->counted)) {
        return std::llround(table.estimate);
    }
    return table.statistics ? std::optional(table.statistics->live) : std::nullopt;
}

json::object as_object(const TableFacts& table) {
    json::object object;
    object["name"] = table.name;
    object["unlogged"] = table.persistence == 'u';
    object["shards"] =
        table.is_elsewhere() ? json::value(table.distribution->shards) : json::value();
    object["rows_estimated"] = known(rows_of(table), [](auto rows) { return rows; });
    object["dead_rows"] = known(table.statistics, [](auto& s) { return s.dead; });
    object["table_bytes"] = known(table.sizes, [](auto& s) { return s.rows; });
    object["index_bytes"] = known(table.sizes, [](auto& s) { return s.indexes; });
    object["toast_bytes"] = known(table.sizes, [](auto& s) { return s.toast; });
    object["seconds_since_vacuum"] =
        seconds(table.statistics ? table.statistics->since_vacuum : std::nullopt);
    object["seconds_since_autovacuum"] =
        seconds(table.statistics ? table.statistics->since_autovacuum : std::nullopt);
    return object;
}

std::string stats_json(const StatsFacts& facts) {
    json::object report;
    report["table"] = as_object(facts.table);
    report["tags"] = known(facts.tags, [](auto& tags) { return as_object(tags); });
    report["expired_share_estimated"] = json::value();
    if (facts.sample && facts.sample->rows > 0) {
        report["expired_share_estimated"] =
            static_cast<double>(facts.sample->expired) / static_cast<double>(facts.sample->rows);
    }
    report["sampled_rows"] = known(facts.sample, [](auto& sample) { return sample.rows; });
    report["notify_triggers"] =
        known(facts.table.triggers, [](auto& triggers) { return triggers.size(); });
    report["client_sessions"] = known(facts.sessions, [](auto& s) { return s.clients; });
    report["psycache_sessions"] = known(facts.sessions, [](auto& s) { return s.psycache; });
    return json::serialize(report) + "\n";
}

std::string bytes(std::int64_t size) {
    static const char* const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    auto value = static_cast<double>(size);
    std::size_t unit = 0;
    while (value >= 1024 && unit < 4) {
        value /= 1024;
        ++unit;
    }
    char text[64];
    std::snprintf(text, sizeof text, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value,
                  units[unit]);
    return text;
}

constexpr const char* unknown = "unknown";

void add(std::string& text, std::string name, const std::string& value) {
    name.resize(26, ' ');
    text += name + value + "\n";
}

std::string ago(const std::optional<RowStatistics>& statistics,
                std::optional<Duration> RowStatistics::*since) {
    if (!statistics) {
        return unknown;
    }
    const std::optional<Duration> duration = (*statistics).*since;
    return duration ? duration_text(*duration) + " ago" : "never";
}

void add_table(std::string& text, const TableFacts& table, const std::string& rows) {
    const auto count = rows_of(table);
    add(text, rows, count ? "about " + std::to_string(*count) : unknown);
    add(text, "dead rows",
        table.statistics ? "about " + std::to_string(table.statistics->dead) : unknown);
    add(text, "size",
        table.sizes ? bytes(table.sizes->rows) + ", indexes " + bytes(table.sizes->indexes) +
                          ", large values (TOAST) " + bytes(table.sizes->toast)
                    : unknown);
    add(text, "last vacuum, autovacuum",
        ago(table.statistics, &RowStatistics::since_vacuum) + ", " +
            ago(table.statistics, &RowStatistics::since_autovacuum));
}

std::string stats_text(const StatsFacts& facts) {
    std::string text;
    add(text, "table",
        facts.table.name + (facts.table.persistence == 'u' ? ", UNLOGGED" : ", logged"));
    if (facts.table.is_elsewhere()) {
        add(text, "distributed",
            std::to_string(facts.table.distribution->shards) + " shards, which have the entries");
    }
    add_table(text, facts.table, "entries");
    if (!facts.sample) {
        add(text, "expired entries", unknown);
    } else if (facts.sample->rows == 0) {
        add(text, "expired entries", "none seen");
    } else {
        add(text, "expired entries",
            "about " +
                std::to_string(std::llround(100.0 * static_cast<double>(facts.sample->expired) /
                                            static_cast<double>(facts.sample->rows))) +
                " %, by a sample of " + std::to_string(facts.sample->rows) + " rows");
    }
    add(text, "notify triggers",
        facts.table.triggers ? std::to_string(facts.table.triggers->size()) + " of 3" : unknown);
    if (facts.tags) {
        add(text, "table of tags", facts.tags->name);
        add_table(text, *facts.tags, "tags of entries");
    } else {
        add(text, "table of tags", "none");
    }
    add(text, "sessions",
        facts.sessions ? std::to_string(facts.sessions->clients) + ", of psycache " +
                             std::to_string(facts.sessions->psycache)
                       : unknown);
    return text;
}

}  // namespace

int stats(const Place& place, bool as_json) {
    return run("stats", ServerWords::all, [&] {
        const StatsFacts facts = gather(place);
        return print("stats", as_json ? stats_json(facts) : stats_text(facts));
    });
}

}  // namespace psycache::cli
