#pragma once

#include <boost/system/error_code.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include <psycache/export.hpp>

namespace psycache {

/// What an instrumentation is told when a call starts. The views are valid during the call of
/// `start_..._span` only: copy what the span needs.
struct SpanInfo {
    /// The keys of the call: one for `get_raw`, `put_raw` and `remove`.
    std::span<const std::string_view> keys;
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

/// One `get_raw`: a hit, a miss or an error is recorded, then it ends.
class PSYCACHE_EXPORT CacheGetSpan : public CacheSpan {
  public:
    ~CacheGetSpan() override;
    /// @param size the stored size of the value in bytes, as `pg_column_size` tells it.
    virtual void record_cache_hit(std::size_t size);
    /// The entry is absent or expired.
    virtual void record_cache_miss();
};

/// One `put_raw`.
class PSYCACHE_EXPORT CachePutSpan : public CacheSpan {
  public:
    ~CachePutSpan() override;
    /// @param size the stored size of the value in bytes, as `pg_column_size` tells it.
    virtual void record_put(std::size_t size);
};

/// One `remove`.
class PSYCACHE_EXPORT CacheRemoveSpan : public CacheSpan {
  public:
    ~CacheRemoveSpan() override;
    /// The statement is done, whether or not there was an entry.
    virtual void record_removed();
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

/// An observer of a cache: one method per operation, each of which may open a span.
///
/// Every method does nothing by default and may return null for "no span". Every call of the cache
/// opens one span per provider, in the order of `CacheOptions::instrumentations`, and ends them in
/// reverse, also when the call fails.
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

    /// A `get_raw` starts. @returns its span, or null.
    virtual std::unique_ptr<CacheGetSpan> start_cache_get_span(const SpanInfo& info);
    /// A `put_raw` starts. @returns its span, or null.
    virtual std::unique_ptr<CachePutSpan> start_cache_put_span(const SpanInfo& info);
    /// A `remove` starts. @returns its span, or null.
    virtual std::unique_ptr<CacheRemoveSpan> start_cache_remove_span(const SpanInfo& info);
    /// A `flush` starts. @returns its span, or null.
    virtual std::unique_ptr<CacheFlushSpan> start_cache_flush_span();
    /// A `cleanup_expired` starts. @returns its span, or null.
    virtual std::unique_ptr<CacheCleanupSpan> start_cache_cleanup_span();
};

}  // namespace psycache
