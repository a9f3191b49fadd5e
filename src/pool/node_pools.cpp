#include "pool/node_pools.hpp"

#include <algorithm>
#include <utility>

#include "pool/pool_core.hpp"

namespace psycache::detail {

NodePools::NodePools(asio::any_io_executor executor, const PoolOptions& options)
    : executor_(std::move(executor)), options_(options) {}

NodePools::~NodePools() {
    close();
}

NodePools::Share NodePools::share(std::size_t connections, std::size_t nodes) noexcept {
    Share share;
    share.nodes = std::min(nodes, connections - 1);
    share.each = share.nodes > 0 ? (connections - 1) / share.nodes : 0;
    share.own = connections - share.nodes * share.each;
    return share;
}

NodePools::Reached NodePools::reach(const std::vector<Node>& nodes,
                                    const std::vector<std::string>& settings) {
    std::vector<std::shared_ptr<PoolCore>> unused;  // closed after the lock
    std::vector<std::shared_ptr<PoolCore>> used;
    Reached reached;
    std::unique_lock lock(mutex_);
    for (auto pool = pools_.begin(); pool != pools_.end();) {
        const bool wanted = std::find(nodes.begin(), nodes.end(), pool->first) != nodes.end();
        if (!wanted && pool->second.use_count() == 1) {
            add_statistics(gone_, pool->second->statistics(), false);
            unused.push_back(std::move(pool->second));
            pool = pools_.erase(pool);
        } else {
            ++pool;
        }
    }
    std::size_t together = pools_.size();
    for (const Node& node : nodes) {
        together += pools_.contains(node) ? 0 : 1;
    }
    const Share divided = share(options_.max_size, together);
    for (const Node& node : nodes) {
        auto known = pools_.find(node);
        if (known == pools_.end() && pools_.size() < divided.nodes && !closed_) {
            PoolOptions its = options_;
            its.max_size = divided.each;
            // A call never waits for the first one: until it is open, calls go another way.
            its.min_idle = 1;
            its.init_sql.insert(its.init_sql.end(), settings.begin(), settings.end());
            known =
                pools_.emplace(node, std::make_shared<PoolCore>(executor_, std::move(its), node))
                    .first;
        }
        reached.pools.push_back(known == pools_.end() ? nullptr : known->second);
    }
    for (const auto& [node, pool] : pools_) {
        used.push_back(pool);
    }
    lock.unlock();
    for (const auto& pool : used) {
        pool->set_limit(divided.each);
    }
    reached.own = divided.own;
    return reached;
}

std::vector<std::shared_ptr<PoolCore>> NodePools::all() const {
    std::vector<std::shared_ptr<PoolCore>> pools;
    const std::lock_guard lock(mutex_);
    for (const auto& [node, pool] : pools_) {
        pools.push_back(pool);
    }
    return pools;
}

void NodePools::add_to(PoolStatistics& sum) const {
    for (const auto& pool : all()) {
        add_statistics(sum, pool->statistics(), true);
    }
    const std::lock_guard lock(mutex_);
    add_statistics(sum, gone_, false);
}

void NodePools::close() noexcept {
    {
        const std::lock_guard lock(mutex_);
        closed_ = true;
    }
    for (const auto& pool : all()) {
        pool->close();
    }
}

void NodePools::dismiss_waiters() noexcept {
    for (const auto& pool : all()) {
        pool->dismiss_waiters();
    }
}

void add_statistics(PoolStatistics& sum, const PoolStatistics& more, bool numbers_too) noexcept {
    if (numbers_too) {
        sum.open += more.open;
        sum.idle += more.idle;
        sum.busy += more.busy;
        sum.connecting += more.connecting;
        sum.waiting += more.waiting;
        sum.listening += more.listening;
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
