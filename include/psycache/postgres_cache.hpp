#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <psycache/async_postgres_cache.hpp>
#include <psycache/cache_pool.hpp>
#include <psycache/cleanup_service.hpp>
#include <psycache/connection_pool.hpp>
#include <psycache/duration.hpp>
#include <psycache/entry.hpp>
#include <psycache/export.hpp>
#include <psycache/options.hpp>

namespace psycache {

namespace detail {
class LaneConnections;
class LanePool;
}  // namespace detail

/// A key-value cache in PostgreSQL for blocking code: AsyncPostgresCache without coroutines.
///
/// Each call borrows a lane, which is an io_context with a connection of its own, and runs the
/// asynchronous call on it in the calling thread: no hand-over to another thread. Up to
/// `PoolOptions::max_size` threads run at the same time; further ones wait for a lane, first come,
/// first served, within the deadline of their call. A lane whose call timed out is thrown away with
/// its connection. A thread that could open a connection waits for one of the others instead while
/// the server gives no more of them; while the server is away one thread at a time tries, with a
/// pause that grows from 50 ms to 1 s, and all who wait learn why its attempt failed.
///
/// Values, errors and effects in the database are those of AsyncPostgresCache; what can be
/// cancelled there cannot here. Calls of different threads do not share statements: a server that
/// runs on Asio is better off with AsyncPostgresCache, and a blocking call inside an event loop
/// stops everything else on that loop for as long as it takes, up to `CacheOptions::timeout`.
///
/// @par Threads
/// All members may be called from any thread at any time. A call from inside another call of the
/// same object on the same thread (from an instrumentation, say) is refused with
/// Errc::reentrant_call.
/// @par Object lifetimes
/// Not copyable; must outlive its calls. Cleanup services may outlive it.
class PSYCACHE_EXPORT PostgresCache {
  public:
    /// A cache with connections of its own; none is opened yet.
    ///
    /// @throws std::invalid_argument naming the field that is wrong, of either options.
    explicit PostgresCache(PoolOptions pool_options, CacheOptions options = {});

    /// A cache on the connections of @p pool, one borrowed for each call.
    ///
    /// @param pool    shared with the caller; not null. It alone decides how many threads run at
    /// the
    ///                same time.
    /// @param options see CacheOptions.
    /// @throws std::invalid_argument naming the field that is wrong.
    explicit PostgresCache(std::shared_ptr<CachePool> pool, CacheOptions options = {});

    PostgresCache(const PostgresCache&) = delete;
    PostgresCache& operator=(const PostgresCache&) = delete;
    ~PostgresCache();

    /// @see AsyncPostgresCache::get_raw. Waits for a lane too: Errc::timed_out when none came free.
    std::optional<json::object> get_raw(std::string_view key, std::string_view span_name = {});
    /// @see AsyncPostgresCache::put_raw.
    void put_raw(std::string_view key, const json::object& value, Duration ttl,
                 std::string_view span_name = {});
    /// @see AsyncPostgresCache::remove.
    bool remove(std::string_view key);
    /// @see AsyncPostgresCache::get_text.
    std::optional<std::string> get_text(std::string_view key, std::string_view span_name = {});
    /// @see AsyncPostgresCache::put_text.
    void put_text(std::string_view key, std::string_view json_text, Duration ttl,
                  std::string_view span_name = {});
    /// @see AsyncPostgresCache::get_raw_many.
    std::vector<std::optional<json::object>> get_raw_many(const std::vector<std::string>& keys,
                                                          std::string_view span_name = {});
    /// @see AsyncPostgresCache::put_raw_many.
    void put_raw_many(const std::vector<Entry>& entries, std::string_view span_name = {});
    /// @see AsyncPostgresCache::remove_many.
    std::uint64_t remove_many(const std::vector<std::string>& keys);
    /// @see AsyncPostgresCache::cleanup_expired.
    std::uint64_t cleanup_expired();
    /// @see AsyncPostgresCache::flush.
    std::uint64_t flush();

    /// Starts a thread, named "psycache-cleanup" (Linux shows the first 15 characters), that
    /// deletes expired entries at once and then after every interval, on a connection of its own.
    ///
    /// @param interval the pause between two runs; positive and finite.
    /// @returns the handle that stops it; destroying the handle stops and joins the thread.
    /// @throws std::invalid_argument for the interval, before anything starts.
    CleanupService start_cleanup_thread(Duration interval);

    /// @returns what all lanes have counted so far.
    CacheStatistics statistics() const;

    /// @returns the numbers of the connections of all lanes and cleanup threads together; `waiting`
    /// counts the threads that wait for a lane. nullopt for a cache on the connections of an
    /// application.
    std::optional<PoolStatistics> pool_statistics() const;

  private:
    std::shared_ptr<detail::LaneConnections> connections_;  // null on those of an application
    std::shared_ptr<detail::LanePool> lanes_;
};

}  // namespace psycache
