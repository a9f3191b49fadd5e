#pragma once

/// @file
/// One behaviour, written once, over every way to have a cache.

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include <psycache/psycache.hpp>

#include "borrow.hpp"
#include "run_coro.hpp"
#include "schema.hpp"
#include "server.hpp"

namespace psycache::test {

/// The ways to have a cache.
enum class Flavour {
    async,              ///< AsyncPostgresCache on a ConnectionPool
    blocking,           ///< PostgresCache
    async_borrowing,    ///< AsyncPostgresCache on connections of the application
    blocking_borrowing  ///< PostgresCache on connections of the application
};

inline std::ostream& operator<<(std::ostream& out, Flavour flavour) {
    static constexpr const char* names[] = {"async", "blocking", "async borrowing",
                                            "blocking borrowing"};
    return out << names[static_cast<int>(flavour)];
}

using KeyedValues = std::vector<std::pair<std::string, json::value>>;

/// A cache of some flavour, called as if it were blocking.
class AnyCache {
  public:
    AnyCache() = default;
    AnyCache(const AnyCache&) = delete;
    AnyCache& operator=(const AnyCache&) = delete;
    virtual ~AnyCache() = default;

    virtual std::optional<json::object> get(const std::string& key,
                                            const std::string& name = {}) = 0;
    virtual void put(const std::string& key, json::object value, Duration ttl,
                     const std::string& name = {}) = 0;
    virtual bool remove(const std::string& key) = 0;
    virtual bool touch(const std::string& key, Duration ttl, const std::string& name = {}) = 0;
    virtual std::optional<std::string> get_text(const std::string& key,
                                                const std::string& name = {}) = 0;
    virtual void put_text(const std::string& key, const std::string& text, Duration ttl,
                          const std::string& name = {}) = 0;
    virtual std::vector<std::optional<json::object>> get_many(const std::vector<std::string>& keys,
                                                              const std::string& name = {}) = 0;
    virtual void put_many(const std::vector<Entry>& entries, const std::string& name = {}) = 0;
    virtual std::uint64_t remove_many(const std::vector<std::string>& keys) = 0;
    virtual std::optional<json::value> get_value(const std::string& key) = 0;
    virtual void put_value(const std::string& key, const json::value& value, Duration ttl) = 0;
    virtual bool put_if_absent(const std::string& key, const json::value& value, Duration ttl,
                               PutOptions options = {}) = 0;
    virtual bool replace(const std::string& key, const json::value& value, Duration ttl,
                         PutOptions options = {}) = 0;
    virtual bool compare_and_put(const std::string& key, const json::value& expected,
                                 const json::value& desired, Duration ttl) = 0;
    virtual std::optional<json::value> take(const std::string& key) = 0;
    virtual std::optional<json::value> get_and_touch(const std::string& key, Duration ttl) = 0;
    virtual std::optional<EntryView<json::value>> get_entry(const std::string& key) = 0;
    virtual std::optional<Duration> expires_in(const std::string& key) = 0;
    virtual std::int64_t increment(const std::string& key, std::int64_t by, Duration ttl) = 0;
    virtual bool merge(const std::string& key, const json::object& patch) = 0;
    virtual std::vector<std::optional<json::value>> get_values(
        const std::vector<std::string>& keys) = 0;
    virtual void put_values(const KeyedValues& entries, Duration ttl, PutOptions options = {}) = 0;
    virtual std::vector<std::optional<json::value>> take_many(
        const std::vector<std::string>& keys) = 0;
    virtual std::vector<bool> touch_many(const std::vector<std::string>& keys, Duration ttl) = 0;
    virtual std::vector<bool> put_if_absent_many(const KeyedValues& entries, Duration ttl,
                                                 PutOptions options = {}) = 0;
    virtual std::vector<bool> replace_many(const KeyedValues& entries, Duration ttl,
                                           PutOptions options = {}) = 0;
    virtual std::vector<std::optional<json::value>> get_and_touch_many(
        const std::vector<std::string>& keys, Duration ttl) = 0;
    virtual std::vector<std::optional<EntryView<json::value>>> get_entry_many(
        const std::vector<std::string>& keys) = 0;
    virtual std::vector<std::int64_t> increment_many(
        const std::vector<std::pair<std::string, std::int64_t>>& counters, Duration ttl) = 0;
    virtual void put_with(const std::string& key, json::object value, Duration ttl,
                          PutOptions options) = 0;
    virtual void put_text_with(const std::string& key, const std::string& text, Duration ttl,
                               PutOptions options) = 0;
    virtual void put_many_with(const std::vector<Entry>& entries, PutOptions options) = 0;
    virtual std::uint64_t remove_prefix(const std::string& prefix, CallOptions options = {}) = 0;
    virtual std::uint64_t remove_tag(const std::string& tag, CallOptions options = {}) = 0;
    virtual void clear(CallOptions options = {}) = 0;
    virtual std::uint64_t cleanup() = 0;
    virtual std::shared_ptr<const json::object> get_shared(const std::string& key) = 0;
    virtual std::shared_ptr<const json::object> peek(const std::string& key) = 0;
    virtual std::uint64_t flush() = 0;
    virtual CacheStatistics statistics() = 0;
};

namespace detail {

class AnyAsyncCache : public AnyCache {
  public:
    AnyAsyncCache(PoolOptions pool, CacheOptions options)
        : cache_(context_.get_executor(), std::move(pool), std::move(options)) {}
    AnyAsyncCache(const std::shared_ptr<AppConnections>& connections, CacheOptions options)
        : cache_(connections->pool(context_.get_executor()), std::move(options)) {}

