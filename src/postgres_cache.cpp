#include <psycache/postgres_cache.hpp>

#include <limits>
#include <psycache/connection_pool.hpp>
#include <stdexcept>
#include <utility>

#include "facade/lane_pool.hpp"
#include "option_checks.hpp"
#include "values/json_codec.hpp"

namespace psycache {

namespace {

using detail::CacheCore;
using detail::LanePool;
using Until = CacheCore::Until;

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

std::shared_ptr<LanePool> lanes_of(PoolOptions pool_options, CacheOptions options) {
    check_pool_options(pool_options);
    check_cache_options(options);
    const std::size_t most = pool_options.max_size;
    pool_options.max_size = 1;  // of each lane
    return std::make_shared<LanePool>(
        [pool_options = std::move(pool_options)](asio::any_io_executor executor) {
            return std::make_shared<ConnectionPool>(std::move(executor), pool_options);
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

/// co_spawn hands over a value; a call without one needs a stand-in.
struct Nothing {};

asio::awaitable<Nothing> put(CacheCore::Self core, std::string key, Result<std::string> jsonb,
                             Duration ttl, std::string span_name, Until until) {
    co_await CacheCore::put(std::move(core), std::move(key), std::move(jsonb), ttl,
                            std::move(span_name), until);
    co_return Nothing{};
}

}  // namespace

PostgresCache::PostgresCache(PoolOptions pool_options, CacheOptions options)
    : lanes_(lanes_of(std::move(pool_options), std::move(options))) {}

PostgresCache::PostgresCache(std::shared_ptr<CachePool> pool, CacheOptions options)
    : lanes_(lanes_over(std::move(pool), std::move(options))) {}

PostgresCache::~PostgresCache() = default;

std::optional<json::object> PostgresCache::get_raw(std::string_view key,
                                                   std::string_view span_name) {
    return lanes_->call<std::optional<json::object>>(
        "get_raw", [&](const CacheCore::Self& core, Until until) {
            return CacheCore::get(core, std::string(key), std::string(span_name), until);
        });
}

void PostgresCache::put_raw(std::string_view key, const json::object& value, Duration ttl,
                            std::string_view span_name) {
    lanes_->call<Nothing>("put_raw", [&](const CacheCore::Self& core, Until until) {
        return put(core, std::string(key), encode_jsonb(value), ttl, std::string(span_name), until);
    });
}

bool PostgresCache::remove(std::string_view key) {
    return lanes_->call<bool>("remove", [&](const CacheCore::Self& core, Until until) {
        return CacheCore::remove(core, std::string(key), until);
    });
}

std::uint64_t PostgresCache::cleanup_expired() {
    return lanes_->call<std::uint64_t>("cleanup_expired", [](const CacheCore::Self& core, Until) {
        return CacheCore::cleanup_expired(core);
    });
}

std::uint64_t PostgresCache::flush() {
    return lanes_->call<std::uint64_t>(
        "flush", [](const CacheCore::Self& core, Until) { return CacheCore::flush(core); });
}

CleanupService PostgresCache::start_cleanup_thread(Duration interval) {
    check_interval(interval);
    return CleanupService(lanes_->start_cleanup(interval));
}

CacheStatistics PostgresCache::statistics() const {
    return lanes_->statistics();
}

}  // namespace psycache
