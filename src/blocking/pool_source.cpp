#include "blocking/pool_source.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "pool/node_pools.hpp"
#include "pool/pool_core.hpp"

namespace psycache::detail {

namespace {

/// Lends what a blocking pool lends; the thread that asks is held up.
class BlockingLender final : public AsyncCachePool {
  public:
    BlockingLender(asio::any_io_executor executor, std::shared_ptr<CachePool> pool)
        : executor_(std::move(executor)), pool_(std::move(pool)) {}

    asio::awaitable<ConnectionLease> connect() override {
        ConnectionLease lease(pool_->connect());
        co_return lease;
    }
    ConnectionLease try_connect() override { return ConnectionLease(pool_->connect()); }
    asio::any_io_executor get_executor() const noexcept override { return executor_; }

  private:
    const asio::any_io_executor executor_;
    const std::shared_ptr<CachePool> pool_;
};

}  // namespace

std::shared_ptr<AsyncCachePool> OwnPools::make_pool(asio::any_io_executor executor) {
    auto core = make_core(std::move(executor), options_.max_size);
    main_ = core;
    return count(std::move(core));
}

std::shared_ptr<AsyncCachePool> OwnPools::make_cleanup_pool(asio::any_io_executor executor) {
    return count(make_core(std::move(executor), 1));
}

std::shared_ptr<PoolCore> OwnPools::make_core(asio::any_io_executor executor,
                                              std::size_t max_size) {
    PoolOptions options = options_;
    options.max_size = max_size;
    // Nothing runs the event loop for its own sake.
    options.min_idle = 0;
    return std::make_shared<PoolCore>(std::move(executor), std::move(options));
}

asio::awaitable<std::optional<Failure>> OwnPools::warm_up() {
    const auto core = main_.lock();  // lives as long as its cache
    auto warming = PoolCore::warm_up(core, std::max<std::size_t>(options_.min_idle, 1));
    co_return co_await std::move(warming);
}

asio::awaitable<std::optional<Failure>> ApplicationPool::warm_up() {
    std::optional<Failure> failure;
    try {
        const ConnectionLease lent(pool_->connect());
    } catch (...) {
        failure = lending_failure(std::current_exception());
    }
    co_return failure;
}

void OwnPools::dismiss_waiters() noexcept {
    if (const auto core = main_.lock()) {
        core->dismiss_waiters();
    }
}

std::shared_ptr<AsyncCachePool> OwnPools::count(std::shared_ptr<PoolCore> core) {
    // The constructor that takes a core is ours alone.
    std::unique_ptr<ConnectionPool> made(new ConnectionPool(std::move(core)));
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

void OwnPools::forget(ConnectionPool* pool) noexcept {
    const std::lock_guard lock(mutex_);
    pools_.erase(pool);
    add_statistics(gone_, pool->statistics(), false);
}

std::optional<PoolStatistics> OwnPools::statistics() const {
    const std::lock_guard lock(mutex_);
    PoolStatistics sum = gone_;
    for (const ConnectionPool* pool : pools_) {
        add_statistics(sum, pool->statistics(), true);
    }
    sum.max_size = options_.max_size;
    return sum;
}

std::shared_ptr<AsyncCachePool> ApplicationPool::make_pool(asio::any_io_executor executor) {
    return std::make_shared<BlockingLender>(std::move(executor), pool_);
}

}  // namespace psycache::detail
