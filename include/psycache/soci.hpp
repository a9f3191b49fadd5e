#pragma once

#include <memory>

#include <psycache/cache_pool.hpp>
#include <psycache/duration.hpp>
#include <psycache/export.hpp>
#include <psycache/options.hpp>
#include <psycache/transaction_cache.hpp>

namespace soci {
class connection_pool;
class session;
}  // namespace soci

namespace psycache {

/// Lets a PostgresCache ride on the sessions of a SOCI connection pool (target `psycache::soci`).
///
/// @par Preconditions
/// The pool's sessions are open and use SOCI's PostgreSQL backend. A session inside a transaction
/// is refused with Errc::connection_unusable, and given back untouched.
/// @par Threads
/// As CachePool: SOCI's pool locks for itself.
class PSYCACHE_EXPORT SociCachePool : public CachePool {
  public:
    /// @param pool            must outlive this object and the caches that use it.
    /// @param acquire_timeout how long `connect()` waits for a free session; positive and finite.
    /// @throws std::invalid_argument for the time-out.
    explicit SociCachePool(soci::connection_pool& pool,
                           Duration acquire_timeout = std::chrono::seconds(4));
    ~SociCachePool() override;

    /// Lends the first session that is free and of use. Those that have lost their connections, as
    /// far as libpq knows, are passed over; where no other is free at once, one of them is
    /// connected anew (`PQreset`), which blocks for as long as libpq lets it (`connect_timeout` of
    /// its DSN).
    ///
    /// @par Errors
    /// Errc::acquire_timed_out; Errc::connect_failed when the sessions that are free have lost
    /// their connections, and the server is away; Errc::connection_unusable when they are not of
    /// PostgreSQL, or not open.
    [[nodiscard]] BorrowedConnection connect() override;

  private:
    soci::connection_pool& pool_;
    Duration acquire_timeout_;
};

/// TransactionCache in the transaction of a SOCI session (target `psycache::soci`).
///
/// @code
/// soci::transaction transaction(session);
/// session << "UPDATE account SET name = 'Ada' WHERE id = 7";
/// psycache::SociTransactionCache(session).remove("account:7");
/// transaction.commit();  // both, or neither
/// @endcode
///
/// All else as TransactionCache. Make a new one for a session that was closed, opened or connected
/// anew since.
class PSYCACHE_EXPORT SociTransactionCache : public TransactionCache {
  public:
    /// @param session open, with SOCI's PostgreSQL backend; it must outlive this object. It need
    /// not
    ///                be in a transaction yet.
    /// @param options see CacheOptions.
    /// @throws std::invalid_argument naming the field that is wrong; Error with
    /// Errc::connection_unusable for a session that is not of PostgreSQL, not open, or has lost its
    /// connection.
    explicit SociTransactionCache(soci::session& session, CacheOptions options = {});
};

}  // namespace psycache
