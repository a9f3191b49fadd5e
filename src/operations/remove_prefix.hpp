#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "operations/checks.hpp"
#include "operations/sweep.hpp"

namespace psycache::detail {

/// Deletes the entries whose keys begin with a prefix.
///
/// LIKE compares characters whatever the collation is, and PostgreSQL finds what it matches by an
/// index that is sorted so, if it knows the pattern when it plans the statement. Rows are deleted
/// by their place, which takes a third of the time that their keys would. One that was written
/// again since the statement began is locked in its new place, and not deleted but named like a
/// locked one.
struct RemovePrefix {
    explicit RemovePrefix(const Table& table)
        : batch(
              concat({"WITH gone AS (DELETE FROM ", table.name,
                      " AS t WHERE t.ctid = ANY(ARRAY(SELECT ctid FROM ", table.name,
                      " WHERE key LIKE $1 LIMIT ", size(),
                      " FOR UPDATE SKIP LOCKED)) AND t.key LIKE $1 RETURNING t.key)", done,
                      Sweep::rows("NULL::text", concat({"entries = ", size()}), "entries FROM done",
                                  concat({"SELECT t.key FROM ", table.name,
                                          " AS t WHERE t.key LIKE $1 AND (SELECT entries < ",
                                          size(), " FROM done)", left, " LIMIT ", size()}))}),
              {pg::Oid::text}, pg::Planned::each_time),
          again(
              concat({"WITH free AS (SELECT key FROM ", table.name,
                      " WHERE key = ANY($1) FOR UPDATE SKIP LOCKED), gone AS (DELETE FROM ",
                      table.name, " AS t USING free WHERE t.key = free.key RETURNING t.key)", done,
                      Sweep::rows("NULL::text", "false", "entries FROM done",
                                  concat({"SELECT t.key FROM ", table.name,
                                          " AS t WHERE t.key = ANY($1)", left}))}),
              {pg::Oid::text_array}),
          whole(concat({"DELETE FROM ", table.name, " WHERE key LIKE $1"}), {pg::Oid::text},
                pg::Planned::each_time) {}

    /// @returns the pattern of LIKE that texts with this prefix match.
    static std::string pattern(std::string_view prefix) {
        std::string pattern;
        for (const char c : prefix) {
            if (c == '%' || c == '_' || c == '\\') {
                pattern += '\\';
            }
            pattern += c;
        }
        return pattern + '%';
    }

    const pg::Statement batch;  ///< pattern -> rows of Sweep; names what is locked in the last one
    const pg::Statement again;  ///< keys -> the same for these
    const pg::Statement whole;  ///< pattern -> affected rows, where rows have no place (Cleanup)

  private:
    static std::string size() { return std::to_string(sweep_size); }
    static constexpr std::string_view done = ", done AS (SELECT count(*) AS entries FROM gone)";
    static constexpr std::string_view left = " AND t.key NOT IN (SELECT key FROM gone)";
};

struct RemovePrefixed : Invalidation {
    static constexpr std::string_view name = "remove_prefix";

    explicit RemovePrefixed(std::string its_prefix) : prefix(std::move(its_prefix)) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return open_invalidation_spans(observers, InvalidationInfo{name, prefix, span_name.call});
    }
    std::optional<Failure> mistake() const { return check_prefix(prefix); }

    std::string prefix;
};

}  // namespace psycache::detail
