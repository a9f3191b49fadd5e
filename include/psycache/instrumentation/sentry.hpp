#pragma once

#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <variant>

#include <psycache/export.hpp>
#include <psycache/instrumentation.hpp>

struct sentry_transaction_s;
struct sentry_span_s;

namespace psycache {

/// Under what a call's span is put: a `sentry_transaction_t*`, a `sentry_span_t*`, or nothing.
///
/// `std::monostate` and null pointers mean that the call gets no span.
using SentryParent = std::variant<std::monostate, sentry_transaction_s*, sentry_span_s*>;

namespace detail {
// One that can be called either way is left to the constructor that hands over the SpanInfo.
template <class F>
concept ParentWithoutInfo = std::is_invocable_r_v<SentryParent, F&> &&
    !std::is_invocable_r_v<SentryParent, F&, const SpanInfo&>;
}  // namespace detail

/// What SentryInstrumentation sends.
struct SentryOptions {
    /// Whether spans hold keys. Set it to false where keys tell what must not leave the service.
    bool keys = true;
};

/// Reports every call of a cache as a span of Sentry's native SDK (target `psycache::sentry`, with
/// sentry-native 0.7 or later).
///
/// Sentry's SDK knows no current span that would follow a coroutine from thread to thread, so a
/// function of the application names the parent of each call.
///
///     auto sentry = std::make_shared<psycache::SentryInstrumentation>([&] { return request; });
///     options.instrumentations.push_back(sentry);
///
/// Spans have the op `cache.get`, `cache.put`, `cache.remove` or `cache.flush`; `remove_prefix` and
/// `remove_tag` have `cache.remove`, and `clear` has `cache.flush`. Their description
/// is the name that the caller gave to the call, else "psycache get", "psycache put" and so on.
/// Cleanup has no span. Their data are:
///   - `cache.key`: a list of the keys, of many the first 20; not for flush, nor without
///     `SentryOptions::keys`.
///   - `cache.more_keys`: how many further keys the call has, if it has any.
///   - `cache.success`: whether the call did what it was asked to.
///   - `cache.hit`: whether there was an entry, of many keys at least one; for get that succeeded.
///   - `cache.item_size`: the stored size in bytes, of many keys together; for a hit and a put.
///   - `cache.num_flushed`: how many entries were deleted; for flush that succeeded.
///   - `cache.num_removed`: the same for `remove_prefix` and `remove_tag`. Neither prefix nor tag
///   is
///     sent.
///
/// The status is `ok`, or what fits the error best: `cancelled`, `deadline_exceeded`,
/// `permission_denied`, `unauthenticated`, `unknown` (a write that may be stored or not),
/// `unavailable`, `invalid_argument`, `aborted` (worth another try) or `internal_error`. A call
/// whose coroutine was destroyed before it ended is `cancelled`.
///
/// @warning Keys are sent to Sentry as data, unless `SentryOptions::keys` is false. A byte in a key
/// or a name that is not UTF-8 is replaced by U+FFFD, and a key is cut after @ref max_key_size
/// bytes.
/// @par Threads
/// The SDK changes a transaction without a lock when one of its spans starts or finishes. Objects
/// of this class take turns at that, process-wide, so the calls of one transaction may run on any
/// threads. The application takes no part in these turns: while calls of a transaction run, it
/// starts and finishes other spans of it, sets its data or finishes it only where those calls run,
/// that is on their strand or their thread.
/// @par Object lifetimes
/// The parent must live when a call starts. The transaction, a parent span and the SDK itself may
/// end before the call does, but without its transaction or the SDK the call's span is dropped.
class PSYCACHE_EXPORT SentryInstrumentation : public CacheInstrumentation {
  public:
    /// Names the parent of a call; it is told the keys and the name of the call, nothing of a
    /// flush, and the name only of calls on groups of entries.
    using ParentFunction = std::function<SentryParent(const SpanInfo& info)>;

    /// @param parent is called once at the start of each call, before anything is awaited: in the
    ///               coroutine that awaits the call, for PostgresCache on the calling thread. So
    ///               the application may set a variable right before `co_await cache.get_raw(...)`,
    ///               even a thread-local one, and let this function read it; after that moment the
    ///               coroutine may be on any thread, and others have their turn. It is called from
    ///               all these threads at the same time. When it throws, the call has no span.
    /// @param options see SentryOptions.
    /// @throws std::invalid_argument when @p parent is empty.
    explicit SentryInstrumentation(ParentFunction parent, SentryOptions options = {});

    /// The same for a function that does not look at the call.
    template <detail::ParentWithoutInfo Parent>
    explicit SentryInstrumentation(Parent parent, SentryOptions options = {})
        : SentryInstrumentation(without_info(std::move(parent)), options) {}

    ~SentryInstrumentation() override;

    std::unique_ptr<CacheGetSpan> start_cache_get_span(const SpanInfo& info) override;
    std::unique_ptr<CachePutSpan> start_cache_put_span(const SpanInfo& info) override;
    std::unique_ptr<CacheRemoveSpan> start_cache_remove_span(const SpanInfo& info) override;
    std::unique_ptr<CacheInvalidationSpan> start_cache_invalidation_span(
        const InvalidationInfo& info) override;
    std::unique_ptr<CacheFlushSpan> start_cache_flush_span() override;

  private:
    static ParentFunction without_info(std::function<SentryParent()> parent);

    const ParentFunction parent_;
    const SentryOptions options_;
};

}  // namespace psycache
