#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <psycache/cache_pool.hpp>
#include <psycache/cleanup_service.hpp>
#include <psycache/connection_pool.hpp>
#include <psycache/duration.hpp>
#include <psycache/entry.hpp>
#include <psycache/export.hpp>
#include <psycache/options.hpp>

namespace psycache {

namespace detail {
class CacheCore;
}

/// The longest key, in bytes: what always fits PostgreSQL's index, whatever the bytes are.
inline constexpr std::size_t max_key_size = 2690;

/// What a cache has counted since it was made.
struct CacheStatistics {
    std::uint64_t hits = 0;            ///< keys looked up that had a live entry
    std::uint64_t misses = 0;          ///< keys looked up that had none
    std::uint64_t puts = 0;            ///< entries that were stored
    std::uint64_t removes = 0;         ///< keys whose removal was executed
    std::uint64_t errors = 0;          ///< calls that ended with an error, cancelled ones included
    std::uint64_t timeouts = 0;        ///< of them, those with a condition of time-out
    std::uint64_t cancelled = 0;       ///< of them, those that their callers cancelled
    std::uint64_t outage_misses = 0;   ///< keys answered "miss" by `OnOutage::miss`
    std::uint64_t dropped_writes = 0;  ///< writes dropped by `OnOutage::miss`
    std::uint64_t statements = 0;      ///< statements sent for gets, puts and removes
    std::uint64_t retries = 0;         ///< statements sent once more after a failure
    std::uint64_t cleanup_failures = 0;  ///< runs of a cleanup loop that failed
    std::size_t queued = 0;              ///< calls that wait for a statement now
    bool circuit_open = false;  ///< whether calls are answered without the server (OnOutage::miss)
};

/// A key-value cache in PostgreSQL for coroutines: JSON objects with a time to live.
///
/// A cheap handle: copies share one cache. Calls that arrive together share statements; a lone call
/// costs what a plain statement costs. After `co_await put_raw(...)` every later `get_raw`, on any
/// connection and in any process, sees the value or a newer one. Calls that run at the same time
/// have no order among each other.
///
/// Every call is its own transaction, on the cache's own connections. Expiry is decided by the
/// server's clock alone. A statement that is given up at its time-out is cancelled on the server,
/// by `pg_cancel_backend` on the connection that is opened next.
///
/// @par Completion tokens
/// For anything but `co_await`, go through `co_spawn`: `asio::co_spawn(executor,
/// cache.get_raw("k"), token)` takes callbacks, `use_future`, `as_tuple(...)` and all others.
/// @par Executor and threads
/// All members may be called from any thread at any time. A call resumes on the awaiting
/// coroutine's executor; on a context that several threads run, give each coroutine a strand of its
/// own
/// (`co_spawn(make_strand(context), ...)`), as Asio asks for any coroutine with cancellation.
/// @par Cancellation
/// All types, unless a call says otherwise: the caller leaves at once with `operation_aborted`.
/// What has not been sent is not sent. A statement that has been sent goes on for its other
/// callers, and no connection is closed; a write that was sent may be stored.
/// @par Object lifetimes
/// A call keeps the cache alive until it ends; the handle may be destroyed meanwhile. The context
/// of the pool's executor must outlive the handles. A context may be destroyed while calls of its
/// coroutines are in flight if it is that of the pool, and they go with it; any other context of a
/// caller must outlive its calls, as it must for every operation of Asio.
/// @par Errors
/// Thrown as `psycache::Error`. Every call can fail with: Errc::connect_failed,
/// Errc::authentication_failed, Errc::acquire_timed_out, Errc::pool_closed (no connection);
/// Errc::connection_lost, Errc::timed_out, Errc::queue_full; Errc::table_missing,
/// Errc::permission_denied; any SQLSTATE. `Condition` groups them.
class PSYCACHE_EXPORT AsyncPostgresCache {
  public:
    /// A cache on the connections of @p pool.
    ///
    /// @param pool    shared with the caller; not null.
    /// @param options see CacheOptions.
    /// @throws std::invalid_argument naming the field that is wrong: "schema must not be empty" ...
    explicit AsyncPostgresCache(std::shared_ptr<AsyncCachePool> pool, CacheOptions options = {});

    /// A cache with a ConnectionPool of its own.
    ///
    /// @throws std::invalid_argument naming the field that is wrong, of either options.
    AsyncPostgresCache(asio::any_io_executor executor, PoolOptions pool_options,
                       CacheOptions options = {});

    AsyncPostgresCache(const AsyncPostgresCache&) noexcept;
    AsyncPostgresCache(AsyncPostgresCache&&) noexcept;
    AsyncPostgresCache& operator=(const AsyncPostgresCache&) noexcept;
    AsyncPostgresCache& operator=(AsyncPostgresCache&&) noexcept;
    ~AsyncPostgresCache();

