#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "operations/checks.hpp"
#include "operations/sweep.hpp"

namespace psycache::detail {

/// Deletes the entries that have a tag, and the rows that give it to them.
///
/// What a batch must not do is to take the row of a tag away from an entry that stays: one that was
/// put after the statement began. So such a row goes only where its entry is locked here or the
/// statement saw none, and only in the version that it saw. A put writes a new version of the row,
/// in another place. Should that be the one that is locked here, as PostgreSQL may take a condition
/// on ctid for fulfilled by what follows the version that fulfilled it, the statement does not see
/// it in its place, and deletes nothing.
struct RemoveTag {
    explicit RemoveTag(const Table& table)
        : first(statement(table, concat({" ORDER BY key LIMIT ", size()}), by_place),
                {pg::Oid::text}),
          next(statement(table, concat({" AND key > $2 ORDER BY key LIMIT ", size()}), by_place),
               {pg::Oid::text, pg::Oid::text}),
          again(statement(table, " AND key = ANY($2)", by_key),
                {pg::Oid::text, pg::Oid::text_array}) {}

    const pg::Statement first;  ///< tag -> rows of Sweep, for the first keys
    const pg::Statement next;   ///< tag, key -> the same behind that key
    const pg::Statement again;  ///< tag, keys -> the same for these

  private:
    /// How rows of entries are found. By place takes a third of the time; what was written again
    /// since the statement began is locked in its new place then, and not deleted but named like a
    /// locked one.
    struct Lookup {
        std::string_view seen;
        std::string_view free;
    };
    static constexpr Lookup by_place{"doomed.entry = t.ctid AND doomed.key = t.key",
                                     "t.ctid = free.entry AND t.key = free.key"};
    static constexpr Lookup by_key{"doomed.entry IS NOT NULL AND doomed.key = t.key",
                                   "t.key = free.key"};

    static std::string size() { return std::to_string(sweep_size); }

    /// @param which the rows of the tag that the batch is about.
    static std::string statement(const Table& table, std::string_view which, Lookup lookup) {
        return concat(
            {"WITH doomed AS MATERIALIZED (SELECT g.key, g.place, t.ctid AS entry FROM"
             " (SELECT key, ctid AS place FROM ",
             table.tags,
             " WHERE tag = $1",
             which,
             ") AS g LEFT JOIN ",
             table.name,
             " AS t ON t.key = g.key), free AS (SELECT t.key, t.ctid AS entry FROM ",
             table.name,
             " AS t JOIN doomed ON ",
             lookup.seen,
             " FOR UPDATE OF t SKIP LOCKED), gone AS (DELETE FROM ",
             table.name,
             " AS t USING free WHERE ",
             lookup.free,
             " RETURNING t.key),"
             " loose AS MATERIALIZED (SELECT doomed.key, doomed.place FROM doomed"
             " LEFT JOIN free ON free.key = doomed.key"
             " WHERE doomed.entry IS NULL OR free.key IS NOT NULL),"
             " mine AS (SELECT g.key, g.ctid AS place FROM ",
             table.tags,
             " AS g JOIN loose ON loose.place = g.ctid AND loose.key = g.key"
             " WHERE g.tag = $1 FOR UPDATE OF g SKIP LOCKED),"
             " untagged AS (DELETE FROM ",
             table.tags,
             " AS g USING mine WHERE g.ctid = mine.place AND g.tag = $1 AND g.key = mine.key)",
             Sweep::rows("(SELECT max(key) FROM doomed)",
                         concat({"SELECT count(*) >= ", size(), " FROM doomed"}),
                         "(SELECT count(*) FROM gone)",
                         "SELECT key FROM doomed WHERE entry IS NOT NULL"
                         " AND key NOT IN (SELECT key FROM gone)")});
    }
};

struct RemoveTagged : Invalidation {
    static constexpr std::string_view name = "remove_tag";

    explicit RemoveTagged(std::string its_tag) : tag(std::move(its_tag)) {}

    Spans<Span> open_spans(const Observers& observers, SpanName span_name) const {
        return open_invalidation_spans(observers, InvalidationInfo{name, tag, span_name.call});
    }
    std::optional<Failure> mistake() const { return check_tag(tag); }

    std::string tag;
};

}  // namespace psycache::detail
