#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "failure.hpp"
#include "pg/connection.hpp"

namespace psycache {

/// @returns the identifier in quotes, so that any name is one.
std::string quoted_identifier(std::string_view name);

/// @returns the name of the cache's table, quoted, in @p schema if there is one.
std::string table_name(const std::optional<std::string>& schema);

/// Every statement that a cache sends, for one schema.
///
/// Those of several calls take arrays: keys are sorted and without repetition, so that two writers
/// lock rows in the same order and cannot deadlock. The last parameter of a write says for how many
/// milliseconds it waits for a row that somebody else has locked. INSERT ... SELECT rather than
/// VALUES, since a distributed table refuses the latter with RETURNING.
struct TableStatements {
    /// How many rows one batch of a cleanup deletes.
    static constexpr std::uint64_t cleanup_batch_size = 1000;

    /// @param sizes    whether gets and puts also ask for the stored size.
    /// @param patience how long callers wait. A lock_timeout or statement_timeout of the server
    /// that
    ///                 is shorter is left to decide how long a write waits for a locked row.
    TableStatements(const std::optional<std::string>& schema, bool sizes,
                    std::chrono::milliseconds patience = std::chrono::seconds(5));

    /// Adds to a server's failure which table it is about, and what to do.
    Failure explain(Failure failure) const;

    std::string table;
    bool sizes;
    std::string limited;  ///< in SQL: whether the server has such a limit

    pg::Statement get_one;      ///< key -> value[, size]
    pg::Statement get_many;     ///< keys -> ordinal from 1, value[, size]
    pg::Statement put_one;      ///< key, jsonb, microseconds or NULL for ever, limit [-> key, size]
    pg::Statement put_many;     ///< the same as arrays, limit [-> key, size]
    pg::Statement remove_one;   ///< key, limit -> affected rows
    pg::Statement remove_many;  ///< keys, limit -> those that were there
    pg::Statement limits_locks;    ///< -> whether the server has a limit of its own for this role
    pg::Statement cleanup;         ///< -> affected rows
    pg::Statement cleanup_by_key;  ///< the same, where rows have no place: on a distributed table
    pg::Statement flush;           ///< -> affected rows
};

}  // namespace psycache