    std::optional<json::object> get(const std::string& key, const std::string& name) override {
        return run_coro(context_, cache_.get_raw(key, name));
    }
    void put(const std::string& key, json::object value, Duration ttl,
             const std::string& name) override {
        run_coro(context_, cache_.put_raw(key, std::move(value), ttl, name));
    }
    bool remove(const std::string& key) override { return run_coro(context_, cache_.remove(key)); }
    std::shared_ptr<const json::object> get_shared(const std::string& key) override {
        return run_coro(context_, cache_.get_shared(key));
    }
    std::shared_ptr<const json::object> peek(const std::string& key) override {
        return cache_.peek(key);
    }
    bool touch(const std::string& key, Duration ttl, const std::string& name) override {
        return run_coro(context_, cache_.touch(key, ttl, name));
    }
    std::optional<std::string> get_text(const std::string& key, const std::string& name) override {
        return run_coro(context_, cache_.get_text(key, name));
    }
    void put_text(const std::string& key, const std::string& text, Duration ttl,
                  const std::string& name) override {
        run_coro(context_, cache_.put_text(key, text, ttl, name));
    }
    std::vector<std::optional<json::object>> get_many(const std::vector<std::string>& keys,
                                                      const std::string& name) override {
        return run_coro(context_, cache_.get_raw_many(keys, name));
    }
    void put_many(const std::vector<Entry>& entries, const std::string& name) override {
        run_coro(context_, cache_.put_raw_many(entries, name));
    }
    std::uint64_t remove_many(const std::vector<std::string>& keys) override {
        return run_coro(context_, cache_.remove_many(keys));
    }
    std::optional<json::value> get_value(const std::string& key) override {
        return run_coro(context_, cache_.get<json::value>(key));
    }
    void put_value(const std::string& key, const json::value& value, Duration ttl) override {
        run_coro(context_, cache_.put(key, value, ttl));
    }
    bool put_if_absent(const std::string& key, const json::value& value, Duration ttl,
                       PutOptions options) override {
        return run_coro(context_, cache_.put_if_absent(key, value, ttl, options));
    }
    bool replace(const std::string& key, const json::value& value, Duration ttl,
                 PutOptions options) override {
        return run_coro(context_, cache_.replace(key, value, ttl, options));
    }
    bool compare_and_put(const std::string& key, const json::value& expected,
                         const json::value& desired, Duration ttl) override {
        return run_coro(context_, cache_.compare_and_put(key, expected, desired, ttl));
    }
    std::optional<json::value> take(const std::string& key) override {
        return run_coro(context_, cache_.take<json::value>(key));
    }
    std::optional<json::value> get_and_touch(const std::string& key, Duration ttl) override {
        return run_coro(context_, cache_.get_and_touch<json::value>(key, ttl));
    }
    std::optional<EntryView<json::value>> get_entry(const std::string& key) override {
        return run_coro(context_, cache_.get_entry<json::value>(key));
    }
    std::optional<Duration> expires_in(const std::string& key) override {
        return run_coro(context_, cache_.expires_in(key));
    }
    std::int64_t increment(const std::string& key, std::int64_t by, Duration ttl) override {
        return run_coro(context_, cache_.increment(key, by, ttl));
    }
    bool merge(const std::string& key, const json::object& patch) override {
        return run_coro(context_, cache_.merge(key, patch));
    }
    std::vector<std::optional<json::value>> get_values(
        const std::vector<std::string>& keys) override {
        return run_coro(context_, cache_.get_many<json::value>(keys));
    }
    void put_values(const KeyedValues& entries, Duration ttl, PutOptions options) override {
        run_coro(context_, cache_.put_many(entries, ttl, options));
    }
    std::vector<std::optional<json::value>> take_many(
        const std::vector<std::string>& keys) override {
        return run_coro(context_, cache_.take_many<json::value>(keys));
    }
    std::vector<bool> touch_many(const std::vector<std::string>& keys, Duration ttl) override {
        return run_coro(context_, cache_.touch_many(keys, ttl));
    }
    std::vector<bool> put_if_absent_many(const KeyedValues& entries, Duration ttl,
                                         PutOptions options) override {
        return run_coro(context_, cache_.put_if_absent_many(entries, ttl, options));
    }
    std::vector<bool> replace_many(const KeyedValues& entries, Duration ttl,
                                   PutOptions options) override {
        return run_coro(context_, cache_.replace_many(entries, ttl, options));
    }
    std::vector<std::optional<json::value>> get_and_touch_many(const std::vector<std::string>& keys,
                                                               Duration ttl) override {
        return run_coro(context_, cache_.get_and_touch_many<json::value>(keys, ttl));
    }
    std::vector<std::optional<EntryView<json::value>>> get_entry_many(
        const std::vector<std::string>& keys) override {
        return run_coro(context_, cache_.get_entry_many<json::value>(keys));
    }
    std::vector<std::int64_t> increment_many(
        const std::vector<std::pair<std::string, std::int64_t>>& counters, Duration ttl) override {
        return run_coro(context_, cache_.increment_many(counters, ttl));
    }
    void put_with(const std::string& key, json::object value, Duration ttl,
                  PutOptions options) override {
        run_coro(context_, cache_.put_raw(key, std::move(value), ttl, std::move(options)));
    }
    void put_text_with(const std::string& key, const std::string& text, Duration ttl,
                       PutOptions options) override {
        run_coro(context_, cache_.put_text(key, text, ttl, std::move(options)));
    }
    void put_many_with(const std::vector<Entry>& entries, PutOptions options) override {
        run_coro(context_, cache_.put_raw_many(entries, std::move(options)));
    }
    std::uint64_t remove_prefix(const std::string& prefix, CallOptions options) override {
        return run_coro(context_, cache_.remove_prefix(prefix, std::move(options)));
    }
    std::uint64_t remove_tag(const std::string& tag, CallOptions options) override {
        return run_coro(context_, cache_.remove_tag(tag, std::move(options)));
    }
    void clear(CallOptions options) override {
        run_coro(context_, cache_.clear(std::move(options)));
    }
    std::uint64_t cleanup() override { return run_coro(context_, cache_.cleanup_expired()); }
    std::uint64_t flush() override { return run_coro(context_, cache_.flush()); }
    CacheStatistics statistics() override { return cache_.statistics(); }

