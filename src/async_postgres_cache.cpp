#include <psycache/async_postgres_cache.hpp>

#include <psycache/connection_pool.hpp>
#include <stdexcept>
#include <utility>

#include "cache/cache_core.hpp"
#include "cache/cleanup_task.hpp"
#include "cache/get_or_create.hpp"
#include "cache/get_shared.hpp"
#include "cache/groups.hpp"
#include "cache/maintenance.hpp"
#include "cache/perform.hpp"
#include "core/observers.hpp"
#include "core/option_checks.hpp"
#include "values/json_codec.hpp"

namespace psycache {

using namespace detail;

using detail::CacheCore;

namespace {

std::shared_ptr<CacheCore> make_core(std::shared_ptr<AsyncCachePool> pool,
                                     const CacheOptions& options) {
    if (!pool) {
        throw std::invalid_argument("AsyncPostgresCache: pool must not be null");
    }
    check_cache_options(options);
    return std::make_shared<CacheCore>(std::move(pool), options);
}

std::shared_ptr<ConnectionPool> make_pool(asio::any_io_executor executor, PoolOptions pool_options,
                                          const CacheOptions& options) {
    // The pool tells them too: null pointers must be found before it has them.
    check_cache_options(options);
    add_instrumentations(pool_options, options);
    return std::make_shared<ConnectionPool>(std::move(executor), std::move(pool_options));
}

asio::awaitable<void> without_value(asio::awaitable<std::uint64_t> call) {
    co_await std::move(call);
}

}  // namespace

AsyncPostgresCache::AsyncPostgresCache(std::shared_ptr<AsyncCachePool> pool, CacheOptions options)
    : core_(make_core(std::move(pool), options)) {}

AsyncPostgresCache::AsyncPostgresCache(asio::any_io_executor executor, PoolOptions pool_options,
                                       CacheOptions options)
    : core_(make_core(make_pool(std::move(executor), std::move(pool_options), options), options)) {
    core_->own_pool = std::static_pointer_cast<ConnectionPool>(core_->pool);
}

AsyncPostgresCache::AsyncPostgresCache(const AsyncPostgresCache&) noexcept = default;
AsyncPostgresCache::AsyncPostgresCache(AsyncPostgresCache&&) noexcept = default;
AsyncPostgresCache& AsyncPostgresCache::operator=(const AsyncPostgresCache&) noexcept = default;
AsyncPostgresCache& AsyncPostgresCache::operator=(AsyncPostgresCache&&) noexcept = default;
AsyncPostgresCache::~AsyncPostgresCache() = default;

// None of these is a coroutine itself: a coroutine would hold on to the handle, which may be gone
// before it starts.

asio::awaitable<std::optional<json::object>> AsyncPostgresCache::get_raw(std::string key,
                                                                         CallOptions options) {
    return perform(core_, GetRaw(std::move(key)), std::move(options));
}

asio::awaitable<void> AsyncPostgresCache::put_raw(std::string key, json::object value, Duration ttl,
                                                  PutOptions options) {
    return with_tags(PutRaw(std::move(key), encode_jsonb(value), ttl), std::move(options.tags),
                     [&](auto put) { return perform(core_, std::move(put), std::move(options)); });
}

asio::awaitable<std::optional<std::string>> AsyncPostgresCache::get_text(std::string key,
                                                                         CallOptions options) {
    return perform(core_, GetText(std::move(key)), std::move(options));
}

asio::awaitable<void> AsyncPostgresCache::put_text(std::string key, std::string json_text,
                                                   Duration ttl, PutOptions options) {
    return with_tags(PutText(std::move(key), jsonb_of_text(json_text), ttl),
                     std::move(options.tags),
                     [&](auto put) { return perform(core_, std::move(put), std::move(options)); });
}

asio::awaitable<std::shared_ptr<const json::object>> AsyncPostgresCache::get_shared(
    std::string key, CallOptions options) {
    return detail::get_shared<json::object>(core_, std::move(key), shared_reader<json::object>(),
                                            std::move(options));
}

asio::awaitable<std::shared_ptr<const void>> AsyncPostgresCache::get_shared_as(
    std::string key, detail::SharedReader reader, CallOptions options) {
    return detail::get_shared<void>(core_, std::move(key), reader, std::move(options));
}

std::shared_ptr<const json::object> AsyncPostgresCache::peek(std::string_view key) const noexcept {
    return detail::peek(*core_, key);
}

std::shared_ptr<const void> AsyncPostgresCache::peek_as(std::string_view key,
                                                        const std::type_info* type) const noexcept {
    return detail::peek(*core_, key, type);
}

asio::awaitable<std::vector<std::optional<json::object>>> AsyncPostgresCache::get_raw_many(
    std::vector<std::string> keys, CallOptions options) {
    return perform(core_, GetRawMany(std::move(keys)), std::move(options));
}

asio::awaitable<void> AsyncPostgresCache::put_raw_many(std::vector<Entry> entries,
                                                       PutOptions options) {
    return with_tags(PutRawMany(std::move(entries)), std::move(options.tags),
                     [&](auto put) { return perform(core_, std::move(put), std::move(options)); });
}

asio::awaitable<std::uint64_t> AsyncPostgresCache::remove_many(std::vector<std::string> keys,
                                                               CallOptions options) {
    return perform(core_, RemoveMany(std::move(keys)), std::move(options));
}

asio::awaitable<bool> AsyncPostgresCache::remove(std::string key, CallOptions options) {
    return perform(core_, RemoveOne(std::move(key)), std::move(options));
}

asio::awaitable<bool> AsyncPostgresCache::touch(std::string key, Duration ttl,
                                                CallOptions options) {
    return perform(core_, TouchOne(std::move(key), ttl), std::move(options));
}

asio::awaitable<bool> AsyncPostgresCache::get_into(std::string key, ValueReader reader,
                                                   CallOptions options) {
    return perform(core_, GetTyped(std::move(key), reader), std::move(options));
}

asio::awaitable<void> AsyncPostgresCache::put_value(std::string key, const json::value& value,
                                                    Duration ttl, PutOptions options) {
    return with_tags(PutTyped(std::move(key), encode_jsonb(value), ttl), std::move(options.tags),
                     [&](auto put) { return perform(core_, std::move(put), std::move(options)); });
}

asio::awaitable<bool> AsyncPostgresCache::put_value_if_absent(std::string key,
                                                              const json::value& value,
                                                              Duration ttl, PutOptions options) {
    return with_tags(PutIfAbsentOne(std::move(key), encode_jsonb(value), ttl),
                     std::move(options.tags),
                     [&](auto put) { return perform(core_, std::move(put), std::move(options)); });
}

asio::awaitable<bool> AsyncPostgresCache::replace_value(std::string key, const json::value& value,
                                                        Duration ttl, PutOptions options) {
    return with_tags(ReplaceOne(std::move(key), encode_jsonb(value), ttl), std::move(options.tags),
                     [&](auto put) { return perform(core_, std::move(put), std::move(options)); });
}

asio::awaitable<bool> AsyncPostgresCache::compare_and_put_value(std::string key,
                                                                const json::value& expected,
                                                                const json::value& desired,
                                                                Duration ttl, CallOptions options) {
    return perform(
        core_, CompareAndPutOne(std::move(key), encode_jsonb(expected), encode_jsonb(desired), ttl),
        std::move(options));
}

asio::awaitable<bool> AsyncPostgresCache::take_into(std::string key, ValueReader reader,
                                                    CallOptions options) {
    return perform(core_, TakeOne(std::move(key), reader), std::move(options));
}

asio::awaitable<bool> AsyncPostgresCache::get_and_touch_into(std::string key, Duration ttl,
                                                             ValueReader reader,
                                                             CallOptions options) {
    return perform(core_, GetAndTouchOne(std::move(key), ttl, reader), std::move(options));
}

asio::awaitable<std::optional<EntryFacts>> AsyncPostgresCache::get_entry_into(std::string key,
                                                                              ValueReader reader,
                                                                              CallOptions options) {
    return perform(core_, GetEntryOne(std::move(key), reader), std::move(options));
}

asio::awaitable<std::optional<Duration>> AsyncPostgresCache::expires_in(std::string key,
                                                                        CallOptions options) {
    return perform(core_, ExpiresIn(std::move(key)), std::move(options));
}

asio::awaitable<std::int64_t> AsyncPostgresCache::increment(std::string key, std::int64_t by,
                                                            Duration ttl, CallOptions options) {
    return perform(core_, IncrementOne(std::move(key), by, ttl), std::move(options));
}

asio::awaitable<bool> AsyncPostgresCache::merge(std::string key, json::object patch,
                                                CallOptions options) {
    return perform(core_, MergeOne(std::move(key), encode_jsonb(patch)), std::move(options));
}

asio::awaitable<void> AsyncPostgresCache::get_many_into(std::vector<std::string> keys,
                                                        ValueReader reader, CallOptions options) {
    return perform(core_, GetMany(std::move(keys), reader), std::move(options));
}

asio::awaitable<void> AsyncPostgresCache::take_many_into(std::vector<std::string> keys,
                                                         ValueReader reader, CallOptions options) {
    return perform(core_, TakeMany(std::move(keys), reader), std::move(options));
}

asio::awaitable<void> AsyncPostgresCache::put_values(std::vector<KeyedValue> entries, Duration ttl,
                                                     PutOptions options) {
    return with_tags(PutMany(std::move(entries), ttl), std::move(options.tags),
                     [&](auto put) { return perform(core_, std::move(put), std::move(options)); });
}

asio::awaitable<std::vector<bool>> AsyncPostgresCache::touch_many(std::vector<std::string> keys,
                                                                  Duration ttl,
                                                                  CallOptions options) {
    return perform(core_, TouchMany(std::move(keys), ttl), std::move(options));
}

asio::awaitable<std::vector<bool>> AsyncPostgresCache::put_values_if_absent(
    std::vector<KeyedValue> entries, Duration ttl, PutOptions options) {
    return with_tags(PutIfAbsentMany(std::move(entries), ttl), std::move(options.tags),
                     [&](auto put) { return perform(core_, std::move(put), std::move(options)); });
}

asio::awaitable<std::vector<bool>> AsyncPostgresCache::replace_values(
    std::vector<KeyedValue> entries, Duration ttl, PutOptions options) {
    return with_tags(ReplaceMany(std::move(entries), ttl), std::move(options.tags),
                     [&](auto put) { return perform(core_, std::move(put), std::move(options)); });
}

asio::awaitable<void> AsyncPostgresCache::get_and_touch_many_into(std::vector<std::string> keys,
                                                                  Duration ttl, ValueReader reader,
                                                                  CallOptions options) {
    return perform(core_, GetAndTouchMany(std::move(keys), ttl, reader), std::move(options));
}

asio::awaitable<std::vector<std::optional<EntryFacts>>> AsyncPostgresCache::get_entry_many_into(
    std::vector<std::string> keys, ValueReader reader, CallOptions options) {
    return perform(core_, GetEntryMany(std::move(keys), reader), std::move(options));
}

asio::awaitable<std::vector<std::int64_t>> AsyncPostgresCache::increment_many(
    std::vector<std::pair<std::string, std::int64_t>> counters, Duration ttl, CallOptions options) {
    return perform(core_, IncrementMany(std::move(counters), ttl), std::move(options));
}

asio::awaitable<bool> AsyncPostgresCache::create_into(std::string key, CreateOptions options,
                                                      AsyncLoader loader, ValueReader reader,
                                                      bool must_have) {
    return get_or_create_value(core_, std::move(key), std::move(options), std::move(loader), reader,
                               must_have);
}

asio::awaitable<std::vector<bool>> AsyncPostgresCache::create_many_into(
    std::vector<std::string> keys, CreateOptions options, AsyncLoader loader, ValueReader reader,
    bool must_have) {
    return get_or_create_values(core_, std::move(keys), std::move(options), std::move(loader),
                                reader, must_have);
}

asio::awaitable<std::uint64_t> AsyncPostgresCache::remove_prefix(std::string prefix,
                                                                 CallOptions options) {
    return detail::remove_prefix(core_, std::move(prefix), std::move(options));
}

asio::awaitable<std::uint64_t> AsyncPostgresCache::remove_tag(std::string tag,
                                                              CallOptions options) {
    return detail::remove_tag(core_, std::move(tag), std::move(options));
}

asio::awaitable<void> AsyncPostgresCache::clear(CallOptions options) {
    return without_value(detail::clear(core_, std::move(options)));
}

asio::awaitable<std::uint64_t> AsyncPostgresCache::cleanup_expired(CallOptions options) {
    return detail::cleanup_expired(core_, std::move(options));
}

asio::awaitable<std::uint64_t> AsyncPostgresCache::flush(CallOptions options) {
    return detail::flush(core_, std::move(options));
}

asio::awaitable<void> AsyncPostgresCache::warm_up() {
    return detail::warm_up(core_);
}

asio::awaitable<bool> AsyncPostgresCache::drain(Duration timeout) {
    check_positive_finite("timeout", timeout);
    return detail::drain(core_, timeout);
}

asio::awaitable<void> AsyncPostgresCache::run_cleanup(Duration interval) {
    check_interval(interval);
    return detail::run_cleanup(core_, interval);
}

AsyncCleanupService AsyncPostgresCache::start_cleanup_task(Duration interval) {
    check_interval(interval);
    asio::any_io_executor executor = core_->pool->get_executor();
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
    return core_->pool->pool_statistics();
}

}  // namespace psycache
