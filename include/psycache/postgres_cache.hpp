#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <psycache/async_postgres_cache.hpp>
#include <psycache/cache_pool.hpp>
#include <psycache/cleanup_service.hpp>
#include <psycache/connection_pool.hpp>
#include <psycache/duration.hpp>
#include <psycache/entry.hpp>
#include <psycache/export.hpp>
#include <psycache/options.hpp>
#include <psycache/typed.hpp>

namespace psycache {

namespace detail {
class BlockingCore;
}

/// A key-value cache in PostgreSQL for blocking code: AsyncPostgresCache without coroutines.
///
/// It is an AsyncPostgresCache driven by the threads that wait: one pool, one queue of calls, and
/// an event loop that has no thread of its own. While no more threads call than the pool may have
/// connections, each runs its statement itself on an idle connection. When there are more, calls
/// that wait share statements, as those of coroutines do: one of the waiting threads runs a
/// statement for all of them. Whatever else there is to do, such as opening a connection or trying
/// a locked row again, is done by a thread that waits anyway.
///
/// Values, errors and effects in the database are those of AsyncPostgresCache; what can be
/// cancelled there cannot here. A blocking call inside an event loop stops everything else on that
/// loop for as long as it takes, up to `CacheOptions::timeout`: a server that runs on Asio is
/// better off with AsyncPostgresCache. A lone call whose statement is not answered in time costs
/// its connection; where others share the statement, it goes on for them.
///
/// @par Threads
/// All members may be called from any thread at any time. A call from inside another call of the
/// same object on the same thread (from an instrumentation, say) is refused with
/// Errc::reentrant_call.
/// @par Object lifetimes
/// Not copyable; must outlive its calls. Cleanup services may outlive it.
class PSYCACHE_EXPORT PostgresCache {
  public:
    /// A cache with connections of its own; none is opened yet.
    ///
    /// @throws std::invalid_argument naming the field that is wrong, of either options.
    explicit PostgresCache(PoolOptions pool_options, CacheOptions options = {});

    /// A cache on the connections of @p pool, one borrowed for each statement.
    ///
    /// @param pool    shared with the caller; not null. It alone decides how many threads run at
    /// the
    ///                same time. Where it makes a thread wait, it must do so for less than
    ///                `CacheOptions::timeout`: the calls that share the statement wait with it.
    /// @param options see CacheOptions.
    /// @throws std::invalid_argument naming the field that is wrong.
    explicit PostgresCache(std::shared_ptr<CachePool> pool, CacheOptions options = {});

    PostgresCache(const PostgresCache&) = delete;
    PostgresCache& operator=(const PostgresCache&) = delete;
    ~PostgresCache();

