#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <psycache/duration.hpp>

#include "batching/group.hpp"
#include "batching/lock_retry.hpp"
#include "batching/operation.hpp"
#include "core/failure.hpp"
#include "operations/value_call.hpp"
#include "pg/connection.hpp"
#include "pg/parameters.hpp"

namespace psycache::detail {

std::string concat(std::initializer_list<std::string_view> parts);

/// @returns the identifier in quotes, so that any name is one.
std::string quoted_identifier(std::string_view name);

/// @returns text as a constant of SQL, whatever `standard_conforming_strings` is.
std::string quoted_literal(std::string_view text);

/// @returns the name of the cache's table, quoted, in @p schema if there is one.
std::string table_name(const std::optional<std::string>& schema);
/// @returns the same of its table of tags.
std::string tag_table_name(const std::optional<std::string>& schema);

/// The cache's table, as its operations see it, and the SQL that they have in common.
struct Table {
    /// @param with_sizes whether gets and puts also ask for the stored size.
    /// @param patience   how long callers wait. A lock_timeout or statement_timeout of the role
    /// that
    ///                   is shorter counts for those whose row is locked.
    Table(const std::optional<std::string>& schema, bool with_sizes,
          std::chrono::milliseconds patience);

    /// Adds to a server's failure which table it is about, and what to do.
    Failure explain(Failure failure) const;

    /// @returns in SQL, what a write joins with, so that it waits for a locked row for so many
    /// milliseconds at most. The setting ends with the statement.
    static std::string lock_limit(std::string_view milliseconds);

    /// @returns what the rows of @ref looks_for_locks say.
    static LockSight lock_sight(const pg::Rows& rows);

    /// In SQL, whether the server distributes no tables (Citus); a condition of the statements that
    /// would be wrong there.
    static constexpr std::string_view undistributed = "to_regclass('pg_dist_partition') IS NULL";

    /// @returns in SQL, the common table expression `live`: those of an array of keys whose entries
    /// are live, their rows locked in the order of the keys.
    std::string live_keys(std::string_view keys, std::string_view milliseconds) const;
    /// @returns in SQL, what a write tells of a row: its key, and its size if sizes are wanted.
    std::string_view returning() const noexcept {
        return sizes ? " RETURNING t.key, pg_column_size(t.value)" : " RETURNING t.key";
    }

    /// @returns in SQL, the same with the value after the key.
    std::string_view returning_value() const noexcept {
        return sizes ? " RETURNING t.key, t.value, pg_column_size(t.value)"
                     : " RETURNING t.key, t.value";
    }
    /// The same of a distributed table, which does not tell a stored size: it refuses what is not
    /// immutable. 0 stands for it.
    std::string_view returning_unsized() const noexcept {
        return sizes ? " RETURNING t.key, 0" : " RETURNING t.key";
    }
    std::string_view returning_value_unsized() const noexcept {
        return sizes ? " RETURNING t.key, t.value, 0" : " RETURNING t.key, t.value";
    }
    /// @returns the value in a row of such a statement.
    StoredValue stored_value(const pg::Rows& rows, std::size_t row) const;

    /// @returns in SQL, the moment at which a ttl in microseconds ends; NULL is one without end.
    static std::string expiry_of(std::string_view ttl);
    /// @returns the same, as an UPDATE of a distributed table takes it: no condition depends on the
    /// time.
    static std::string expiry_for_update(std::string_view ttl);

    /// @returns in SQL, the expiry of the row of a tag, whose entry expires at some moment: when a
    /// cleanup looks whether the entry is still there. Later than a day it would keep rows of
    /// entries that were removed for as long as these should have lived, or for ever.
    static std::string look_after(std::string_view expiry);

