#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

#include "operations/table.hpp"

namespace psycache::detail {

/// How large the table may be.
struct TableLimits {
    std::optional<std::uint64_t> entries;
    std::optional<std::uint64_t> bytes;

    bool any() const noexcept { return entries || bytes; }
};

/// How large the server takes it for.
struct TableEstimate {
    std::uint64_t entries = 0;
    std::uint64_t entry_bytes = 0;  ///< of one, on the average; 0 where it was not asked for
};

/// @returns how many entries have to go.
inline std::uint64_t excess(const TableLimits& limits, const TableEstimate& estimate) noexcept {
    std::uint64_t room = estimate.entries;
    if (limits.entries) {
        room = std::min(room, *limits.entries);
    }
    if (limits.bytes && estimate.entry_bytes > 0) {
        room = std::min(room, *limits.bytes / estimate.entry_bytes);
    }
    return estimate.entries - room;
}

/// @returns how many of them go at once. What another cleaner has deleted shows in the statistics a
/// moment after it is done: so much may be too much.
inline std::uint64_t first_batch(const TableEstimate& estimate, std::uint64_t excess) noexcept {
    constexpr std::uint64_t least = 10;
    constexpr std::uint64_t most = 1000;
    const std::uint64_t room = estimate.entries - excess;
    return std::min(excess, std::clamp(std::max(room / 10, excess / 2), least, most));
}

/// Deletes live entries where there are too many, those that expire soonest first. Rows that other
/// transactions hold are skipped.
struct Evict {
    explicit Evict(const Table& table)
        : entries(estimate(table.name, "0"), {}),
          entries_and_bytes(estimate(table.name, entry_bytes(table.name)), {}),
          batch(one_batch(table.name, "0.55", "count(*)"), {pg::Oid::int8, pg::Oid::int8}),
          batch_shown(one_batch(table.name, "0.01", "count(*), pg_stat_force_next_flush()"),
                      {pg::Oid::int8, pg::Oid::int8}) {}

    /// -> how many entries there are, -1 where that is not known of such a table; how many bytes
    /// one takes; how many entries the statistics show; whether they can be told to show changes at
    /// once
    const pg::Statement entries;
    const pg::Statement entries_and_bytes;
    /// how many at most, how many entries the statistics must still show -> how many were deleted;
    /// none while another session does this
    const pg::Statement batch;
    const pg::Statement batch_shown;  ///< the same, and the statistics show it when this has ended

    mutable std::atomic<bool> complained{false};  ///< that the table cannot be bounded

  private:
    // Statistics are counted as changes are committed. Where they were lost, with a crash, the
    // planner's way to reckon is as good until the next ANALYZE.
    static std::string estimate(std::string_view table, std::string_view bytes) {
        return concat(
            {"SELECT CASE WHEN c.relkind <> 'r' THEN -1 WHEN s.live > 0 THEN s.live"
             " WHEN c.reltuples > 0 AND c.relpages > 0 THEN (c.reltuples *"
             " pg_relation_size(c.oid) / (c.relpages *"
             " current_setting('block_size')::float8))::bigint ELSE 0 END, (",
             bytes,
             ")::bigint, s.live, (current_setting('server_version_num')::int >= 150000)"
             "::int::bigint FROM pg_class AS c, LATERAL (SELECT"
             " pg_stat_get_live_tuples(c.oid) AS live) AS s WHERE c.oid = ",
             quoted_literal(table), "::regclass"});
    }

    // Of about a hundred pages. A row has its header, its place in the page and its padding, and
    // what is stored out of line is known without being fetched.
    static std::string entry_bytes(std::string_view table) {
        return concat(
            {"SELECT coalesce(avg(44 + pg_column_size(key) + pg_column_size(value)), 0)"
             " FROM ",
             table,
             " TABLESAMPLE SYSTEM ((SELECT least(100, 10000.0 *"
             " current_setting('block_size')::int / greatest(pg_relation_size(",
             quoted_literal(table), "), 1))::real))"});
    }

    // Another session commits, and lets go of the lock, before it shows what it has done: so one
    // waits before it looks. A server that cannot be told to show it does so at the end of a
    // statement if the last time was half a second ago.
    static std::string one_batch(std::string_view table, std::string_view pause,
                                 std::string_view told) {
        const std::string oid = quoted_literal(table) + "::regclass::oid";
        return concat(
            {"WITH turn AS MATERIALIZED (SELECT CASE WHEN"
             " pg_try_advisory_xact_lock(1886615905, ",
             oid, "::int) THEN pg_sleep(", pause, ") IS NOT NULL AND pg_stat_get_live_tuples(", oid,
             ") >= $2 ELSE false END AS mine), gone AS (DELETE FROM ", table,
             " WHERE ctid = ANY(ARRAY(SELECT ctid FROM ", table,
             " WHERE (SELECT mine FROM turn) AND expires_at > statement_timestamp()"
             " ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)) RETURNING 1)"
             " SELECT ",
             told, " FROM gone"});
    }
};

}  // namespace psycache::detail