    /// @see AsyncPostgresCache::get_raw.
    std::optional<json::object> get_raw(std::string_view key, const CallOptions& options = {});
    /// @see AsyncPostgresCache::put_raw.
    void put_raw(std::string_view key, const json::object& value, Duration ttl,
                 const PutOptions& options = {});
    /// A value must be an object; what merely converts to one does not compile.
    template <detail::NoObject Value>
    void put_raw(std::string_view key, Value&& value, Duration ttl,
                 const PutOptions& options = {}) = delete;
    template <detail::NoMember Value>
    void put_raw(std::string_view key, std::initializer_list<Value> value, Duration ttl,
                 const PutOptions& options = {}) = delete;
    /// @see AsyncPostgresCache::remove.
    bool remove(std::string_view key, const CallOptions& options = {});
    /// @see AsyncPostgresCache::touch.
    bool touch(std::string_view key, Duration ttl, const CallOptions& options = {});
    /// @see AsyncPostgresCache::get_shared.
    std::shared_ptr<const json::object> get_shared(std::string_view key,
                                                   const CallOptions& options = {});
    /// @see AsyncPostgresCache::get_shared.
    template <class T>
    std::shared_ptr<const T> get_shared(std::string_view key, const CallOptions& options = {}) {
        return std::static_pointer_cast<const T>(
            get_shared_as(key, detail::shared_reader<T>(), options));
    }
    /// @see AsyncPostgresCache::peek.
    [[nodiscard]] std::shared_ptr<const json::object> peek(std::string_view key) const noexcept;
    /// @see AsyncPostgresCache::peek.
    template <class T>
    [[nodiscard]] std::shared_ptr<const T> peek(std::string_view key) const noexcept {
        return detail::peek_typed<T>(*this, key);
    }
    /// @see AsyncPostgresCache::get_text.
    std::optional<std::string> get_text(std::string_view key, const CallOptions& options = {});
    /// @see AsyncPostgresCache::put_text.
    void put_text(std::string_view key, std::string_view json_text, Duration ttl,
                  const PutOptions& options = {});
    /// @see AsyncPostgresCache::get_raw_many.
    std::vector<std::optional<json::object>> get_raw_many(const std::vector<std::string>& keys,
                                                          const CallOptions& options = {});
    /// @see AsyncPostgresCache::put_raw_many.
    void put_raw_many(const std::vector<Entry>& entries, const PutOptions& options = {});
    /// @see AsyncPostgresCache::remove_many.
    std::uint64_t remove_many(const std::vector<std::string>& keys,
                              const CallOptions& options = {});
    /// @see AsyncPostgresCache::get.
    template <class T>
    std::optional<T> get(std::string_view key, const CallOptions& options = {}) {
        std::optional<T> value;
        get_into(key, detail::reader_of(value), options);
        return value;
    }
    /// @see AsyncPostgresCache::put.
    template <class T>
    void put(std::string_view key, const T& value, Duration ttl, const PutOptions& options = {}) {
        put_value(key, detail::as_json(value), ttl, options);
    }
    /// @see AsyncPostgresCache::put_if_absent.
    template <class T>
    bool put_if_absent(std::string_view key, const T& value, Duration ttl,
                       const PutOptions& options = {}) {
        return put_value_if_absent(key, detail::as_json(value), ttl, options);
    }
    /// @see AsyncPostgresCache::replace.
    template <class T>
    bool replace(std::string_view key, const T& value, Duration ttl,
                 const PutOptions& options = {}) {
        return replace_value(key, detail::as_json(value), ttl, options);
    }
    /// @see AsyncPostgresCache::compare_and_put.
    template <class T>
    bool compare_and_put(std::string_view key, const T& expected, const T& desired, Duration ttl,
                         const CallOptions& options = {}) {
        return compare_and_put_value(key, detail::as_json(expected), detail::as_json(desired), ttl,
                                     options);
    }
    /// @see AsyncPostgresCache::take.
    template <class T>
    std::optional<T> take(std::string_view key, const CallOptions& options = {}) {
        std::optional<T> value;
        take_into(key, detail::reader_of(value), options);
        return value;
    }
    /// @see AsyncPostgresCache::get_and_touch.
    template <class T>
    std::optional<T> get_and_touch(std::string_view key, Duration ttl,
                                   const CallOptions& options = {}) {
        std::optional<T> value;
        get_and_touch_into(key, ttl, detail::reader_of(value), options);
        return value;
    }
    /// @see AsyncPostgresCache::get_entry.
    template <class T>
    std::optional<EntryView<T>> get_entry(std::string_view key, const CallOptions& options = {}) {
        std::optional<T> value;
        const auto facts = get_entry_into(key, detail::reader_of(value), options);
        return detail::entry_of<T>(std::move(value), facts);
    }
    /// @see AsyncPostgresCache::expires_in.
    std::optional<Duration> expires_in(std::string_view key, const CallOptions& options = {});
    /// @see AsyncPostgresCache::increment.
    std::int64_t increment(std::string_view key, std::int64_t by, Duration ttl,
                           const CallOptions& options = {});
    /// @see AsyncPostgresCache::merge.
    bool merge(std::string_view key, const json::object& patch, const CallOptions& options = {});
    /// A patch must be an object; what merely converts to one does not compile.
    template <detail::NoObject Value>
    bool merge(std::string_view key, Value&& patch, const CallOptions& options = {}) = delete;
    template <detail::NoMember Value>
    bool merge(std::string_view key, std::initializer_list<Value> patch,
               const CallOptions& options = {}) = delete;
    /// @see AsyncPostgresCache::get_many.
    template <class T>
    std::vector<std::optional<T>> get_many(const std::vector<std::string>& keys,
                                           const CallOptions& options = {}) {
        std::vector<std::optional<T>> values(keys.size());
        get_many_into(keys, detail::reader_of(values), options);
        return values;
    }
    /// @see AsyncPostgresCache::put_many.
    template <class T>
    void put_many(const std::vector<std::pair<std::string, T>>& entries, Duration ttl,
                  const PutOptions& options = {}) {
        put_values(detail::values_of(entries), ttl, options);
    }
    /// @see AsyncPostgresCache::take_many.
    template <class T>
    std::vector<std::optional<T>> take_many(const std::vector<std::string>& keys,
                                            const CallOptions& options = {}) {
        std::vector<std::optional<T>> values(keys.size());
        take_many_into(keys, detail::reader_of(values), options);
        return values;
    }
    /// @see AsyncPostgresCache::touch_many.
    std::vector<bool> touch_many(const std::vector<std::string>& keys, Duration ttl,
                                 const CallOptions& options = {});
    /// @see AsyncPostgresCache::put_if_absent_many.
    template <class T>
    std::vector<bool> put_if_absent_many(const std::vector<std::pair<std::string, T>>& entries,
                                         Duration ttl, const PutOptions& options = {}) {
        return put_values_if_absent(detail::values_of(entries), ttl, options);
    }
    /// @see AsyncPostgresCache::replace_many.
    template <class T>
    std::vector<bool> replace_many(const std::vector<std::pair<std::string, T>>& entries,
                                   Duration ttl, const PutOptions& options = {}) {
        return replace_values(detail::values_of(entries), ttl, options);
    }
    /// @see AsyncPostgresCache::get_and_touch_many.
    template <class T>
    std::vector<std::optional<T>> get_and_touch_many(const std::vector<std::string>& keys,
                                                     Duration ttl,
                                                     const CallOptions& options = {}) {
        std::vector<std::optional<T>> values(keys.size());
        get_and_touch_many_into(keys, ttl, detail::reader_of(values), options);
        return values;
    }
    /// @see AsyncPostgresCache::get_entry_many.
    template <class T>
    std::vector<std::optional<EntryView<T>>> get_entry_many(const std::vector<std::string>& keys,
                                                            const CallOptions& options = {}) {
        std::vector<std::optional<T>> values(keys.size());
        const auto facts = get_entry_many_into(keys, detail::reader_of(values), options);
        return detail::entries_of<T>(std::move(values), facts);
    }
    /// @see AsyncPostgresCache::increment_many.
    std::vector<std::int64_t> increment_many(
        const std::vector<std::pair<std::string, std::int64_t>>& counters, Duration ttl,
        const CallOptions& options = {});
    /// @see AsyncPostgresCache::get_or_create. The loader is `T()`. That of a missing value runs in
    /// the calling thread, and nothing cancels it: callers that join it wait, until
    /// CreateOptions::timeout. That of a stale value, or of one that is loaded anew early, runs in
    /// a thread of its own, eight at most; the destructor waits for them. A loader that wants the
    /// value of its own key in the same thread gets Errc::reentrant_call.
    template <class T, class Loader>
    T get_or_create(std::string_view key, const CreateOptions& options, Loader loader) {
        std::optional<typename detail::Created<T>::Value> value;
        const bool there = create_into(key, options, detail::blocking_loader<T>(std::move(loader)),
                                       detail::reader_of(value), detail::Created<T>::must_have);
        return detail::created<T>(std::move(value), there);
    }
    /// @see AsyncPostgresCache::get_or_create_many. The loader is
    /// `std::vector<T>(std::vector<std::string> missing)`, and runs as that of get_or_create().
    /// Keys that other processes load are waited for when its own are loaded.
    template <class T, class Loader>
    std::vector<T> get_or_create_many(const std::vector<std::string>& keys,
                                      const CreateOptions& options, Loader loader) {
        std::vector<std::optional<typename detail::Created<T>::Value>> values(keys.size());
        const std::vector<bool> there =
            create_many_into(keys, options, detail::blocking_loader_of_many<T>(std::move(loader)),
                             detail::reader_of(values), detail::Created<T>::must_have);
        return detail::created_many<T>(std::move(values), there);
    }
    /// @see AsyncPostgresCache::remove_prefix.
    std::uint64_t remove_prefix(std::string_view prefix, const CallOptions& options = {});
    /// @see AsyncPostgresCache::remove_tag.
    std::uint64_t remove_tag(std::string_view tag, const CallOptions& options = {});
    /// @see AsyncPostgresCache::clear.
    void clear(const CallOptions& options = {});
    /// @see AsyncPostgresCache::cleanup_expired.
    std::uint64_t cleanup_expired(const CallOptions& options = {});
    /// @see AsyncPostgresCache::flush.
    std::uint64_t flush(const CallOptions& options = {});

