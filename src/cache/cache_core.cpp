#include "cache/cache_core.hpp"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <boost/asio/error.hpp>
#include <random>
#include <stdexcept>
#include <thread>
#include <utility>

#include "core/option_checks.hpp"
#include "shards/shard_router.hpp"

namespace psycache::detail {

namespace {

/// @returns how many processors this thread may use, 0 if that is not known.
std::size_t usable_processors() noexcept {
#ifdef __linux__
    // hardware_concurrency() counts those of the machine.
    cpu_set_t usable;
    if (sched_getaffinity(0, sizeof(usable), &usable) == 0) {
        return static_cast<std::size_t>(CPU_COUNT(&usable));
    }
#endif
    return std::thread::hardware_concurrency();
}

GroupLimits limits_for(const AsyncCachePool& pool, const CacheCore::Blocking& blocking) {
    const auto statistics = pool.pool_statistics();
    const std::size_t connections = statistics ? statistics->max_size : 0;
    return blocking.host != nullptr ? thread_limits(connections)
                                    : group_limits(usable_processors(), connections);
}

Batcher::Settings batcher_settings(const CacheOptions& options, const AsyncCachePool& pool,
                                   const CacheCore::Blocking& blocking, const Table& table,
                                   const std::shared_ptr<const Observers>& observers) {
    Batcher::Settings settings;
    settings.limits = limits_for(pool, blocking);
    settings.capacity = options.max_queued_calls;
    // A statement belongs to many callers: it gets twice the patience of one before it costs its
    // connection.
    settings.statement_timeout = std::max<Duration>(2 * options.timeout, std::chrono::seconds(2));
    settings.replay_writes = options.replay_writes;
    settings.host = blocking.host;
    settings.pool_blocks = blocking.pool_blocks;
    settings.router = std::make_shared<ShardRouter>(PoolAccess::core_of(pool), table, observers);
    return settings;
}

std::shared_ptr<Breaker> make_breaker(const CacheOptions& options,
                                      const std::shared_ptr<const Observers>& observers) {
    if (options.on_outage != OnOutage::miss) {
        return nullptr;
    }
    return std::make_shared<Breaker>(
        std::random_device()(),
        [observers](LogLevel level, std::string_view line) { observers->log(level, line); });
}

}  // namespace

CacheCore::CacheCore(std::shared_ptr<AsyncCachePool> its_pool, const CacheOptions& options,
                     Telemetry telemetry, Blocking blocking, std::shared_ptr<NearCache> near_cache)
    : pool(std::move(its_pool)),
      observers(telemetry.observers),
      counts(telemetry.counts),
      operations_owner(std::make_shared<const Operations>(
          options.schema, !observers->empty(),
          std::chrono::duration_cast<std::chrono::milliseconds>(options.timeout))),
      operations(*operations_owner),
      batcher(std::make_shared<Batcher>(
          pool, batcher_settings(options, *pool, blocking, operations.table, observers), counts,
          observers, operations_owner)),
      near(std::move(near_cache)),
      timeout(options.timeout),
      maintenance_timeout(options.maintenance_timeout),
      limits{options.max_entries, options.max_bytes},
      pool_blocks(blocking.pool_blocks),
      on_outage_(options.on_outage),
      breaker_(make_breaker(options, observers)) {}

CacheCore::CacheCore(std::shared_ptr<AsyncCachePool> its_pool, const CacheOptions& options)
    : CacheCore(std::move(its_pool), options, Telemetry(options)) {}

CacheCore::CacheCore(std::shared_ptr<AsyncCachePool> its_pool, const CacheOptions& options,
                     const Telemetry& telemetry)
    : CacheCore(its_pool, options, telemetry, Blocking(),
                make_near_cache(options, *its_pool, telemetry.observers, its_pool->get_executor(),
                                nullptr)) {}

CacheCore::~CacheCore() {
    if (near) {
        near->stop();
    }
}

std::shared_ptr<NearCache> make_near_cache(const CacheOptions& options, const AsyncCachePool& pool,
                                           const std::shared_ptr<const Observers>& observers,
                                           const asio::any_io_executor& executor,
                                           std::function<void()> started) {
    if (!options.near_cache) {
        return nullptr;
    }
    std::optional<NearCache::Place> place;
    if (options.near_cache->invalidation == psycache::Invalidation::listen) {
        auto core = PoolAccess::core_of(pool);
        if (!core) {
            throw std::invalid_argument(
                "CacheOptions::near_cache: Invalidation::listen needs a ConnectionPool, since no "
                "other pool can open the connection that listens; or use Invalidation::none");
        }
        place = NearCache::Place{std::move(core), executor, std::move(started)};
    }
    return std::make_shared<NearCache>(*options.near_cache, table_name(options.schema), observers,
                                       std::move(place));
}

TimePoint CacheCore::deadline(const CallOptions& options) const {
    check_call_options(options);
    return Clock::now() + options.timeout.value_or(timeout);
}

Breaker::Pass CacheCore::admit(bool writes) const {
    return breaker_ ? breaker_->admit(Clock::now(), writes) : Breaker::Pass();
}

void CacheCore::count_failure(const Failure& failure) const noexcept {
    ++counts->errors;
    if (failure.code == Condition::timeout) {
        ++counts->timeouts;
    }
    if (failure.code == asio::error::operation_aborted) {
        ++counts->cancelled;
    }
}

bool CacheCore::hides(const Failure& failure) const noexcept {
    return on_outage_ == OnOutage::miss && failure.code == Condition::unavailable;
}

CacheStatistics CacheCore::statistics() const {
    CacheStatistics now;
    now.hits = counts->hits;
    now.misses = counts->misses;
    now.puts = counts->puts;
    now.removes = counts->removes;
    now.touches = counts->touches;
    now.errors = counts->errors;
    now.timeouts = counts->timeouts;
    now.cancelled = counts->cancelled;
    now.outage_misses = counts->outage_misses;
    now.dropped_writes = counts->dropped_writes;
    now.loads = counts->loads;
    now.load_joins = counts->load_joins;
    now.load_waits = counts->load_waits;
    now.load_failures = counts->load_failures;
    now.late_loads = counts->late_loads;
    now.stale_hits = counts->stale_hits;
    now.evictions = counts->evictions;
    now.cleanup_failures = counts->cleanup_failures;
    now.statements = counts->statements;
    now.retries = counts->retries;
    now.queued = batcher->queued();
    if (near) {
        now.near_cache = near->statistics();
    }
    now.circuit_open = breaker_ && breaker_->open();
    return now;
}

}  // namespace psycache::detail
