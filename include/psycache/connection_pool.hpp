#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>

#include <psycache/cache_pool.hpp>
#include <psycache/duration.hpp>
#include <psycache/export.hpp>
#include <psycache/options.hpp>

namespace psycache {

namespace detail {
class LaneConnections;
class PoolCore;
}  // namespace detail

/// A moment of a ConnectionPool: what it holds now, and what it has counted since it was made.
struct PoolStatistics {
    std::size_t max_size = 0;    ///< `PoolOptions::max_size`
    std::size_t open = 0;        ///< open connections, idle and busy
    std::size_t idle = 0;        ///< open connections that nobody uses
    std::size_t busy = 0;        ///< open connections that are lent
    std::size_t connecting = 0;  ///< connections being opened: 0 or 1
    std::size_t waiting = 0;     ///< callers that wait for a connection

    std::uint64_t leases = 0;            ///< connections lent
    std::uint64_t waits = 0;             ///< of them, those that had to wait
    Duration wait_time{0};               ///< time spent waiting, all callers together
    std::uint64_t acquire_timeouts = 0;  ///< waits that ended by `acquire_timeout`
    std::uint64_t connects = 0;          ///< connections opened
    std::uint64_t connect_failures = 0;  ///< attempts that failed
    std::uint64_t lost = 0;              ///< connections found dead, or left unusable by a call
    std::uint64_t retired = 0;           ///< connections closed by `idle_timeout` or `max_lifetime`
};

/// A pool of non-blocking libpq connections.
///
/// Opened on demand up to `max_size`; the newest idle connection is lent first, waiters are served
/// first come, first served. While the server is away, one attempt at a time is made, with a pause
/// that grows from 50 ms to 1 s (with jitter) between attempts; a waiter is answered by the next
/// attempt, so it learns the reason soon and recovery needs no help. An idle connection that the
/// server has closed is noticed before it is lent. There is no background task: with nothing to do
/// the pool keeps no work on its executor, and `io_context::run` returns.
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

    /// Lends an idle connection, if there is one and nobody waits for it.
    ///
    /// @returns the lease, or an empty one.
    ConnectionLease try_connect() override;

    asio::any_io_executor get_executor() const noexcept override;

    /// @returns a consistent snapshot; cheap enough to be polled.
    PoolStatistics statistics() const;

    /// Closes idle connections at once and busy ones when they come back; waiters and later callers
    /// get `Errc::pool_closed`. May be called again. Does not block.
    void close() noexcept;

  private:
    friend class detail::LaneConnections;

    explicit ConnectionPool(std::shared_ptr<detail::PoolCore> core);

    std::shared_ptr<detail::PoolCore> core_;
};

}  // namespace psycache