    /// Starts a thread, named "psycache-cleanup" (Linux shows the first 15 characters), that
    /// deletes expired entries at once and then after every interval, on a connection of its own.
    ///
    /// @param interval the pause between two runs; positive and finite.
    /// @returns the handle that stops it; destroying the handle stops and joins the thread.
    /// @throws std::invalid_argument for the interval, before anything starts.
    [[nodiscard("the thread stops when its handle goes")]] CleanupService start_cleanup_thread(
        Duration interval);

    /// @returns what all threads have counted so far.
    [[nodiscard]] CacheStatistics statistics() const;

    /// @returns the numbers of the pool, and of the connections that cleanup threads have of their
    /// own. nullopt for a cache on the connections of an application.
    [[nodiscard]] std::optional<PoolStatistics> pool_statistics() const;

    /// Opens connections before the first call needs them: until `PoolOptions::min_idle` are open,
    /// one at least. On an application's pool one is borrowed and given back.
    ///
    /// Blocks until they are there, for `PoolOptions::acquire_timeout` at most for each.
    /// @par Errors
    /// As those of ConnectionPool::connect(): the first connection that cannot be opened ends it.
    void warm_up();

    /// Ends the cache in good order, as before a server stops: from now on calls fail with
    /// Errc::pool_closed, those that are in progress are finished, and then the connections of the
    /// cache's own pool are closed; a pool that it shares stays as it is. Stop a cleanup loop
    /// first, or it logs that it fails. A loader of get_or_create that still runs is not waited
    /// for: its callers get its value, which is not stored.
    ///
    /// @param timeout how long to wait for calls in progress; positive and finite.
    /// @returns whether all of them have ended. If not, those that have a connection go on, and the
    /// others fail with Errc::pool_closed.
    /// @throws std::invalid_argument for the time-out.
    bool drain(Duration timeout);

