#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <set>

#include <psycache/cache_pool.hpp>
#include <psycache/connection_pool.hpp>

#include "core/failure.hpp"

namespace psycache::detail {

class PoolCore;

/// Where the event loops of a PostgresCache get their connections: its own and those of its cleanup
/// threads.
class PoolSource {
  public:
    PoolSource() = default;
    PoolSource(const PoolSource&) = delete;
    PoolSource& operator=(const PoolSource&) = delete;
    virtual ~PoolSource() = default;

    /// Makes the pool of the cache itself.
    virtual std::shared_ptr<AsyncCachePool> make_pool(asio::any_io_executor executor) = 0;
    /// Makes the pool of a cleanup thread, of one connection.
    virtual std::shared_ptr<AsyncCachePool> make_cleanup_pool(asio::any_io_executor executor) = 0;
    /// Opens connections of the cache's own pool before they are needed.
    /// @returns why not, if that is so.
    virtual asio::awaitable<std::optional<Failure>> warm_up() = 0;
    /// No call is left that could wait for a connection of the cache's own pool.
    virtual void dismiss_waiters() noexcept {}
    /// @returns the numbers of all of its pools; nullopt where they are an application's.
    virtual std::optional<PoolStatistics> statistics() const = 0;
    /// Whether lending a connection holds up the thread.
    virtual bool blocks() const noexcept = 0;
};

/// Pools of connections of the cache's own, seen as one.
class OwnPools final : public PoolSource, public std::enable_shared_from_this<OwnPools> {
  public:
    explicit OwnPools(PoolOptions options) : options_(std::move(options)) {}

    std::shared_ptr<AsyncCachePool> make_pool(asio::any_io_executor executor) override;
    std::shared_ptr<AsyncCachePool> make_cleanup_pool(asio::any_io_executor executor) override;
    asio::awaitable<std::optional<Failure>> warm_up() override;
    void dismiss_waiters() noexcept override;
    std::optional<PoolStatistics> statistics() const override;
    bool blocks() const noexcept override { return false; }

  private:
    /// @returns a pool that is counted for as long as it lives, and whose counts stay.
    std::shared_ptr<AsyncCachePool> count(std::shared_ptr<PoolCore> core);
    std::shared_ptr<PoolCore> make_core(asio::any_io_executor executor, std::size_t max_size);
    void forget(ConnectionPool* pool) noexcept;

    const PoolOptions options_;
    std::weak_ptr<PoolCore> main_;
    mutable std::mutex mutex_;
    std::set<const ConnectionPool*> pools_;
    PoolStatistics gone_;  // counts of pools that have been destroyed
};

/// The connections of an application.
class ApplicationPool final : public PoolSource {
  public:
    explicit ApplicationPool(std::shared_ptr<CachePool> pool) : pool_(std::move(pool)) {}

    std::shared_ptr<AsyncCachePool> make_pool(asio::any_io_executor executor) override;
    std::shared_ptr<AsyncCachePool> make_cleanup_pool(asio::any_io_executor executor) override {
        return make_pool(std::move(executor));
    }
    asio::awaitable<std::optional<Failure>> warm_up() override;
    std::optional<PoolStatistics> statistics() const override { return std::nullopt; }
    bool blocks() const noexcept override { return true; }

  private:
    const std::shared_ptr<CachePool> pool_;
};

}  // namespace psycache::detail
