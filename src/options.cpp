#include <psycache/options.hpp>
#include <psycache/table.hpp>

namespace psycache {

// Out of line, so that no compiler sees an aggregate here, and so that their strings are made and
// destroyed in one place.
PoolOptions::PoolOptions() = default;
PoolOptions::PoolOptions(const PoolOptions&) = default;
PoolOptions::PoolOptions(PoolOptions&&) noexcept = default;
PoolOptions& PoolOptions::operator=(const PoolOptions&) = default;
PoolOptions& PoolOptions::operator=(PoolOptions&&) noexcept = default;
PoolOptions::~PoolOptions() = default;

CacheOptions::CacheOptions() = default;
CacheOptions::CacheOptions(const CacheOptions&) = default;
CacheOptions::CacheOptions(CacheOptions&&) noexcept = default;
CacheOptions& CacheOptions::operator=(const CacheOptions&) = default;
CacheOptions& CacheOptions::operator=(CacheOptions&&) noexcept = default;
CacheOptions::~CacheOptions() = default;

TableOptions::TableOptions() = default;
TableOptions::TableOptions(const TableOptions&) = default;
TableOptions::TableOptions(TableOptions&&) noexcept = default;
TableOptions& TableOptions::operator=(const TableOptions&) = default;
TableOptions& TableOptions::operator=(TableOptions&&) noexcept = default;
TableOptions::~TableOptions() = default;

}  // namespace psycache
