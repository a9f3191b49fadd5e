#pragma once

#include <memory>
#include <mutex>
#include <set>

#include <psycache/connection_pool.hpp>

#include "pool/forsaken.hpp"

namespace psycache::detail {

/// The connections of all lanes and cleanup threads of one PostgresCache, seen as one pool.
class LaneConnections : public std::enable_shared_from_this<LaneConnections> {
  public:
    /// @param most how many lanes there may be.
    explicit LaneConnections(std::size_t most) : most_(most) {}

    /// Makes a pool that is counted for as long as it lives, and whose counts stay.
    std::shared_ptr<ConnectionPool> make_pool(asio::any_io_executor executor,
                                              const PoolOptions& options);
    PoolStatistics statistics() const;

  private:
    void forget(ConnectionPool* pool) noexcept;

    const std::size_t most_;
    const std::shared_ptr<Forsaken> forsaken_ = std::make_shared<Forsaken>();
    mutable std::mutex mutex_;
    std::set<const ConnectionPool*> pools_;
    PoolStatistics gone_;  // counts of pools that have been destroyed
};

/// Adds what a pool has counted. @param numbers_too also what it holds now.
void add_statistics(PoolStatistics& sum, const PoolStatistics& more, bool numbers_too) noexcept;

}  // namespace psycache::detail
