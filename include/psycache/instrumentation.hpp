#pragma once

#include <boost/system/error_code.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include <psycache/duration.hpp>
#include <psycache/export.hpp>

namespace psycache {

/// What an instrumentation is told when a call starts. The views are valid during the call of
/// `start_..._span` only: copy what the span needs.
struct SpanInfo {
    /// The keys of the call: one, or those of a call of many keys, where repeated ones may be left
    /// out; none if the entries of a call were refused.
    std::span<const std::string_view> keys;
    /// The name that the caller gave to the call; "" when it gave none.
    std::string_view name;
    /// The call as it is named in the classes: "get_raw", "take_many" ...; a literal.
    std::string_view operation{};
};

/// What an instrumentation is told when a call on a group of entries starts. The views are as in
/// SpanInfo.
struct InvalidationInfo {
    /// "remove_prefix", "remove_tag" or "clear"; a literal.
    std::string_view operation;
    /// The prefix or the tag, which is no key but may tell as much; "" for `clear`.
    std::string_view group;
    /// The name that the caller gave to the call; "" when it gave none.
    std::string_view name;
};

/// What every span can be told. A span ends when it is destroyed, on success as on failure.
///
/// @par Threads
/// One span is used by one thread at a time, not always by the thread that started it: a coroutine
/// has no thread of its own. No thread-local state may be relied on.
/// @par Exception safety
/// An exception out of a span or a provider never reaches the caller of the cache; it is logged
/// once per provider.
class PSYCACHE_EXPORT CacheSpan {
  public:
    CacheSpan() = default;
    CacheSpan(const CacheSpan&) = delete;
    CacheSpan& operator=(const CacheSpan&) = delete;
    virtual ~CacheSpan();

    /// The call failed, timed out or was cancelled (`boost::asio::error::operation_aborted`).
    virtual void record_error(const boost::system::error_code& code);
};

/// One call that looks up: `get`, `get_raw`, `get_text`, `get_entry`, `expires_in`, `take`,
/// `get_and_touch`, `get_or_create`, and those of many keys. A hit or a miss is recorded for each
/// key, or an error, then it ends.
class PSYCACHE_EXPORT CacheGetSpan : public CacheSpan {
  public:
    ~CacheGetSpan() override;
    /// @param size the stored size of the value in bytes, as `pg_column_size` tells it; 0 where it
    ///             came from the memory of the process.
    virtual void record_cache_hit(std::size_t size);
    /// The entry is absent or expired.
    virtual void record_cache_miss();
};

/// One call that stores: `put`, `put_raw`, `put_text`, `put_if_absent`, `replace`,
/// `compare_and_put`, `increment`, `merge`, and those of many keys; and what a load of
/// `get_or_create` stores. A put is recorded for each key
/// that was stored, or an error.
class PSYCACHE_EXPORT CachePutSpan : public CacheSpan {
  public:
    ~CachePutSpan() override;
    /// @param size the stored size of the value in bytes, as `pg_column_size` tells it.
    virtual void record_put(std::size_t size);
};

/// One `remove` or `remove_many`.
class PSYCACHE_EXPORT CacheRemoveSpan : public CacheSpan {
  public:
    ~CacheRemoveSpan() override;
    /// The statement is done, whether or not there was an entry.
    virtual void record_removed();
};

/// One `touch` or `touch_many`.
class PSYCACHE_EXPORT CacheTouchSpan : public CacheSpan {
  public:
    ~CacheTouchSpan() override;
    /// The statement is done. @param live whether there was a live entry.
    virtual void record_touch(bool live);
};

/// One `remove_prefix`, `remove_tag` or `clear`, all its batches together.
class PSYCACHE_EXPORT CacheInvalidationSpan : public CacheSpan {
  public:
    ~CacheInvalidationSpan() override;
    /// @param entries how many entries were deleted, live and expired; 0 for `clear`, which does
    /// not look at them.
    virtual void record_invalidated(std::uint64_t entries);
};

/// One `flush`.
class PSYCACHE_EXPORT CacheFlushSpan : public CacheSpan {
  public:
    ~CacheFlushSpan() override;
    /// @param entries how many rows were deleted.
    virtual void record_flush(std::uint64_t entries);
};

/// One `cleanup_expired`, all its batches together.
class PSYCACHE_EXPORT CacheCleanupSpan : public CacheSpan {
  public:
    ~CacheCleanupSpan() override;
    /// @param entries how many expired rows were deleted.
    virtual void record_cleanup(std::uint64_t entries);
};

/// A wait for a connection, for one statement.
struct ConnectionWait {
    /// From asking the pool to its answer; next to nothing when a connection was idle.
    Duration waited{0};
    /// Why none was lent; no error when one was.
    boost::system::error_code error;
};

/// A statement that was sent for the calls of a cache. Calls that run at the same time share
/// statements, so that there are fewer of these than there are spans.
struct StatementInfo {
    /// "get", "put", "remove", "touch", "put_if_absent", "replace", "compare_and_put", "take",
    /// "get_and_touch", "get_entry", "expires_in", "increment", "merge", "remove_prefix",
    /// "remove_tag", "clear", "flush" or "cleanup"; of get_or_create "get_or_create",
    /// "claim_load", "publish_load" and "release_load"; a literal.
    std::string_view operation;
    /// How many calls it serves; 1 for flush, clear and for each batch of the others that work on
    /// many rows.
    std::size_t calls = 1;
    /// Whether it is a repetition: the calls were sent before, and the connection broke or the
    /// server asked to try again.
    bool retry = false;
    /// From sending to its answer.
    Duration took{0};
    /// How it failed; no error when it was answered. One that is repeated is told each time.
    boost::system::error_code error;
};

/// How the numbers of a ConnectionPool changed: what has been added to or taken from each. Summed
/// up, they are the pool's `PoolStatistics`, and over all pools that tell the same instrumentation,
/// the sum of theirs; the order in which they arrive does not matter.
struct PoolChange {
    std::ptrdiff_t open = 0;        ///< open connections, idle and busy
    std::ptrdiff_t idle = 0;        ///< open connections that are not in use
    std::ptrdiff_t busy = 0;        ///< open connections that are lent
    std::ptrdiff_t connecting = 0;  ///< connections being opened
    std::ptrdiff_t waiting = 0;     ///< statements, or threads, that wait for a connection

