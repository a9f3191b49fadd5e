#include <psycache/postgres_cache.hpp>

#include <stdexcept>
#include <utility>

#include "blocking/blocking_core.hpp"
#include "blocking/get_or_create.hpp"
#include "cache/get_shared.hpp"
#include "cache/groups.hpp"
#include "cache/maintenance.hpp"
#include "core/observers.hpp"
#include "core/option_checks.hpp"
#include "pg/conninfo.hpp"
#include "values/json_codec.hpp"

namespace psycache {

using namespace detail;

namespace {

std::shared_ptr<PoolSource> own_pools(PoolOptions pool_options, const CacheOptions& options) {
    check_pool_options(pool_options);
    pg::check_dsn(pool_options.dsn, "PoolOptions::dsn");
    check_cache_options(options);
    add_instrumentations(pool_options, options);
    return std::make_shared<OwnPools>(std::move(pool_options));
}

std::shared_ptr<PoolSource> pool_of_application(std::shared_ptr<CachePool> pool,
                                                const CacheOptions& options) {
    if (!pool) {
        throw std::invalid_argument("PostgresCache: pool must not be null");
    }
    check_cache_options(options);
    return std::make_shared<ApplicationPool>(std::move(pool));
}

}  // namespace

PostgresCache::PostgresCache(PoolOptions pool_options, CacheOptions options)
    : core_(std::make_shared<BlockingCore>(own_pools(std::move(pool_options), options), options)) {}

PostgresCache::PostgresCache(std::shared_ptr<CachePool> pool, CacheOptions options)
    : core_(
          std::make_shared<BlockingCore>(pool_of_application(std::move(pool), options), options)) {}

PostgresCache::~PostgresCache() = default;

std::optional<json::object> PostgresCache::get_raw(std::string_view key,
                                                   const CallOptions& options) {
    return core_->perform(GetRaw(std::string(key)), options);
}

void PostgresCache::put_raw(std::string_view key, const json::object& value, Duration ttl,
                            const PutOptions& options) {
    with_tags(PutRaw(std::string(key), encode_jsonb(value), ttl), options.tags,
              [&](auto put) { core_->perform(std::move(put), options); });
}

bool PostgresCache::remove(std::string_view key, const CallOptions& options) {
    return core_->perform(RemoveOne(std::string(key)), options);
}

bool PostgresCache::touch(std::string_view key, Duration ttl, const CallOptions& options) {
    return core_->perform(TouchOne(std::string(key), ttl), options);
}

std::shared_ptr<const json::object> PostgresCache::get_shared(std::string_view key,
                                                              const CallOptions& options) {
    return std::static_pointer_cast<const json::object>(
        get_shared_as(key, shared_reader<json::object>(), options));
}

std::shared_ptr<const void> PostgresCache::get_shared_as(std::string_view key,
                                                         detail::SharedReader reader,
                                                         const CallOptions& options) {
    const CacheCore& cache = *core_->cache();
    if (Shared object = find_shared(cache, key, reader, options)) {
        return object;
    }
    const SharedLookUp look_up(cache, key, reader);
    return look_up.found(core_->perform(look_up.request(), options));
}

std::shared_ptr<const json::object> PostgresCache::peek(std::string_view key) const noexcept {
    return detail::peek(*core_->cache(), key);
}

std::shared_ptr<const void> PostgresCache::peek_as(std::string_view key,
                                                   const std::type_info* type) const noexcept {
    return detail::peek(*core_->cache(), key, type);
}

std::optional<std::string> PostgresCache::get_text(std::string_view key,
                                                   const CallOptions& options) {
    return core_->perform(GetText(std::string(key)), options);
}

void PostgresCache::put_text(std::string_view key, std::string_view json_text, Duration ttl,
                             const PutOptions& options) {
    with_tags(PutText(std::string(key), jsonb_of_text(json_text), ttl), options.tags,
              [&](auto put) { core_->perform(std::move(put), options); });
}

std::vector<std::optional<json::object>> PostgresCache::get_raw_many(
    const std::vector<std::string>& keys, const CallOptions& options) {
    return core_->perform(GetRawMany(keys), options);
}

void PostgresCache::put_raw_many(const std::vector<Entry>& entries, const PutOptions& options) {
    with_tags(PutRawMany(entries), options.tags,
              [&](auto put) { core_->perform(std::move(put), options); });
}

std::uint64_t PostgresCache::remove_many(const std::vector<std::string>& keys,
                                         const CallOptions& options) {
    return core_->perform(RemoveMany(keys), options);
}

void PostgresCache::get_into(std::string_view key, ValueReader reader, const CallOptions& options) {
    core_->perform(GetTyped(std::string(key), reader), options);
}

void PostgresCache::put_value(std::string_view key, const json::value& value, Duration ttl,
                              const PutOptions& options) {
    with_tags(PutTyped(std::string(key), encode_jsonb(value), ttl), options.tags,
              [&](auto put) { core_->perform(std::move(put), options); });
}

bool PostgresCache::put_value_if_absent(std::string_view key, const json::value& value,
                                        Duration ttl, const PutOptions& options) {
    return with_tags(PutIfAbsentOne(std::string(key), encode_jsonb(value), ttl), options.tags,
                     [&](auto put) { return core_->perform(std::move(put), options); });
}

bool PostgresCache::replace_value(std::string_view key, const json::value& value, Duration ttl,
                                  const PutOptions& options) {
    return with_tags(ReplaceOne(std::string(key), encode_jsonb(value), ttl), options.tags,
                     [&](auto put) { return core_->perform(std::move(put), options); });
}

bool PostgresCache::compare_and_put_value(std::string_view key, const json::value& expected,
                                          const json::value& desired, Duration ttl,
                                          const CallOptions& options) {
    return core_->perform(
        CompareAndPutOne(std::string(key), encode_jsonb(expected), encode_jsonb(desired), ttl),
        options);
}

void PostgresCache::take_into(std::string_view key, ValueReader reader,
                              const CallOptions& options) {
    core_->perform(TakeOne(std::string(key), reader), options);
}

void PostgresCache::get_and_touch_into(std::string_view key, Duration ttl, ValueReader reader,
                                       const CallOptions& options) {
    core_->perform(GetAndTouchOne(std::string(key), ttl, reader), options);
}

std::optional<EntryFacts> PostgresCache::get_entry_into(std::string_view key, ValueReader reader,
                                                        const CallOptions& options) {
    return core_->perform(GetEntryOne(std::string(key), reader), options);
}

std::optional<Duration> PostgresCache::expires_in(std::string_view key,
                                                  const CallOptions& options) {
    return core_->perform(ExpiresIn(std::string(key)), options);
}

std::int64_t PostgresCache::increment(std::string_view key, std::int64_t by, Duration ttl,
                                      const CallOptions& options) {
    return core_->perform(IncrementOne(std::string(key), by, ttl), options);
}

bool PostgresCache::merge(std::string_view key, const json::object& patch,
                          const CallOptions& options) {
    return core_->perform(MergeOne(std::string(key), encode_jsonb(patch)), options);
}

void PostgresCache::get_many_into(const std::vector<std::string>& keys, ValueReader reader,
                                  const CallOptions& options) {
    core_->perform(GetMany(keys, reader), options);
}

void PostgresCache::take_many_into(const std::vector<std::string>& keys, ValueReader reader,
                                   const CallOptions& options) {
    core_->perform(TakeMany(keys, reader), options);
}

void PostgresCache::put_values(const std::vector<KeyedValue>& entries, Duration ttl,
                               const PutOptions& options) {
    with_tags(PutMany(entries, ttl), options.tags,
              [&](auto put) { core_->perform(std::move(put), options); });
}

std::vector<bool> PostgresCache::touch_many(const std::vector<std::string>& keys, Duration ttl,
                                            const CallOptions& options) {
    return core_->perform(TouchMany(keys, ttl), options);
}

std::vector<bool> PostgresCache::put_values_if_absent(const std::vector<KeyedValue>& entries,
                                                      Duration ttl, const PutOptions& options) {
    return with_tags(PutIfAbsentMany(entries, ttl), options.tags,
                     [&](auto put) { return core_->perform(std::move(put), options); });
}

std::vector<bool> PostgresCache::replace_values(const std::vector<KeyedValue>& entries,
                                                Duration ttl, const PutOptions& options) {
    return with_tags(ReplaceMany(entries, ttl), options.tags,
                     [&](auto put) { return core_->perform(std::move(put), options); });
}

void PostgresCache::get_and_touch_many_into(const std::vector<std::string>& keys, Duration ttl,
                                            ValueReader reader, const CallOptions& options) {
    core_->perform(GetAndTouchMany(keys, ttl, reader), options);
}

std::vector<std::optional<EntryFacts>> PostgresCache::get_entry_many_into(
    const std::vector<std::string>& keys, ValueReader reader, const CallOptions& options) {
    return core_->perform(GetEntryMany(keys, reader), options);
}

std::vector<std::int64_t> PostgresCache::increment_many(
    const std::vector<std::pair<std::string, std::int64_t>>& counters, Duration ttl,
    const CallOptions& options) {
    return core_->perform(IncrementMany(counters, ttl), options);
}

bool PostgresCache::create_into(std::string_view key, const CreateOptions& options,
                                const Loader& loader, ValueReader reader, bool must_have) {
    return get_or_create_value(*core_, std::string(key), options, loader, reader, must_have);
}

std::vector<bool> PostgresCache::create_many_into(const std::vector<std::string>& keys,
                                                  const CreateOptions& options,
                                                  const Loader& loader, ValueReader reader,
                                                  bool must_have) {
    return get_or_create_values(*core_, keys, options, loader, reader, must_have);
}

std::uint64_t PostgresCache::remove_prefix(std::string_view prefix, const CallOptions& options) {
    return core_->maintain(RemovePrefixed::name, [&](const CacheCore::Self& core) {
        return detail::remove_prefix(core, std::string(prefix), options);
    });
}

std::uint64_t PostgresCache::remove_tag(std::string_view tag, const CallOptions& options) {
    return core_->maintain(RemoveTagged::name, [&](const CacheCore::Self& core) {
        return detail::remove_tag(core, std::string(tag), options);
    });
}

void PostgresCache::clear(const CallOptions& options) {
    core_->maintain(ClearAll::name,
                    [&](const CacheCore::Self& core) { return detail::clear(core, options); });
}

std::uint64_t PostgresCache::cleanup_expired(const CallOptions& options) {
    return core_->maintain(CleanupExpired::name, [&](const CacheCore::Self& core) {
        return detail::cleanup_expired(core, options);
    });
}

std::uint64_t PostgresCache::flush(const CallOptions& options) {
    return core_->maintain(
        FlushAll::name, [&](const CacheCore::Self& core) { return detail::flush(core, options); });
}

CleanupService PostgresCache::start_cleanup_thread(Duration interval) {
    check_interval(interval);
    return CleanupService(core_->start_cleanup(interval));
}

CacheStatistics PostgresCache::statistics() const {
    return core_->statistics();
}

std::optional<PoolStatistics> PostgresCache::pool_statistics() const {
    return core_->pool_statistics();
}

bool PostgresCache::drain(Duration timeout) {
    check_positive_finite("timeout", timeout);
    return core_->drain(timeout);
}

void PostgresCache::warm_up() {
    core_->warm_up();
}

}  // namespace psycache