    const std::string name;
    const std::string tags;  ///< the name of the table of tags, which need not be there
    const bool sizes;
    /// The same where the server distributes tables: whether this one is a local table there.
    const std::string is_local;
    /// Keys -> of those whose rows are locked: key, mark of the holder, NULL; and if the role has a
    /// limit for waiting: NULL, SQLSTATE, milliseconds.
    const pg::Statement looks_for_locks;
    /// Whether it was found that the server may distribute the table. There a write of one key
    /// commits in one phase where it is a simple statement; whatever joins or selects is committed
    /// in two, and can be lost after it was acknowledged.
    mutable std::atomic<bool> distributed{false};
    /// Whether it was found that the server distributes tables, and this one is a local table.
    mutable std::atomic<bool> local{false};
};

/// Takes the steps of one call where tables are distributed: no single statement that such a table
/// takes looks at a row and stores one where there is none. Each step has its effect or none, and
/// the first that has one is the last.
template <std::size_t most>
class Steps {
  public:
    /// @param sql of each step; they have the same parameters. "" for no further one.
    Steps(std::array<std::string, most> sql, const std::vector<pg::Oid>& types) {
        for (std::string& one : sql) {
            if (!one.empty()) {
                steps_.emplace_back(std::move(one), types);
            }
        }
    }

    const pg::Statement& of(const Group& group) const {
        return steps_[std::min<std::size_t>(group.first(0).step, steps_.size() - 1)];
    }
    /// @returns whether a statement was a step that had no effect, and another one is left.
    bool goes_on(const Group& group, const pg::Statement& sent,
                 const pg::Rows& rows) const noexcept {
        const bool is_step = std::any_of(steps_.begin(), steps_.end(),
                                         [&](const pg::Statement& one) { return &one == &sent; });
        return is_step && rows.affected() == 0 && ++group.first(0).step < steps_.size();
    }

  private:
    std::vector<pg::Statement> steps_;
};

/// An operation on the cache's table.
class TableOperation : public Operation {
  public:
    /// @param its_table outlives the operation.
    TableOperation(const Table& its_table, std::string_view its_name, bool does_write,
                   Traits its_traits = {})
        : Operation(its_name, does_write, its_traits), table(its_table) {}

    Failure explain(Failure failure) const override { return table.explain(std::move(failure)); }
    const pg::Statement& looks_for_locks() const override { return table.looks_for_locks; }
    LockSight lock_sight(const pg::Rows& rows) const override { return Table::lock_sight(rows); }
    bool shares(bool one_server) const noexcept override {
        return !writes || !table.distributed || (one_server && shares_on_server());
    }

  protected:
    const Table& table;

  private:
    /// @returns whether there is a statement for many keys whose rows lie together on one server of
    /// a distributed table: one that changes no others, and so is committed in one phase.
    virtual bool shares_on_server() const noexcept { return false; }
};

/// @returns the keys of a group as one parameter: sorted, each once.
std::string keys_of(const Group& group);

/// @returns the ttl of each key as one parameter. @param choose names that of one key.
template <class Choose>
std::string ttls_of(const Group& group, Choose choose) {
    pg::ArrayBuilder ttls(pg::Oid::int8, group.keys());
    for (std::size_t i = 0; i < group.keys(); ++i) {
        const Duration ttl = choose(i);
        if (ttl == no_expiry) {
            ttls.add_null();
        } else {
            ttls.add_int8(ttl.count());
        }
    }
    return ttls.take();
}

/// @returns of the calls of a key that give a live entry a new expiry, the last one that finds it
/// live: the first that expires it at once, if one does.
template <class CallWithTtl>
CallWithTtl& last_live(const Group& group, std::size_t number) {
    for (CallWithTtl& call : group.calls<CallWithTtl>(number)) {
        if (call.ttl <= Duration::zero()) {
            return call;
        }
    }
    return group.last<CallWithTtl>(number);
}

/// @returns the value of each key as one parameter. @param choose names that of one key.
template <class Choose>
std::string values_of(const Group& group, Choose choose) {
    pg::ArrayBuilder values(pg::Oid::jsonb, group.keys());
    for (std::size_t i = 0; i < group.keys(); ++i) {
        values.add(choose(i));
    }
    return values.take();
}

/// Adds the ttl of a lone call.
void add_ttl(pg::Parameters& parameters, Duration ttl);

/// @returns for each key of a group whether it was found: whether a row names it or, for a lone
/// call, whether a row was affected.
std::vector<bool> found_keys(const Group& group, const pg::Rows& rows);

/// @returns for each key of a group the row that is about it, if there is one. Rows name their key
/// first.
std::vector<std::optional<std::size_t>> rows_by_key(const Group& group, const pg::Rows& rows);

}  // namespace psycache::detail
