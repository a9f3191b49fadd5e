#pragma once

#include <string>

#include <psycache/table.hpp>

namespace psycache {

/// @returns the statements that make the table and its index, each with its semicolon.
std::string table_ddl(const TableOptions& options);

/// @returns the same as one transaction that waits for others who do it at this moment: IF NOT
/// EXISTS alone fails when two sessions create the same thing.
std::string table_script(const TableOptions& options);

}  // namespace psycache
