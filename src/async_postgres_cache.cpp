#include <psycache/async_postgres_cache.hpp>

#include <psycache/connection_pool.hpp>
#include <stdexcept>
#include <utility>

#include "cache/cache_core.hpp"
#include "cache/call_checks.hpp"
#include "cache/cleanup_task.hpp"
#include "observers.hpp"
#include "option_checks.hpp"
#include "values/json_codec.hpp"

namespace psycache {

using detail::CacheCore;

namespace {

std::shared_ptr<CacheCore> make_core(std::shared_ptr<AsyncCachePool> pool,
                                     const CacheOptions& options) {
    if (!pool) {
        throw std::invalid_argument("AsyncPostgresCache: pool must not be null");
    }
    check_cache_options(options);
    auto telemetry = std::make_shared<Telemetry>(options);
    auto breaker = CacheCore::make_breaker(options, telemetry);
    return std::make_shared<CacheCore>(std::move(pool), options, std::move(telemetry),
                                       std::move(breaker));
}

std::shared_ptr<ConnectionPool> make_pool(asio::any_io_executor executor, PoolOptions pool_options,
                                          const CacheOptions& options) {
    // The pool tells them too: null pointers must be found before it has them.
    check_cache_options(options);
    add_instrumentations(pool_options, options);
    return std::make_shared<ConnectionPool>(std::move(executor), std::move(pool_options));
}

}  // namespace

AsyncPostgresCache::AsyncPostgresCache(std::shared_ptr<AsyncCachePool> pool, CacheOptions options)
    : core_(make_core(std::move(pool), options)) {}

AsyncPostgresCache::AsyncPostgresCache(asio::any_io_executor executor, PoolOptions pool_options,
                                       CacheOptions options)
    : core_(make_core(make_pool(std::move(executor), std::move(pool_options), options), options)) {}

AsyncPostgresCache::AsyncPostgresCache(const AsyncPostgresCache&) noexcept = default;
AsyncPostgresCache::AsyncPostgresCache(AsyncPostgresCache&&) noexcept = default;
AsyncPostgresCache& AsyncPostgresCache::operator=(const AsyncPostgresCache&) noexcept = default;
AsyncPostgresCache& AsyncPostgresCache::operator=(AsyncPostgresCache&&) noexcept = default;
AsyncPostgresCache::~AsyncPostgresCache() = default;

// None of these is a coroutine itself: a coroutine would hold on to the handle, which may be gone
// before it starts.

asio::awaitable<std::optional<json::object>> AsyncPostgresCache::get_raw(std::string key,
                                                                         std::string span_name) {
    return CacheCore::get(core_, std::move(key), std::move(span_name));
}

asio::awaitable<void> AsyncPostgresCache::put_raw(std::string key, json::object value, Duration ttl,
                                                  std::string span_name) {
    return CacheCore::put(core_, CacheCore::Form::object, std::move(key), encode_jsonb(value), ttl,
                          std::move(span_name));
}

asio::awaitable<std::optional<std::string>> AsyncPostgresCache::get_text(std::string key,
                                                                         std::string span_name) {
    return CacheCore::get_text(core_, std::move(key), std::move(span_name));
}

asio::awaitable<void> AsyncPostgresCache::put_text(std::string key, std::string json_text,
                                                   Duration ttl, std::string span_name) {
    return CacheCore::put(core_, CacheCore::Form::text, std::move(key),
                          detail::jsonb_of_text(json_text), ttl, std::move(span_name));
}

asio::awaitable<std::vector<std::optional<json::object>>> AsyncPostgresCache::get_raw_many(
    std::vector<std::string> keys, std::string span_name) {
    return CacheCore::get_many(core_, std::move(keys), std::move(span_name));
}

asio::awaitable<void> AsyncPostgresCache::put_raw_many(std::vector<Entry> entries,
                                                       std::string span_name) {
    return CacheCore::put_many(core_, detail::put_items(entries), std::move(span_name));
}

asio::awaitable<std::uint64_t> AsyncPostgresCache::remove_many(std::vector<std::string> keys) {
    return CacheCore::remove_many(core_, std::move(keys));
}

asio::awaitable<bool> AsyncPostgresCache::remove(std::string key) {
    return CacheCore::remove(core_, std::move(key));
}

asio::awaitable<std::uint64_t> AsyncPostgresCache::cleanup_expired() {
    return CacheCore::cleanup_expired(core_);
}

asio::awaitable<std::uint64_t> AsyncPostgresCache::flush() {
    return CacheCore::flush(core_);
}

asio::awaitable<void> AsyncPostgresCache::run_cleanup(Duration interval) {
    check_interval(interval);
    return CacheCore::run_cleanup(core_, interval);
}

AsyncCleanupService AsyncPostgresCache::start_cleanup_task(Duration interval) {
    check_interval(interval);
    asio::any_io_executor executor = core_->pool_executor();
    if (!executor) {
        throw std::invalid_argument(
            "start_cleanup_task: the pool names no executor, so one must be given");
    }
    return start_cleanup_task(std::move(executor), interval);
}

AsyncCleanupService AsyncPostgresCache::start_cleanup_task(asio::any_io_executor executor,
                                                           Duration interval) {
    check_interval(interval);
    if (!executor) {
        throw std::invalid_argument("start_cleanup_task: executor must not be empty");
    }
    auto task = std::make_shared<detail::CleanupTask>(core_, executor);
    task->start(interval);
    return AsyncCleanupService(std::move(task));
}

CacheStatistics AsyncPostgresCache::statistics() const {
    return core_->statistics();
}

std::optional<PoolStatistics> AsyncPostgresCache::pool_statistics() const {
    return core_->pool_statistics();
}

}  // namespace psycache
