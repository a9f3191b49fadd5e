#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>
#include <functional>
#include <memory>
#include <optional>

#include <psycache/export.hpp>
#include <psycache/pool_statistics.hpp>

/// libpq's connection object; `PGconn` is its other name.
struct pg_conn;

namespace psycache {

namespace asio = boost::asio;
namespace json = boost::json;

namespace detail {
class LeaseState;
}

/// A libpq connection that an application lends, with the way to give it back.
///
/// Move-only. The connection goes back when this object is destroyed, exactly once.
///
/// @par Preconditions
/// While it is lent nothing else touches the connection. The cache refuses one that is closed,
/// busy, inside a transaction, in pipeline mode or whose client encoding is not UTF-8, with
/// `Errc::connection_unusable`; such a connection goes back untouched.
/// @par Database effects
/// The connection comes back as it was found: blocking mode as before, no transaction, no prepared
/// statement, no setting changed. After a time-out or a lost connection it comes back closed
/// (`PQstatus` is `CONNECTION_BAD`), since its answer can no longer be told from a later one's.
class PSYCACHE_EXPORT BorrowedConnection {
  public:
    /// Lends nothing.
    BorrowedConnection() noexcept;
    /// @param connection the connection; not null.
    /// @param give_back  called once with the connection, on whatever thread ends the use. It must
    /// not
    ///                   throw: what it throws is swallowed. May be empty.
    /// @throws std::invalid_argument when @p connection is null.
    BorrowedConnection(pg_conn* connection, std::function<void(pg_conn*)> give_back);
    BorrowedConnection(BorrowedConnection&& other) noexcept;
    BorrowedConnection& operator=(BorrowedConnection&& other) noexcept;
    ~BorrowedConnection();

    /// @returns the connection, null if none is held.
    pg_conn* get() const noexcept { return connection_; }
    /// @returns whether a connection is held.
    explicit operator bool() const noexcept { return connection_ != nullptr; }

  private:
    void give_back() noexcept;

    pg_conn* connection_ = nullptr;
    std::function<void(pg_conn*)> give_back_;
};

/// One connection for as long as this object lives: what `AsyncCachePool::connect()` answers.
///
/// Move-only; destroying it gives the connection back, from any thread.
class PSYCACHE_EXPORT ConnectionLease {
  public:
    /// Holds nothing.
    ConnectionLease() noexcept;
    /// A lease of a connection that the application owns: what an own AsyncCachePool returns.
    ///
    /// Statements on it are unnamed, so that nothing stays behind in its session.
    /// @throws Error with `Errc::connection_unusable` when the connection is not idle, see
    /// BorrowedConnection.
    ConnectionLease(BorrowedConnection borrowed);  // NOLINT: meant to convert
    explicit ConnectionLease(std::unique_ptr<detail::LeaseState> state) noexcept;
    ConnectionLease(ConnectionLease&&) noexcept;
    ConnectionLease& operator=(ConnectionLease&&) noexcept;
    ~ConnectionLease();

    /// @returns whether a connection is held.
    explicit operator bool() const noexcept { return state_ != nullptr; }
    /// @returns the libpq connection, null if none is held. For looking only (`PQserverVersion`,
    /// `PQparameterStatus`): a statement of one's own on it breaks the cache's.
    pg_conn* native_handle() const noexcept;

    /// @returns the library's own state behind the lease.
    detail::LeaseState& state() const noexcept { return *state_; }

  private:
    std::unique_ptr<detail::LeaseState> state_;
};

/// Where an AsyncPostgresCache gets its connections: one method to implement.
///
/// ConnectionPool is the ready one; AsyncBorrowingPool adapts any asynchronous source of `PGconn*`.
///
/// @par Executor and threads
/// `connect()` is awaited on an executor of the cache's choice (a strand of @ref get_executor if
/// that names one), by several coroutines at once.
class PSYCACHE_EXPORT AsyncCachePool {
  public:
    AsyncCachePool() = default;
    AsyncCachePool(const AsyncCachePool&) = delete;
    AsyncCachePool& operator=(const AsyncCachePool&) = delete;
    virtual ~AsyncCachePool();

    /// Lends a connection that is idle, outside of any transaction.
    ///
    /// @returns the lease; it must hold a connection.
    /// @par Errors
    /// Any exception; an `Error` reaches the callers of the cache as it is, anything else as
    /// `Errc::connect_failed`. It must be finite: the cache does not limit this wait, although its
    /// callers leave at their own deadlines.
    virtual asio::awaitable<ConnectionLease> connect() = 0;

    /// Lends a connection if that takes no waiting: a short cut that saves a coroutine.
    ///
    /// @returns the lease; an empty one, which is the default, for "ask connect()".
    /// @par Executor and threads
    /// Any thread, at the same time as any other call. It must not block.
    [[nodiscard]] virtual ConnectionLease try_connect();

    /// The executor on which the cache runs its statements.
    ///
    /// @returns the executor; an empty one, which is the default, for "that of the first call".
    virtual asio::any_io_executor get_executor() const noexcept;

    /// What the pool holds and has counted, for `AsyncPostgresCache::pool_statistics`.
    ///
    /// @returns a snapshot; nullopt, which is the default, where there is none. Its `max_size` also
    /// tells the cache among how many connections it may divide its calls.
    /// @par Executor and threads
    /// Any thread, at the same time as any other call.
    virtual std::optional<PoolStatistics> pool_statistics() const;
};

/// Where a PostgresCache gets its connections: the blocking twin of AsyncCachePool.
///
/// @par Threads
/// `connect()` is called from every thread that calls the cache, at the same time.
class PSYCACHE_EXPORT CachePool {
  public:
    CachePool() = default;
    CachePool(const CachePool&) = delete;
    CachePool& operator=(const CachePool&) = delete;
    virtual ~CachePool();

    /// Lends a connection that is idle, outside of any transaction; may block, for a finite time.
    ///
    /// @returns the connection with the way to give it back; it must hold one.
    /// @par Errors
    /// Any exception; an `Error` reaches the caller of the cache as it is, anything else as
    /// `Errc::connect_failed`.
    [[nodiscard]] virtual BorrowedConnection connect() = 0;
};

}  // namespace psycache
