#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <psycache/async_postgres_cache.hpp>
#include <psycache/export.hpp>

namespace psycache {

/// What a cache counts by itself, for Prometheus (target `psycache::prometheus`): a hit in memory
/// takes less time than it would take to tell an instrumentation of it. The numbers are those of
/// CacheStatistics, read when Prometheus asks.
///
/// | metric                           | type    | meaning                                        |
/// |----------------------------------|---------|------------------------------------------------|
/// | psycache_queued_calls            | gauge   | `CacheStatistics::queued`                      |
/// | psycache_circuit_open            | gauge   | 1 while `circuit_open`, else 0                 |
/// | psycache_outage_misses_total     | counter | `outage_misses`                                |
/// | psycache_dropped_writes_total    | counter | `dropped_writes`                               |
/// | psycache_evictions_total         | counter | `evictions`: of the table                      |
/// | psycache_cleanup_failures_total  | counter | `cleanup_failures`                             |
/// | psycache_near_hits_total         | counter | `NearStatistics::hits`                         |
/// | psycache_near_misses_total       | counter | `misses`                                       |
/// | psycache_near_evictions_total    | counter | `evictions`: of memory                         |
/// | psycache_near_invalidations_total | counter | `invalidations`                               |
/// | psycache_near_entries            | gauge   | `entries`                                      |
/// | psycache_near_bytes              | gauge   | `bytes`                                        |
/// | psycache_near_listening          | gauge   | 1 while `listening`, else 0                    |
/// | psycache_near_lag_seconds        | gauge   | `lag`                                          |
///
/// Those of a near cache are absent where the cache has none. Register it beside a
/// PrometheusInstrumentation, which has the rest: `exposer.RegisterCollectable(statistics)`.
///
/// @par Several caches
/// Give each an object with a constant label of its own: Prometheus refuses a series that comes
/// twice.
/// @par Threads
/// Any, at the same time; the function is called in that of the scrape.
/// @par Object lifetimes
/// The function, and what it holds, goes with this object. A handle of a cache in it keeps that
/// cache alive, the listener of its near cache included.
class PSYCACHE_EXPORT PrometheusStatistics : public ::prometheus::Collectable {
  public:
    /// @param statistics      asks the cache: `[cache] { return cache.statistics(); }`; not empty.
    /// @param constant_labels what every series carries.
    /// @throws std::invalid_argument naming statistics when it is empty, or constant_labels when
    /// one has a name that Prometheus reserves.
    explicit PrometheusStatistics(std::function<CacheStatistics()> statistics,
                                  std::map<std::string, std::string> constant_labels = {});
    ~PrometheusStatistics() override;

    /// @returns all metrics; none if the function throws.
    std::vector<::prometheus::MetricFamily> Collect() const override;

  private:
    const std::function<CacheStatistics()> statistics_;
    const std::map<std::string, std::string> constant_labels_;
};

}  // namespace psycache
