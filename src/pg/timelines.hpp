#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string_view>

namespace psycache::detail::pg {

/// Which server a connection leads to, as far as that is known: its cluster, which standbys share
/// with their primary, and the timeline it writes to, which is a new one from each promotion on.
struct Origin {
    std::int64_t system = 0;     ///< 0 where nothing is known
    std::uint32_t timeline = 0;  ///< 0 for a standby
};

/// The SQL that asks for it, in one row of text; a standby says NULL. Anybody may ask.
///
/// The control file would name a timeline too, but that of the last checkpoint, which can be
/// minutes behind a promotion.
inline constexpr std::string_view origin_sql =
    "SELECT system_identifier, CASE WHEN NOT pg_is_in_recovery() THEN "
    "pg_walfile_name(pg_current_wal_insert_lsn()) END FROM pg_control_system()";

/// @param system   the cluster's number, in decimal.
/// @param wal_file the name of a file of the write-ahead log, or "".
Origin read_origin(std::string_view system, std::string_view wal_file) noexcept;

/// The newest timeline of each cluster that connections have led to. Safe for several threads.
class Timelines {
  public:
    /// A connection leads there. @returns whether none has led to a newer timeline of that cluster.
    bool admit(const Origin& origin);
    /// @returns whether a connection has led to a newer timeline of that cluster meanwhile.
    bool is_behind(const Origin& origin) const noexcept;
    /// @returns the newest one seen of a cluster; 0 if there is none.
    std::uint32_t newest(std::int64_t system) const noexcept;

  private:
    mutable std::mutex mutex_;
    std::map<std::int64_t, std::uint32_t> newest_;
};

}  // namespace psycache::detail::pg
