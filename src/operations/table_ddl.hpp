#pragma once

#include <string>

#include <psycache/table.hpp>

namespace psycache::detail {

/// @returns the statements of `init_db_sql`. Each takes a lock for itself, since their reader may
/// commit each by itself: IF NOT EXISTS alone fails when two sessions create the same thing at
/// once.
std::string table_sql(const TableOptions& options);

/// @returns the same as a script, which is one transaction. Each of its statements is found alone
/// in its block: a server that distributes tables passes the text around one on, as a whole.
std::string table_script(const TableOptions& options);

/// @returns the statement of `drop_notify_sql`, and the same as a script.
std::string notify_removal_sql(const TableOptions& options);
std::string notify_removal_script(const TableOptions& options);

}  // namespace psycache::detail
