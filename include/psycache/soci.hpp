#pragma once

#include <memory>

#include <psycache/cache_pool.hpp>
#include <psycache/duration.hpp>
#include <psycache/export.hpp>

namespace soci {
class connection_pool;
}

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

    /// @par Errors
    /// Errc::acquire_timed_out; Errc::connection_unusable when the session is not one of
    /// PostgreSQL, or not open.
    BorrowedConnection connect() override;

  private:
    soci::connection_pool& pool_;
    Duration acquire_timeout_;
};

}  // namespace psycache