    /// Looks up the value of a key.
    ///
    /// @param key       UTF-8 without NUL, at most max_key_size bytes; "" is a key.
    /// @param span_name what instrumentation calls this call; "" for no name.
    /// @returns the value; nullopt when the entry is absent or expired. Integers that fit 64 bits
    /// and doubles come back as they were stored; a number beyond the reach of a double (a Python
    /// writer can store one) is Errc::unreadable_value, and digits beyond a double's precision are
    /// rounded.
    /// @par Errors
    /// Errc::invalid_key, before anything is sent; Errc::unreadable_value when the stored value is
    /// not an object; those of every call. A get that was sent on a connection that broke is sent
    /// once more.
    /// @par Cancellation
    /// All types.
    /// @par Database effects
    /// One SELECT, possibly shared with other calls; a miss changes nothing.
    asio::awaitable<std::optional<json::object>> get_raw(std::string key,
                                                         std::string span_name = {});

    /// Stores a value under a key, replacing value and expiry of an existing entry.
    ///
    /// @param key       as in get_raw.
    /// @param value     strings and names in UTF-8 without NUL, finite numbers, nested at most 512
    ///                  deep. JSONB does not keep the order of names, and turns -0.0 into 0.0; all
    ///                  else comes back equal.
    /// @param ttl       counted by the server from the statement; min_ttl to max_ttl, or no_expiry.
    ///                  Zero and less store an entry that is expired already.
    /// @param span_name what instrumentation calls this call; "" for no name.
    /// @par Errors
    /// Errc::invalid_key, Errc::invalid_value, Errc::invalid_ttl, before anything is sent;
    /// Errc::outcome_unknown when the connection broke between sending and answer (unless
    /// `CacheOptions::replay_writes`); those of every call. A put that timed out or was cancelled
    /// may still take effect; one that failed otherwise has not.
    /// @par Cancellation
    /// `total` only while it waits to be sent; terminal and partial always: a put that was sent may
    /// be stored.
    /// @par Database effects
    /// One upsert, its own transaction or one shared with other calls, done when this returns.
    /// Where another transaction has the row locked it is tried again until the deadline, which
    /// holds no connection meanwhile; `lock_timeout` is set for the statement alone, unless the
    /// role has one of its own, or a `statement_timeout`, that is shorter than
    /// `CacheOptions::timeout`.
    asio::awaitable<void> put_raw(std::string key, json::object value, Duration ttl,
                                  std::string span_name = {});

    /// Deletes an entry.
    ///
    /// @param key as in get_raw.
    /// @returns whether there was an entry, live or expired.
    /// @par Errors
    /// As put_raw, but for value and ttl. A key that is not there is no error.
    /// @par Cancellation
    /// As put_raw.
    /// @par Database effects
    /// One DELETE, its own transaction or one shared with other calls. A locked row as in put_raw.
    asio::awaitable<bool> remove(std::string key);

    /// Looks up the JSON text of a key, as it is stored: for services that pass JSON through.
    ///
    /// @returns the text as PostgreSQL writes JSONB, whatever it holds; nullopt when the entry is
    /// absent or expired. Nothing is parsed: a number beyond the reach of a double comes through.
    /// @par Errors
    /// Errc::invalid_key, before anything is sent; those of every call.
    /// @par Cancellation
    /// All types.
    /// @par Database effects
    /// As get_raw, with which it shares statements.
    asio::awaitable<std::optional<std::string>> get_text(std::string key,
                                                         std::string span_name = {});

    /// Stores JSON text under a key; the server parses and checks it.
    ///
    /// @param key       as in get_raw.
    /// @param json_text a JSON object in UTF-8. JSONB keeps the last of repeated names, no order
    ///                  and no white space.
    /// @param ttl       as in put_raw.
    /// @param span_name what instrumentation calls this call; "" for no name.
    /// @par Errors
    /// Errc::invalid_key, Errc::invalid_ttl, and Errc::invalid_value where the text plainly is no
    /// object, before anything is sent; Errc::invalid_value with the server's SQLSTATE when the
    /// server refuses it, which hurts no other call of a shared statement. Else as put_raw.
    /// @par Cancellation
    /// As put_raw.
    /// @par Database effects
    /// As put_raw, with which it shares statements.
    asio::awaitable<void> put_text(std::string key, std::string json_text, Duration ttl,
                                   std::string span_name = {});