  private:
    template <class T, class Cache>
    friend std::shared_ptr<const T> detail::peek_typed(const Cache& cache,
                                                       std::string_view key) noexcept;

    void get_into(std::string_view key, detail::ValueReader reader, const CallOptions& options);
    std::shared_ptr<const void> get_shared_as(std::string_view key, detail::SharedReader reader,
                                              const CallOptions& options);
    std::shared_ptr<const void> peek_as(std::string_view key,
                                        const std::type_info* type) const noexcept;
    void put_value(std::string_view key, const json::value& value, Duration ttl,
                   const PutOptions& options);
    bool put_value_if_absent(std::string_view key, const json::value& value, Duration ttl,
                             const PutOptions& options);
    bool replace_value(std::string_view key, const json::value& value, Duration ttl,
                       const PutOptions& options);
    bool compare_and_put_value(std::string_view key, const json::value& expected,
                               const json::value& desired, Duration ttl,
                               const CallOptions& options);
    void take_into(std::string_view key, detail::ValueReader reader, const CallOptions& options);
    void get_and_touch_into(std::string_view key, Duration ttl, detail::ValueReader reader,
                            const CallOptions& options);
    std::optional<detail::EntryFacts> get_entry_into(std::string_view key,
                                                     detail::ValueReader reader,
                                                     const CallOptions& options);
    void get_many_into(const std::vector<std::string>& keys, detail::ValueReader reader,
                       const CallOptions& options);
    void take_many_into(const std::vector<std::string>& keys, detail::ValueReader reader,
                        const CallOptions& options);
    void put_values(const std::vector<detail::KeyedValue>& entries, Duration ttl,
                    const PutOptions& options);
    std::vector<bool> put_values_if_absent(const std::vector<detail::KeyedValue>& entries,
                                           Duration ttl, const PutOptions& options);
    std::vector<bool> replace_values(const std::vector<detail::KeyedValue>& entries, Duration ttl,
                                     const PutOptions& options);
    void get_and_touch_many_into(const std::vector<std::string>& keys, Duration ttl,
                                 detail::ValueReader reader, const CallOptions& options);
    std::vector<std::optional<detail::EntryFacts>> get_entry_many_into(
        const std::vector<std::string>& keys, detail::ValueReader reader,
        const CallOptions& options);

    bool create_into(std::string_view key, const CreateOptions& options,
                     const detail::Loader& loader, detail::ValueReader reader, bool must_have);
    std::vector<bool> create_many_into(const std::vector<std::string>& keys,
                                       const CreateOptions& options, const detail::Loader& loader,
                                       detail::ValueReader reader, bool must_have);

    std::shared_ptr<detail::BlockingCore> core_;
};

}  // namespace psycache