  private:
    asio::io_context context_;
    AsyncPostgresCache cache_;
};

class AnyBlockingCache : public AnyCache {
  public:
    AnyBlockingCache(PoolOptions pool, CacheOptions options)
        : cache_(std::move(pool), std::move(options)) {}
    AnyBlockingCache(const std::shared_ptr<AppConnections>& connections, CacheOptions options)
        : cache_(connections->pool(), std::move(options)) {}

    std::optional<json::object> get(const std::string& key, const std::string& name) override {
        return cache_.get_raw(key, name);
    }
    void put(const std::string& key, json::object value, Duration ttl,
             const std::string& name) override {
        cache_.put_raw(key, value, ttl, name);
    }
    bool remove(const std::string& key) override { return cache_.remove(key); }
    std::shared_ptr<const json::object> get_shared(const std::string& key) override {
        return cache_.get_shared(key);
    }
    std::shared_ptr<const json::object> peek(const std::string& key) override {
        return cache_.peek(key);
    }
    bool touch(const std::string& key, Duration ttl, const std::string& name) override {
        return cache_.touch(key, ttl, name);
    }
    std::optional<std::string> get_text(const std::string& key, const std::string& name) override {
        return cache_.get_text(key, name);
    }
    void put_text(const std::string& key, const std::string& text, Duration ttl,
                  const std::string& name) override {
        cache_.put_text(key, text, ttl, name);
    }
    std::vector<std::optional<json::object>> get_many(const std::vector<std::string>& keys,
                                                      const std::string& name) override {
        return cache_.get_raw_many(keys, name);
    }
    void put_many(const std::vector<Entry>& entries, const std::string& name) override {
        cache_.put_raw_many(entries, name);
    }
    std::uint64_t remove_many(const std::vector<std::string>& keys) override {
        return cache_.remove_many(keys);
    }
    std::optional<json::value> get_value(const std::string& key) override {
        return cache_.get<json::value>(key);
    }
    void put_value(const std::string& key, const json::value& value, Duration ttl) override {
        cache_.put(key, value, ttl);
    }
    bool put_if_absent(const std::string& key, const json::value& value, Duration ttl,
                       PutOptions options) override {
        return cache_.put_if_absent(key, value, ttl, options);
    }
    bool replace(const std::string& key, const json::value& value, Duration ttl,
                 PutOptions options) override {
        return cache_.replace(key, value, ttl, options);
    }
    bool compare_and_put(const std::string& key, const json::value& expected,
                         const json::value& desired, Duration ttl) override {
        return cache_.compare_and_put(key, expected, desired, ttl);
    }
    std::optional<json::value> take(const std::string& key) override {
        return cache_.take<json::value>(key);
    }
    std::optional<json::value> get_and_touch(const std::string& key, Duration ttl) override {
        return cache_.get_and_touch<json::value>(key, ttl);
    }
    std::optional<EntryView<json::value>> get_entry(const std::string& key) override {
        return cache_.get_entry<json::value>(key);
    }
    std::optional<Duration> expires_in(const std::string& key) override {
        return cache_.expires_in(key);
    }
    std::int64_t increment(const std::string& key, std::int64_t by, Duration ttl) override {
        return cache_.increment(key, by, ttl);
    }
    bool merge(const std::string& key, const json::object& patch) override {
        return cache_.merge(key, patch);
    }
    std::vector<std::optional<json::value>> get_values(
        const std::vector<std::string>& keys) override {
        return cache_.get_many<json::value>(keys);
    }
    void put_values(const KeyedValues& entries, Duration ttl, PutOptions options) override {
        cache_.put_many(entries, ttl, options);
    }
    std::vector<std::optional<json::value>> take_many(
        const std::vector<std::string>& keys) override {
        return cache_.take_many<json::value>(keys);
    }
    std::vector<bool> touch_many(const std::vector<std::string>& keys, Duration ttl) override {
        return cache_.touch_many(keys, ttl);
    }
    std::vector<bool> put_if_absent_many(const KeyedValues& entries, Duration ttl,
                                         PutOptions options) override {
        return cache_.put_if_absent_many(entries, ttl, options);
    }
    std::vector<bool> replace_many(const KeyedValues& entries, Duration ttl,
                                   PutOptions options) override {
        return cache_.replace_many(entries, ttl, options);
    }
    std::vector<std::optional<json::value>> get_and_touch_many(const std::vector<std::string>& keys,
                                                               Duration ttl) override {
        return cache_.get_and_touch_many<json::value>(keys, ttl);
    }
    std::vector<std::optional<EntryView<json::value>>> get_entry_many(
        const std::vector<std::string>& keys) override {
        return cache_.get_entry_many<json::value>(keys);
    }
    std::vector<std::int64_t> increment_many(
        const std::vector<std::pair<std::string, std::int64_t>>& counters, Duration ttl) override {
        return cache_.increment_many(counters, ttl);
    }
    void put_with(const std::string& key, json::object value, Duration ttl,
                  PutOptions options) override {
        cache_.put_raw(key, value, ttl, options);
    }
    void put_text_with(const std::string& key, const std::string& text, Duration ttl,
                       PutOptions options) override {
        cache_.put_text(key, text, ttl, options);
    }
    void put_many_with(const std::vector<Entry>& entries, PutOptions options) override {
        cache_.put_raw_many(entries, options);
    }
    std::uint64_t remove_prefix(const std::string& prefix, CallOptions options) override {
        return cache_.remove_prefix(prefix, options);
    }
    std::uint64_t remove_tag(const std::string& tag, CallOptions options) override {
        return cache_.remove_tag(tag, options);
    }
    void clear(CallOptions options) override { cache_.clear(options); }
    std::uint64_t cleanup() override { return cache_.cleanup_expired(); }
    std::uint64_t flush() override { return cache_.flush(); }
    CacheStatistics statistics() override { return cache_.statistics(); }

