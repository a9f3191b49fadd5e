#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <functional>

#include <psycache/cache_pool.hpp>
#include <psycache/export.hpp>

namespace psycache {

/// Lets a cache ride on connections that the application already has, from any asynchronous source.
///
/// @par Example
/// examples/borrowed_connections.cpp
class PSYCACHE_EXPORT AsyncBorrowingPool : public AsyncCachePool {
  public:
    /// A coroutine that waits for a connection of the application and lends it.
    using Borrow = std::function<asio::awaitable<BorrowedConnection>()>;

    /// @param executor where the cache runs its statements.
    /// @param borrow   called for each batch of calls, possibly several times at once; must end in
    ///                 finite time.
    /// @throws std::invalid_argument when @p executor or @p borrow is empty.
    AsyncBorrowingPool(asio::any_io_executor executor, Borrow borrow);
    ~AsyncBorrowingPool() override;

    asio::awaitable<ConnectionLease> connect() override;
    asio::any_io_executor get_executor() const noexcept override;

  private:
    asio::any_io_executor executor_;
    Borrow borrow_;
};

/// The blocking twin of AsyncBorrowingPool, for PostgresCache.
class PSYCACHE_EXPORT BorrowingPool : public CachePool {
  public:
    /// Waits for a connection of the application and lends it.
    using Borrow = std::function<BorrowedConnection()>;

    /// @param borrow called for each call of the cache, from its thread.
    /// @throws std::invalid_argument when @p borrow is empty.
    explicit BorrowingPool(Borrow borrow);
    ~BorrowingPool() override;

    [[nodiscard]] BorrowedConnection connect() override;

  private:
    Borrow borrow_;
};

}  // namespace psycache
