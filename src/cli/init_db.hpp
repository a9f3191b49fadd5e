#pragma once

/// @file
/// `psycache init-db`: makes the table, or prints the SQL that does.

#include <optional>
#include <string>

#include <psycache/table.hpp>

namespace psycache::cli {

/// @param dsn       where to make it; without, the SQL is printed.
/// @param no_notify whether the triggers are removed.
/// @returns the exit code.
int init_db(const std::optional<std::string>& dsn, const TableOptions& options, bool no_notify);

}  // namespace psycache::cli