    /// Looks up many keys.
    ///
    /// @param keys      any number, repeated ones allowed; each as in get_raw.
    /// @param span_name what instrumentation calls this call, which opens one span; "" for no name.
    /// @returns what get_raw would return for each key, in the order of @p keys.
    /// @par Errors
    /// Those of get_raw; an error of one key is that of the whole call. `what()` tells the place of
    /// a key that is refused.
    /// @par Cancellation
    /// All types.
    /// @par Database effects
    /// Equal keys are asked for once. Up to 128 keys make one statement and one round trip, unless
    /// calls of others wait before them; more are split. Each statement sees its own moment.
    asio::awaitable<std::vector<std::optional<json::object>>> get_raw_many(
        std::vector<std::string> keys, std::string span_name = {});

    /// Stores many entries.
    ///
    /// @param entries   any number, each with the limits of put_raw; of several with one key the
    ///                  last one counts.
    /// @param span_name what instrumentation calls this call, which opens one span; "" for no name.
    /// @par Errors
    /// Those of put_raw. What is refused before anything is sent is refused as a whole, and
    /// `what()` tells its place; after any other error some of the entries may have been stored.
    /// @par Cancellation
    /// As put_raw, for each entry.
    /// @par Database effects
    /// Upserts of up to 128 entries or 256 KiB, each its own transaction: not all or nothing.
    asio::awaitable<void> put_raw_many(std::vector<Entry> entries, std::string span_name = {});

    /// Deletes many entries.
    ///
    /// @param keys any number, repeated ones allowed; each as in get_raw.
    /// @returns how many entries were there, live or expired; each is counted once.
    /// @par Errors
    /// Those of remove; after an error some of the entries may have been deleted.
    /// @par Cancellation
    /// As put_raw, for each key.
    /// @par Database effects
    /// DELETEs of up to 128 keys, each its own transaction.
    asio::awaitable<std::uint64_t> remove_many(std::vector<std::string> keys);

    /// Deletes all expired entries.
    ///
    /// @returns how many were deleted.
    /// @par Errors
    /// Those of every call; batches that were done stay done.
    /// @par Cancellation
    /// All types: the running batch ends first, then the call ends with `operation_aborted`.
    /// @par Database effects
    /// Batches of 1,000 rows, each its own transaction on a connection lent for it. Rows that
    /// others hold are skipped, so that it neither blocks writers nor deadlocks with another
    /// cleaner. A row that was renewed in the meantime stays. Where the server cannot name rows by
    /// their place (a view, a distributed table) it deletes by key, and waits for locked rows.
    asio::awaitable<std::uint64_t> cleanup_expired();

    /// Deletes all entries, live and expired.
    ///
    /// @returns how many were deleted.
    /// @par Errors
    /// Errc::outcome_unknown when the connection broke; those of every call.
    /// @par Cancellation
    /// All types: the caller leaves at once; the statement, if it was sent, goes on.
    /// @par Database effects
    /// One DELETE of all rows, one transaction.
    asio::awaitable<std::uint64_t> flush();

    /// The cleanup loop itself: cleans at once, then after every interval, until it is cancelled.
    ///
    /// An error of one run is logged ("Periodic cache cleanup failed") and counted; the loop goes
    /// on. Spawn it where you like and stop it by its slot: `co_spawn(executor,
    /// cache.run_cleanup(1min), bind_cancellation_slot(slot, detached))`.
    ///
    /// @param interval the pause between two runs; positive and finite.
    /// @par Errors
    /// `std::invalid_argument` for the interval, before anything is sent; it ends no other way than
    /// by cancellation, with `operation_aborted`.
    /// @par Cancellation
    /// All types, also where the spawning code did not enable `partial` and `total`: a pause ends
    /// at once, a running batch is finished first.
    asio::awaitable<void> run_cleanup(Duration interval);

    /// Starts the cleanup loop on the pool's executor.
    ///
    /// @param interval the pause between two runs; positive and finite.
    /// @returns the handle that stops it; the loop stops when that is destroyed.
    /// @throws std::invalid_argument for the interval, or when the pool names no executor.
    /// @par Object lifetimes
    /// The loop keeps the cache alive until it ends. It is outstanding work of its executor:
    /// `io_context::run` does not return before it has been stopped.
    AsyncCleanupService start_cleanup_task(Duration interval);

    /// Starts the cleanup loop on @p executor.
    ///
    /// @throws std::invalid_argument for the interval, or an empty executor.
    AsyncCleanupService start_cleanup_task(asio::any_io_executor executor, Duration interval);

    /// @returns what has been counted so far; cheap enough to be polled.
    CacheStatistics statistics() const;

    /// @returns the numbers of the cache's ConnectionPool, its own or a shared one; nullopt for a
    /// pool of another type.
    std::optional<PoolStatistics> pool_statistics() const;

  private:
    std::shared_ptr<detail::CacheCore> core_;
};

}  // namespace psycache
