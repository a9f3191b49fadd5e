#pragma once

/// @file
/// What the catalogs and statistics of a server say about one of the cache's tables. Nothing here
/// reads the table itself.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <psycache/duration.hpp>

namespace psycache::cli {

/// Something that could not be looked at, and why.
struct Unseen {
    std::string what;
    std::string sqlstate;
};

struct Column {
    std::string name;
    std::string type;
    bool not_null = false;
    bool has_default = false;
};

struct Index {
    std::string name;     ///< quoted, with its schema
    std::string columns;  ///< separated by a comma
    bool unique = false;  ///< such as ON CONFLICT takes
    bool valid = false;
};

struct Trigger {
    std::string name;
    char enabled = 'A';  ///< as pg_trigger.tgenabled
};

struct RowStatistics {
    std::int64_t live = 0;
    std::int64_t dead = 0;
    bool counted = false;  ///< whether any change was, since statistics were last reset
    std::optional<Duration> since_vacuum;
    std::optional<Duration> since_autovacuum;
};

struct Sizes {
    std::int64_t rows = 0;
    std::int64_t indexes = 0;
    std::int64_t toast = 0;
};

/// How Citus divides a table.
struct Distribution {
    char method = 0;     ///< as pg_dist_partition.partmethod; 0: the table is a local one
    std::string column;  ///< by which it is distributed
    std::int64_t shards = 0;
    std::int64_t nodes = 0;  ///< that take shards
};

/// Of the role that asks.
struct Privileges {
    bool usage_of_schema = true;
    std::vector<std::string> missing;  ///< of SELECT, INSERT, UPDATE, DELETE
    bool truncate = true;
    bool row_security = false;  ///< whether policies hide rows from it
};

/// What is empty could not be looked at.
struct TableFacts {
    std::string oid;
    std::string name;         ///< quoted, with its schema
    std::string schema;       ///< quoted
    char kind = 'r';          ///< as pg_class.relkind
    char persistence = 'u';   ///< as pg_class.relpersistence
    double estimate = -1;     ///< of its rows by the last VACUUM or ANALYZE; -1: none
    bool autovacuum = true;   ///< not switched off for the table
    bool fillfactor = false;  ///< one was set
    std::optional<std::vector<Column>> columns;
    std::optional<std::vector<Index>> indexes;
    std::optional<std::vector<Trigger>> triggers;
    std::optional<RowStatistics> statistics;
    std::optional<Sizes> sizes;
    std::optional<std::int64_t> row_width;  ///< the average of a row's columns
    std::optional<Privileges> privileges;
    std::optional<Distribution> distribution;  ///< also empty without Citus

    /// @returns whether its rows are in shards.
    bool is_elsewhere() const noexcept { return distribution && distribution->method != 0; }
};

}  // namespace psycache::cli
