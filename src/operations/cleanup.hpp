#pragma once

#include <atomic>

#include "core/counts.hpp"
#include "core/observers.hpp"
#include "operations/load_lease.hpp"
#include "operations/table.hpp"

namespace psycache::detail {

/// Deletes expired entries in batches, and rows of tags that are left behind by entries which are
/// gone. Rows that other transactions hold are skipped.
struct Cleanup {
    /// How many rows one batch deletes.
    static constexpr std::uint64_t batch_size = 1000;

    // The place of a row is unique within one partition only: what is deleted must have expired,
    // too.
    explicit Cleanup(const Table& table)
        : by_place(concat({"WITH gone AS (DELETE FROM ", table.name,
                           " WHERE ctid = ANY(ARRAY(SELECT ctid FROM ", table.name, " WHERE ",
                           expired(table), " LIMIT ", std::to_string(batch_size),
                           " FOR UPDATE SKIP LOCKED)) AND expires_at < statement_timestamp()"
                           " RETURNING 1) SELECT count(*), (",
                           may_clean(table.tags), ")::int::bigint FROM gone"}),
                   {}),
          by_key(concat({"WITH doomed AS (SELECT key FROM ", table.name, " WHERE ", expired(table),
                         " LIMIT ", std::to_string(batch_size), ") DELETE FROM ", table.name,
                         " AS t USING doomed WHERE t.key = doomed.key"
                         " AND t.expires_at < statement_timestamp()"}),
                 {}),
          tags(concat({"WITH due AS (SELECT tag, key FROM ", table.tags,
                       " WHERE expires_at < statement_timestamp() LIMIT ",
                       std::to_string(batch_size),
                       " FOR UPDATE SKIP LOCKED), found AS MATERIALIZED (SELECT due.tag, due.key,"
                       " t.expires_at FROM due LEFT JOIN ",
                       table.name, " AS t ON t.key = due.key), gone AS (DELETE FROM ", table.tags,
                       " AS g USING found WHERE g.tag = found.tag AND g.key = found.key"
                       " AND found.expires_at IS NULL), kept AS (UPDATE ",
                       table.tags, " AS g SET expires_at = greatest(",
                       Table::look_after("found.expires_at"),
                       ", statement_timestamp() + interval '1 minute')"
                       " FROM found WHERE g.tag = found.tag AND g.key = found.key"
                       " AND found.expires_at IS NOT NULL) SELECT count(*) FROM due"}),
               {}) {}

    /// @returns whether the server cannot name a row by its place: on a view, or a distributed
    /// table.
    static bool has_no_places(const Failure& failure) {
        return failure.sqlstate == "42703" || failure.sqlstate == "0A000";
    }

    /// -> how many were deleted, and whether there is a table of tags to clean
    const pg::Statement by_place;
    const pg::Statement by_key;  ///< -> affected rows, where rows have no place
    /// -> how many rows of tags were due. Only one whose entry is gone is deleted: a touch makes an
    /// entry live longer than the row of its tag says. The row of one that is still there, be it
    /// expired, is looked at again later.
    const pg::Statement tags;
    mutable std::atomic<bool> keys_only{false};  ///< whether it was found that they have no place

  private:
    /// @returns in SQL, whether a row has expired. A stub is spared while its lease runs, so that
    /// what is being loaded can be stored.
    static std::string expired(const Table& table) {
        return concat(
            {"expires_at < statement_timestamp() AND NOT ", LoadLease::leased(table.name)});
    }
    /// @returns in SQL, whether a table is there and the role may clean it; no error if not.
    static std::string may_clean(std::string_view tags) {
        const std::string table = concat({"to_regclass(", quoted_literal(tags), ")"});
        return concat({"coalesce(has_table_privilege(", table,
                       ", 'SELECT') AND has_table_privilege(", table,
                       ", 'UPDATE') AND has_table_privilege(", table, ", 'DELETE'), false)"});
    }
};

struct CleanupExpired {
    using Span = CacheCleanupSpan;
    static constexpr std::string_view name = "cleanup_expired";

    static Spans<Span> open_spans(const Observers& observers, SpanName span_name) {
        return open_cleanup_spans(observers, span_name);
    }
    static std::optional<Failure> mistake() { return std::nullopt; }
    static void tell(Counts& /*counts*/, Spans<Span>& spans, std::uint64_t entries) {
        spans.record([&](Span& span) { span.record_cleanup(entries); });
    }
};

}  // namespace psycache::detail