  private:
    PostgresCache cache_;
};

}  // namespace detail

/// A cache; the borrowing flavours take only the DSN and the size from @p pool.
inline std::unique_ptr<AnyCache> make_cache(Flavour flavour, CacheOptions options,
                                            PoolOptions pool) {
    switch (flavour) {
        case Flavour::async:
            return std::make_unique<detail::AnyAsyncCache>(std::move(pool), std::move(options));
        case Flavour::blocking:
            return std::make_unique<detail::AnyBlockingCache>(std::move(pool), std::move(options));
        case Flavour::async_borrowing:
            return std::make_unique<detail::AnyAsyncCache>(
                std::make_shared<AppConnections>(pool.dsn, pool.max_size), std::move(options));
        case Flavour::blocking_borrowing:
            return std::make_unique<detail::AnyBlockingCache>(
                std::make_shared<AppConnections>(pool.dsn, pool.max_size), std::move(options));
    }
    throw std::logic_error("no such flavour");
}

/// A cache on the table of @p schema.
inline std::unique_ptr<AnyCache> make_cache(Flavour flavour, const TestSchema& schema) {
    return make_cache(flavour, schema.cache_options(), server_pool());
}

}  // namespace psycache::test

/// In a test case: runs it once for every flavour.
#define EVERY_FLAVOUR()                                                             \
    GENERATE(::psycache::test::Flavour::async, ::psycache::test::Flavour::blocking, \
             ::psycache::test::Flavour::async_borrowing,                            \
             ::psycache::test::Flavour::blocking_borrowing)
/// The same for those that open connections themselves.
#define OWN_CONNECTIONS() \
    GENERATE(::psycache::test::Flavour::async, ::psycache::test::Flavour::blocking)
