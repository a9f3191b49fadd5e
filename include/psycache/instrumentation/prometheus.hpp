#pragma once

#include <boost/system/error_code.hpp>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include <psycache/export.hpp>
#include <psycache/instrumentation.hpp>

namespace prometheus {
class Registry;
}

namespace psycache {

namespace detail {
class PrometheusMetrics;
}

/// Metrics for Prometheus by prometheus-cpp (target `psycache::prometheus`).
///
/// These are the metrics of the Python package, so that one dashboard serves both:
///
/// | metric                                      | type      | labels    | meaning              |
/// |---------------------------------------------|-----------|-----------|----------------------|
/// | psycache_hits_total                         | counter   | span_name | gets that found one  |
/// | psycache_misses_total                       | counter   | span_name | gets that did not    |
/// | psycache_get_duration_seconds               | histogram | span_name | (1)                  |
/// | psycache_put_duration_seconds               | histogram | span_name | (1)                  |
/// | psycache_remove_duration_seconds            | histogram |           | (1)                  |
/// | psycache_flush_duration_seconds             | histogram |           | (1)                  |
/// | psycache_item_size_bytes                    | histogram | span_name | hits and puts (2)    |
/// | psycache_flushed_entries                    | histogram |           | rows per flush (3)   |
/// | psycache_cleanup_last_run_timestamp_seconds | gauge     |           | last one that worked |
/// | psycache_cleanup_deleted_entries            | gauge     |           | rows it deleted      |
///
/// And these are more than that:
///
/// | metric                               | type      | labels          | meaning               |
/// |--------------------------------------|-----------|-----------------|-----------------------|
/// | psycache_cleanup_duration_seconds    | histogram |                 | (1)                   |
/// | psycache_errors_total                | counter   | operation, kind | calls that failed     |
/// | psycache_calls_in_progress           | gauge     | operation       | calls that run now    |
/// | psycache_retries_total               | counter   | operation       | statements sent again |
/// | psycache_statement_duration_seconds  | histogram | operation       | (4)                   |
/// | psycache_statement_calls             | histogram | operation       | calls it served (5)   |
/// | psycache_invalidation_duration_seconds | histogram | operation     | (1) (6)               |
/// | psycache_invalidated_entries_total   | counter   | operation       | rows deleted (6)      |
/// | psycache_loads_total                 | counter   | outcome, renewal | loads that ended (7) |
/// | psycache_load_duration_seconds       | histogram |                 | `LoadInfo::took` (8)  |
/// | psycache_load_joins_total            | counter   |                 | callers more (9)      |
/// | psycache_load_waits_total            | counter   |                 | `LoadInfo::waited`    |
/// | psycache_stale_hits_total            | counter   |                 | stale answers         |
/// | psycache_connection_wait_seconds     | histogram |                 | (4)                   |
/// | psycache_pool_open_connections       | gauge     |                 | idle and busy         |
/// | psycache_pool_idle_connections       | gauge     |                 | `PoolChange::idle`    |
/// | psycache_pool_busy_connections       | gauge     |                 | `PoolChange::busy`    |
/// | psycache_pool_connecting             | gauge     |                 | being opened          |
/// | psycache_pool_waiting                | gauge     |                 | in line for one       |
///
/// Buckets: (1) .005 .01 .025 .05 .075 .1 .25 .5 .75 1 2.5 5 7.5 10; (2) 64 256 1024 4096 16384
/// 65536 262144 1048576; (3) 0 1 5 10 25 50 100 250 500 1000; (4) .0001 .00025 .0005 .001 .0025
/// .005 .01 .025 .05 .1 .25 .5 1 2.5 5 10; (5) 1 2 4 8 16 32 64 128.
/// (6) is of remove_prefix, remove_tag and clear only, which counts no rows. (7) is of
/// get_or_create: `outcome` is the name of a LoadInfo::Outcome, `renewal` "true" or "false"; all
/// are there from the start. (8) is of loads that called a loader: .001 .0025 .005 .01 .025 .05 .1
/// .25 .5 1 2.5 5 10 30 60; a loader that was cancelled is in it where its time is known. (9) are
/// callers that got the result of a load they did not start: of a renewal all that waited.
///
/// A duration is that of the whole call, also of one that failed. `span_name` is the name that the
/// caller gave, "" when it gave none; its series appear when they are first used. Every name is a
/// series of its own, in Prometheus's memory too: take them from a small fixed set, never from
/// keys. They must be UTF-8, or Prometheus refuses the whole scrape. `operation` is get, put,
/// remove, remove_prefix, remove_tag, clear, flush or cleanup, whose series are there from the
/// start, at 0, so that the first error is an increase like any other; and touch, take,
/// get_and_touch, get_entry, expires_in, put_if_absent, replace, compare_and_put, increment, merge,
/// get_or_create, claim_load, publish_load or release_load, whose series appear when one is first
/// called. Calls of many keys, of JSON objects and of texts count as the plain ones. `kind` is what
/// error_kind() says.
///
/// @par Several caches
/// Instrumentations on one registry add up (the timestamp and the rows of the last cleanup are
/// those of whichever ended last). To tell caches apart, give each an instrumentation with a
/// constant label of its own, such as `{{"cache", "users"}}`. A registry made with
/// `InsertBehavior::Throw` takes one instrumentation only: the second constructor throws.
/// @par Cost
/// A call costs about one look-up of its span name under a shared lock, and a short lock for each
/// histogram that moves: one for a miss, two for a hit or a put. Nothing is allocated but the span
/// itself, save for the first call under a name.
/// @par Threads
/// Any, at the same time.
/// @par Object lifetimes
/// Shares ownership of the registry. What was counted stays there when this object is gone.
class PSYCACHE_EXPORT PrometheusInstrumentation : public CacheInstrumentation {
  public:
    /// Registers all metrics.
    ///
    /// @param registry        where they go; not null.
    /// @param constant_labels what every series of this object carries besides its own labels.
    /// @throws std::invalid_argument naming registry when it is null, or constant_labels when one
    /// has a name that Prometheus or a metric above reserves; also what the registry throws when it
    /// holds one of the metrics already, with another type or with `InsertBehavior::Throw`.
    explicit PrometheusInstrumentation(std::shared_ptr<::prometheus::Registry> registry,
                                       std::map<std::string, std::string> constant_labels = {});
    ~PrometheusInstrumentation() override;

