#include <psycache/postgres_cache.hpp>

#include <limits>
#include <psycache/connection_pool.hpp>
#include <stdexcept>
#include <utility>

#include "cache/call_checks.hpp"
#include "facade/lane_connections.hpp"
#include "facade/lane_pool.hpp"
#include "observers.hpp"
#include "option_checks.hpp"
#include "values/json_codec.hpp"

namespace psycache {

namespace {

using detail::CacheCore;
using detail::LaneConnections;
using detail::LanePool;
using detail::LoneCall;

template <class Span>
using Begun = CacheCore::Begun<Span>;

/// Lends a lane what a blocking pool lends; blocking is right where the loop serves one call.
class BlockingSource final : public AsyncCachePool {
  public:
    BlockingSource(asio::any_io_executor executor, std::shared_ptr<CachePool> pool)
        : executor_(std::move(executor)), pool_(std::move(pool)) {}

    asio::awaitable<ConnectionLease> connect() override {
        ConnectionLease lease(pool_->connect());
        co_return lease;
    }
    asio::any_io_executor get_executor() const noexcept override { return executor_; }

  private:
    const asio::any_io_executor executor_;
    const std::shared_ptr<CachePool> pool_;
};

std::shared_ptr<LanePool> lanes_of(PoolOptions pool_options, CacheOptions options,
                                   std::shared_ptr<LaneConnections> connections) {
    check_pool_options(pool_options);
    check_cache_options(options);
    const std::size_t most = pool_options.max_size;
    pool_options.max_size = 1;  // of each lane
    add_instrumentations(pool_options, options);
    return std::make_shared<LanePool>(
        [pool_options = std::move(pool_options),
         connections = std::move(connections)](asio::any_io_executor executor) {
            return connections->make_pool(std::move(executor), pool_options);
        },
        most, std::move(options));
}

std::shared_ptr<LanePool> lanes_over(std::shared_ptr<CachePool> pool, CacheOptions options) {
    if (!pool) {
        throw std::invalid_argument("PostgresCache: pool must not be null");
    }
    check_cache_options(options);
    return std::make_shared<LanePool>(
        [pool = std::move(pool)](asio::any_io_executor executor) {
            return std::make_shared<BlockingSource>(std::move(executor), pool);
        },
        std::numeric_limits<std::size_t>::max(), std::move(options));
}

/// A call hands over a value; one without any needs a stand-in.
struct Nothing {};

asio::awaitable<Nothing> put_many(CacheCore::Self core, Result<std::vector<detail::PutItem>> items,
                                  Begun<CachePutSpan> begun) {
    co_await CacheCore::put_many(std::move(core), std::move(items), std::string(),
                                 std::move(begun));
    co_return Nothing{};
}

std::vector<std::string_view> views(const std::vector<std::string>& keys) {
    return {keys.begin(), keys.end()};
}

}  // namespace

PostgresCache::PostgresCache(PoolOptions pool_options, CacheOptions options)
    : connections_(std::make_shared<LaneConnections>(pool_options.max_size)),
      lanes_(lanes_of(std::move(pool_options), std::move(options), connections_)) {}

PostgresCache::PostgresCache(std::shared_ptr<CachePool> pool, CacheOptions options)
    : lanes_(lanes_over(std::move(pool), std::move(options))) {}

PostgresCache::~PostgresCache() = default;

std::optional<json::object> PostgresCache::get_raw(std::string_view key,
                                                   std::string_view span_name) {
    return lanes_->call_lone<std::optional<json::object>, CacheGetSpan>(
        "get_raw",
        [&](const Observers& observers) { return open_get_spans(observers, key, span_name); },
        [&](const CacheCore& core, Begun<CacheGetSpan> begun) {
            return core.begin_get(CacheCore::Form::object, std::string(key), {}, std::move(begun));
        },
        [](const CacheCore& core, LoneCall<CacheGetSpan>& lone) { return core.end_get_raw(lone); });
}

void PostgresCache::put_raw(std::string_view key, const json::object& value, Duration ttl,
                            std::string_view span_name) {
    lanes_->call_lone<Nothing, CachePutSpan>(
        "put_raw",
        [&](const Observers& observers) { return open_put_spans(observers, key, span_name); },
        [&](const CacheCore& core, Begun<CachePutSpan> begun) {
            return core.begin_put(std::string(key), encode_jsonb(value), ttl, {}, std::move(begun));
        },
        [](const CacheCore& core, LoneCall<CachePutSpan>& lone) {
            core.end_put(lone, CacheCore::Form::object);
            return Nothing{};
        });
}

std::optional<std::string> PostgresCache::get_text(std::string_view key,
                                                   std::string_view span_name) {
    return lanes_->call_lone<std::optional<std::string>, CacheGetSpan>(
        "get_text",
        [&](const Observers& observers) { return open_get_spans(observers, key, span_name); },
        [&](const CacheCore& core, Begun<CacheGetSpan> begun) {
            return core.begin_get(CacheCore::Form::text, std::string(key), {}, std::move(begun));
        },
        [](const CacheCore& core, LoneCall<CacheGetSpan>& lone) {
            return core.end_get_text(lone);
        });
}

void PostgresCache::put_text(std::string_view key, std::string_view json_text, Duration ttl,
                             std::string_view span_name) {
    lanes_->call_lone<Nothing, CachePutSpan>(
        "put_text",
        [&](const Observers& observers) { return open_put_spans(observers, key, span_name); },
        [&](const CacheCore& core, Begun<CachePutSpan> begun) {
            return core.begin_put(std::string(key), detail::jsonb_of_text(json_text), ttl, {},
                                  std::move(begun));
        },
        [](const CacheCore& core, LoneCall<CachePutSpan>& lone) {
            core.end_put(lone, CacheCore::Form::text);
            return Nothing{};
        });
}

std::vector<std::optional<json::object>> PostgresCache::get_raw_many(
    const std::vector<std::string>& keys, std::string_view span_name) {
    return lanes_->call<std::vector<std::optional<json::object>>, CacheGetSpan>(
        "get_raw_many",
        [&](const Observers& observers) {
            return open_get_spans(observers, Keys(views(keys)), span_name);
        },
        [&](const CacheCore::Self& core, Begun<CacheGetSpan> begun) {
            return CacheCore::get_many(core, keys, std::string(), std::move(begun));
        });
}

void PostgresCache::put_raw_many(const std::vector<Entry>& entries, std::string_view span_name) {
    lanes_->call<Nothing, CachePutSpan>(
        "put_raw_many",
        [&](const Observers& observers) {
            std::vector<std::string_view> keys;
            for (const Entry& entry : entries) {
                keys.push_back(entry.key);
            }
            return open_put_spans(observers, Keys(keys), span_name);
        },
        [&](const CacheCore::Self& core, Begun<CachePutSpan> begun) {
            return put_many(core, detail::put_items(entries), std::move(begun));
        });
}

std::uint64_t PostgresCache::remove_many(const std::vector<std::string>& keys) {
    return lanes_->call<std::uint64_t, CacheRemoveSpan>(
        "remove_many",
        [&](const Observers& observers) { return open_remove_spans(observers, Keys(views(keys))); },
        [&](const CacheCore::Self& core, Begun<CacheRemoveSpan> begun) {
            return CacheCore::remove_many(core, keys, std::move(begun));
        });
}

bool PostgresCache::remove(std::string_view key) {
    return lanes_->call_lone<bool, CacheRemoveSpan>(
        "remove", [&](const Observers& observers) { return open_remove_spans(observers, key); },
        [&](const CacheCore& core, Begun<CacheRemoveSpan> begun) {
            return core.begin_remove(std::string(key), std::move(begun));
        },
        [](const CacheCore& core, LoneCall<CacheRemoveSpan>& lone) {
            return core.end_remove(lone);
        });
}

std::uint64_t PostgresCache::cleanup_expired() {
    return lanes_->call<std::uint64_t, CacheCleanupSpan>(
        "cleanup_expired", open_cleanup_spans,
        [](const CacheCore::Self& core, Begun<CacheCleanupSpan> begun) {
            return CacheCore::cleanup_expired(core, std::move(begun));
        });
}

std::uint64_t PostgresCache::flush() {
    return lanes_->call<std::uint64_t, CacheFlushSpan>(
        "flush", open_flush_spans, [](const CacheCore::Self& core, Begun<CacheFlushSpan> begun) {
            return CacheCore::flush(core, std::move(begun));
        });
}

CleanupService PostgresCache::start_cleanup_thread(Duration interval) {
    check_interval(interval);
    return CleanupService(lanes_->start_cleanup(interval));
}

CacheStatistics PostgresCache::statistics() const {
    return lanes_->statistics();
}

std::optional<PoolStatistics> PostgresCache::pool_statistics() const {
    if (!connections_) {
        return std::nullopt;
    }
    PoolStatistics now = connections_->statistics();
    now.waiting += lanes_->waiting();
    return now;
}

}  // namespace psycache