    friend bool operator==(const PoolChange&, const PoolChange&) = default;
};

/// A load of get_or_create that has ended: one for a key, whatever the number of its callers.
struct LoadInfo {
    enum class Outcome {
        stored,     ///< loaded and stored
        late,       ///< loaded, and not stored: the entry was changed or removed meanwhile
        unstored,   ///< loaded, and could not be stored: an outage, or no value of JSON
        nothing,    ///< the loader had nothing to store
        failed,     ///< the loader threw
        elsewhere,  ///< another process has loaded it; the loader was not called
        abandoned   ///< all callers have left; the loader was cancelled
    };

    Outcome outcome = Outcome::stored;
    /// Whether a live entry was to be loaded anew, while its callers had their answers already.
    bool renewal = false;
    /// How many callers got the result.
    std::size_t callers = 0;
    /// How long the loader took; 0 where it was not called.
    Duration took{0};
    /// How long another process was waited for; 0 where none was.
    Duration waited{0};
};

/// @returns the name of an outcome, as metrics have it: "stored", "late" ...; a literal.
PSYCACHE_EXPORT std::string_view name_of(LoadInfo::Outcome outcome) noexcept;

/// An observer of a cache: one method per operation, each of which may open a span, and one for
/// each thing that happens underneath.
///
/// Every method does nothing by default; a span may be null for "no span". Every call of the cache
/// opens one span per provider, in the order of `CacheOptions::instrumentations`, and ends them in
/// reverse, also when the call fails, times out or is cancelled. A call that shares a statement
/// with others has a span of its own.
///
/// A span is opened in the coroutine that makes the call (for a PostgresCache, on its thread),
/// before anything is awaited: what the application has noted down right before the call is still
/// true. Later events of the span may come from any thread.
///
/// @par Threads
/// Called from every thread that calls the cache, at the same time: implementations lock for
/// themselves.
/// @par Object lifetimes
/// The cache shares ownership; its spans end before it lets go of the provider.
class PSYCACHE_EXPORT CacheInstrumentation {
  public:
    CacheInstrumentation() = default;
    CacheInstrumentation(const CacheInstrumentation&) = delete;
    CacheInstrumentation& operator=(const CacheInstrumentation&) = delete;
    virtual ~CacheInstrumentation();

    /// A call that looks up starts. @returns its span, or null.
    virtual std::unique_ptr<CacheGetSpan> start_cache_get_span(const SpanInfo& info);
    /// A call that stores starts. @returns its span, or null.
    virtual std::unique_ptr<CachePutSpan> start_cache_put_span(const SpanInfo& info);
    /// A `remove` or `remove_many` starts. @returns its span, or null.
    virtual std::unique_ptr<CacheRemoveSpan> start_cache_remove_span(const SpanInfo& info);
    /// A `touch` or `touch_many` starts. @returns its span, or null.
    virtual std::unique_ptr<CacheTouchSpan> start_cache_touch_span(const SpanInfo& info);
    /// A `remove_prefix`, `remove_tag` or `clear` starts. @returns its span, or null.
    virtual std::unique_ptr<CacheInvalidationSpan> start_cache_invalidation_span(
        const InvalidationInfo& info);
    /// A `flush` starts. @returns its span, or null. Called by the next one unless that is
    /// overridden.
    virtual std::unique_ptr<CacheFlushSpan> start_cache_flush_span();
    /// The same, with the name that the caller gave to the call; without keys.
    virtual std::unique_ptr<CacheFlushSpan> start_cache_flush_span(const SpanInfo& info);
    /// A `cleanup_expired` starts. @returns its span, or null. Called by the next one unless that
    /// is overridden.
    virtual std::unique_ptr<CacheCleanupSpan> start_cache_cleanup_span();
    /// The same, with the name that the caller gave to the call; without keys.
    virtual std::unique_ptr<CacheCleanupSpan> start_cache_cleanup_span(const SpanInfo& info);

    /// A statement has waited for a connection.
    virtual void record_connection_wait(const ConnectionWait& wait);
    /// A statement has been answered, or has failed.
    virtual void record_statement(const StatementInfo& statement);
    /// A load of get_or_create has ended.
    virtual void record_load(const LoadInfo& load);
    /// A get_or_create was answered with a stale value; its span has recorded a hit.
    virtual void record_stale_hit();
    /// A pool has changed: of the cache itself if it makes its own pool, else of every
    /// ConnectionPool that names this object in `PoolOptions::instrumentations`. A pool that is
    /// destroyed takes back all that it has added.
    virtual void record_pool_change(const PoolChange& change);
};

}  // namespace psycache