    /// The label `kind` of an error, the first of these that fits: "cancelled"
    /// (`operation_aborted`), "timeout", "outcome_unknown", "unavailable", "transient",
    /// "caller_mistake" (the Condition of that name), else "other".
    ///
    /// @returns a literal.
    static std::string_view error_kind(const boost::system::error_code& code) noexcept;

    std::unique_ptr<CacheGetSpan> start_cache_get_span(const SpanInfo& info) override;
    std::unique_ptr<CachePutSpan> start_cache_put_span(const SpanInfo& info) override;
    std::unique_ptr<CacheRemoveSpan> start_cache_remove_span(const SpanInfo& info) override;
    std::unique_ptr<CacheTouchSpan> start_cache_touch_span(const SpanInfo& info) override;
    std::unique_ptr<CacheInvalidationSpan> start_cache_invalidation_span(
        const InvalidationInfo& info) override;
    std::unique_ptr<CacheFlushSpan> start_cache_flush_span() override;
    std::unique_ptr<CacheCleanupSpan> start_cache_cleanup_span() override;

    void record_connection_wait(const ConnectionWait& wait) override;
    void record_statement(const StatementInfo& statement) override;
    void record_load(const LoadInfo& load) override;
    void record_stale_hit() override;
    void record_pool_change(const PoolChange& change) override;

  private:
    std::unique_ptr<detail::PrometheusMetrics> metrics_;
};

}  // namespace psycache
