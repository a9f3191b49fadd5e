#include "facade/lane_connections.hpp"

#include <utility>

#include "pool/pool_core.hpp"

namespace psycache::detail {

std::shared_ptr<ConnectionPool> LaneConnections::make_pool(asio::any_io_executor executor,
                                                           const PoolOptions& options) {
    // The constructor that takes a core is ours alone.
    std::unique_ptr<ConnectionPool> made(
        new ConnectionPool(std::make_shared<PoolCore>(std::move(executor), options, forsaken_)));
    {
        const std::lock_guard lock(mutex_);
        pools_.insert(made.get());
    }
    return std::shared_ptr<ConnectionPool>(made.release(),
                                           [self = shared_from_this()](ConnectionPool* pool) {
                                               self->forget(pool);
                                               delete pool;
                                           });
}

void LaneConnections::forget(ConnectionPool* pool) noexcept {
    const std::lock_guard lock(mutex_);
    pools_.erase(pool);
    add_statistics(gone_, pool->statistics(), false);
}

PoolStatistics LaneConnections::statistics() const {
    const std::lock_guard lock(mutex_);
    PoolStatistics sum = gone_;
    for (const ConnectionPool* pool : pools_) {
        add_statistics(sum, pool->statistics(), true);
    }
    sum.max_size = most_;
    return sum;
}

void add_statistics(PoolStatistics& sum, const PoolStatistics& more, bool numbers_too) noexcept {
    if (numbers_too) {
        sum.open += more.open;
        sum.idle += more.idle;
        sum.busy += more.busy;
        sum.connecting += more.connecting;
        sum.waiting += more.waiting;
    }
    sum.leases += more.leases;
    sum.waits += more.waits;
    sum.wait_time += more.wait_time;
    sum.acquire_timeouts += more.acquire_timeouts;
    sum.connects += more.connects;
    sum.connect_failures += more.connect_failures;
    sum.lost += more.lost;
    sum.retired += more.retired;
}

}  // namespace psycache::detail
