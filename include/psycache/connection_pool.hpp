#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>

#include <psycache/cache_pool.hpp>
#include <psycache/export.hpp>
#include <psycache/options.hpp>
#include <psycache/pool_statistics.hpp>

namespace psycache {

namespace detail {
class OwnPools;
class PoolCore;
struct PoolAccess;
}  // namespace detail

/// A pool of non-blocking libpq connections.
///
/// Opened on demand up to `max_size`; the newest idle connection is lent first, waiters are served
/// first come, first served. A few connections are opened at the same time
/// (`PoolOptions::max_connecting`). While the server is away, one attempt at a time is made, with a
/// pause that grows from 50 ms to 1 s (with jitter) between attempts; a waiter is answered by the
/// next attempt, so it learns the reason soon and recovery needs no help. An idle connection that
/// the server has closed is noticed before it is lent. There is no background task: with nothing to
/// do the pool keeps no work on its executor, and `io_context::run` returns.
///
/// @par Executor and threads
/// All members may be called from any thread at any time.
/// @par Object lifetimes
/// The executor's context must outlive the pool and its leases. Leases may outlive the pool object:
/// their connections are closed when they come back.
class PSYCACHE_EXPORT ConnectionPool : public AsyncCachePool {
  public:
    /// Checks the options; opens nothing yet.
    ///
    /// @param executor runs the pool's work: an io_context run by one thread or many, or a strand.
    /// @param options  see PoolOptions.
    /// @throws std::invalid_argument naming the field that is wrong; for a DSN that libpq cannot
    /// read without repeating it, since it can hold a password.
    ConnectionPool(asio::any_io_executor executor, PoolOptions options);
    /// Calls close().
    ~ConnectionPool() override;

    /// Lends a connection, waiting up to `acquire_timeout`.
    ///
    /// @returns the lease.
    /// @par Errors
    /// Errc::connect_failed, Errc::authentication_failed or a SQLSTATE when the attempt for this
    /// waiter failed (`what()` tells the cause); Errc::acquire_timed_out when all connections
    /// stayed busy; Errc::pool_closed.
    /// @par Cancellation
    /// All types: the caller leaves the queue with `operation_aborted`; a connection that was
    /// already on its way goes to the next waiter.
    /// @par Executor and threads
    /// Resumes on the awaiting coroutine's executor.
    asio::awaitable<ConnectionLease> connect() override;

    /// Lends an idle connection, if there is one and no caller waits for it.
    ///
    /// @returns the lease, or an empty one.
    [[nodiscard]] ConnectionLease try_connect() override;

    /// Opens connections before they are needed: until `PoolOptions::min_idle` are open, one at
    /// least. Those that are open already count; one of them is looked at.
    ///
    /// @par Errors
    /// As those of connect(): the first connection that cannot be opened ends it. What has been
    /// opened stays.
    /// @par Cancellation
    /// All types: `operation_aborted`. A connection that is being opened stays in the pool.
    /// @par Executor and threads
    /// Resumes on the awaiting coroutine's executor.
    asio::awaitable<void> warm_up();

    asio::any_io_executor get_executor() const noexcept override;

    /// @returns a consistent snapshot; cheap enough to be polled.
    [[nodiscard]] PoolStatistics statistics() const;

    std::optional<PoolStatistics> pool_statistics() const override;

    /// Closes idle connections at once and busy ones when they come back; waiters and later callers
    /// get `Errc::pool_closed`. May be called again. Does not block.
    void close() noexcept;

  private:
    friend class detail::OwnPools;
    friend struct detail::PoolAccess;

    explicit ConnectionPool(std::shared_ptr<detail::PoolCore> core);

    std::shared_ptr<detail::PoolCore> core_;
};

}  // namespace psycache
