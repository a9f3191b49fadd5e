#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <psycache/cache_pool.hpp>
#include <psycache/cleanup_service.hpp>
#include <psycache/connection_pool.hpp>
#include <psycache/create.hpp>
#include <psycache/duration.hpp>
#include <psycache/entry.hpp>
#include <psycache/export.hpp>
#include <psycache/near_cache.hpp>
#include <psycache/options.hpp>
#include <psycache/typed.hpp>

namespace psycache {

namespace detail {
class CacheCore;
}

/// The longest key of a put, in bytes: what always fits PostgreSQL's index, whatever the bytes are.
/// A longer one fits where PostgreSQL can compress it enough, and psycache for Python has it try:
/// such an entry can be looked up and removed.
inline constexpr std::size_t max_key_size = 2690;

/// What a cache has counted since it was made.
struct CacheStatistics {
    std::uint64_t hits = 0;            ///< keys looked up that had a live entry
    std::uint64_t misses = 0;          ///< keys looked up that had none
    std::uint64_t puts = 0;            ///< entries that were stored
    std::uint64_t touches = 0;         ///< entries that got a new expiry by a touch
    std::uint64_t removes = 0;         ///< keys that were removed or taken, and entries that
                                       ///< `remove_prefix` and `remove_tag` deleted
    std::uint64_t errors = 0;          ///< calls that ended with an error, cancelled ones included
    std::uint64_t timeouts = 0;        ///< of them, those with a condition of time-out
    std::uint64_t cancelled = 0;       ///< of them, those that their callers cancelled
    std::uint64_t outage_misses = 0;   ///< keys answered "miss" by `OnOutage::miss`
    std::uint64_t dropped_writes = 0;  ///< writes dropped by `OnOutage::miss`
    std::uint64_t loads = 0;           ///< loaders that get_or_create has called
    std::uint64_t load_joins = 0;      ///< callers that waited for the loader of another one
    std::uint64_t load_waits = 0;      ///< loads that waited for another process
    std::uint64_t load_failures = 0;   ///< loaders that have thrown
    std::uint64_t late_loads = 0;      ///< loaded values that were not stored, since the entry had
                                       ///< been changed or removed meanwhile
    std::uint64_t stale_hits = 0;      ///< of the hits, those that were stale
    std::uint64_t statements = 0;      ///< statements sent for calls on keys
    std::uint64_t retries = 0;         ///< statements sent once more after a failure
    std::uint64_t evictions = 0;       ///< live entries that cleanups have deleted, see
                                       ///< `CacheOptions::max_entries`
    std::uint64_t cleanup_failures = 0;  ///< runs of a cleanup loop that failed
    std::size_t queued = 0;              ///< calls that wait for a statement now
    bool circuit_open = false;  ///< whether calls are answered without the server (OnOutage::miss),
                                ///< be it only writes
    std::optional<NearStatistics> near_cache;  ///< where there is one
};

/// A key-value cache in PostgreSQL for coroutines: JSON objects with a time to live.
///
/// A cheap handle: copies share one cache. Calls that arrive together share statements; a lone call
/// costs what a plain statement costs. After `co_await put_raw(...)` every later `get_raw`, on any
/// connection and in any process, sees the value or a newer one. Calls that run at the same time
/// have no order among each other.
///
/// Every call is its own transaction, on the cache's own connections. Expiry is decided by the
/// server's clock alone.
///
/// For a statement that is given up, at its time-out or with its context, the server is asked at
/// once to cancel it, by the cancel key of its connection: that takes no right, works through
/// PgBouncer, and reaches no other session. The request is sent by a thread in the background that
/// no caller waits for (libpq can only block here; eight at most in a process, two for each server,
/// none when there is nothing to cancel), unencrypted as libpq sends it. A request that cannot be
/// delivered changes nothing: the statement then ends by itself. Settings of the session are never
/// changed; where the server has `client_connection_check_interval` (PostgreSQL 14), setting it
/// there helps against clients that vanish altogether.
///
/// @par Completion tokens
/// For anything but `co_await`, go through `co_spawn`: `asio::co_spawn(executor,
/// cache.get_raw("k"), token)` takes callbacks, `use_future`, `as_tuple(...)` and all others.
/// @par Executor and threads
/// All members may be called from any thread at any time. A call resumes on the awaiting
/// coroutine's executor; on a context that several threads run, give each coroutine a strand of its
/// own
/// (`co_spawn(make_strand(context), ...)`), as Asio asks for any coroutine with cancellation.
/// @par Cancellation
/// All types, unless a call says otherwise: the caller leaves at once with `operation_aborted`.
/// What has not been sent is not sent. A statement that has been sent goes on for its other
/// callers, and no connection is closed; a write that was sent may be stored.
/// @par Object lifetimes
/// A call keeps the cache alive until it ends; the handle may be destroyed meanwhile. The context
/// of the pool's executor must outlive the handles. A context may be destroyed while calls of its
/// coroutines are in flight if it is that of the pool, and they go with it; any other context of a
/// caller must outlive its calls, as it must for every operation of Asio.
/// @par Errors
/// Thrown as `psycache::Error`. Every call can fail with: Errc::connect_failed,
/// Errc::authentication_failed, Errc::acquire_timed_out, Errc::pool_closed (no connection);
/// Errc::connection_lost, Errc::timed_out, Errc::queue_full; Errc::table_missing,
/// Errc::permission_denied; any SQLSTATE. `Condition` groups them.
class PSYCACHE_EXPORT AsyncPostgresCache {
  public:
    /// A cache on the connections of @p pool.
    ///
    /// @param pool    shared with the caller; not null.
    /// @param options see CacheOptions.
    /// @throws std::invalid_argument naming the field that is wrong: "schema must not be empty" ...
    explicit AsyncPostgresCache(std::shared_ptr<AsyncCachePool> pool, CacheOptions options = {});

    /// A cache with a ConnectionPool of its own.
    ///
    /// @throws std::invalid_argument naming the field that is wrong, of either options.
    AsyncPostgresCache(asio::any_io_executor executor, PoolOptions pool_options,
                       CacheOptions options = {});

    AsyncPostgresCache(const AsyncPostgresCache&) noexcept;
    AsyncPostgresCache(AsyncPostgresCache&&) noexcept;
    AsyncPostgresCache& operator=(const AsyncPostgresCache&) noexcept;
    AsyncPostgresCache& operator=(AsyncPostgresCache&&) noexcept;
    ~AsyncPostgresCache();

    /// Looks up the value of a key.
    ///
    /// @param key       UTF-8 without NUL; "" is a key.
    /// @param options   see CallOptions.
    /// @returns the value; nullopt when the entry is absent or expired. Integers of 64 bits come
    /// back as they were stored, and so does every double that this library, Python or JavaScript
    /// has written; one without a fraction may come back as an integer of the same value.
    /// @par Errors
    /// Errc::invalid_key, before anything is sent; Errc::unreadable_value when the stored value is
    /// not an object, is nested deeper than 2,000, or holds a number whose digits a double does not
    /// give back: an integer beyond 64 bits, as a rule, and a fraction of more than 17 digits, of
    /// more than 15 at times. Others can store these, and get_text reads them. Those of every call.
    /// A get that was sent on a connection that broke is sent once more.
    /// @par Cancellation
    /// All types.
    /// @par Database effects
    /// One SELECT, possibly shared with other calls; a miss changes nothing.
    asio::awaitable<std::optional<json::object>> get_raw(std::string key, CallOptions options = {});

    /// Stores a value under a key, replacing value and expiry of an existing entry.
    ///
    /// @param key       UTF-8 without NUL, at most max_key_size bytes; "" is a key.
    /// @param value     strings and names in UTF-8 without NUL, finite numbers, nested at most 512
    ///                  deep. JSONB does not keep the order of names, and turns -0.0 into 0.0; all
    ///                  else comes back equal.
    /// @param ttl       counted by the server from the statement; min_ttl to max_ttl, or no_expiry.
    ///                  Zero and less store an entry that is expired already.
    /// @param options   see PutOptions; its tags are those by which remove_tag() finds the entry.
    /// @par Errors
    /// Errc::invalid_key, Errc::invalid_value, Errc::invalid_ttl, Errc::invalid_tag, before
    /// anything is sent; Errc::table_missing also where there are tags and no table of tags;
    /// Errc::outcome_unknown when the connection broke between sending and answer (unless
    /// `CacheOptions::replay_writes`); those of every call. A put that timed out or was cancelled
    /// may still take effect; one that failed otherwise has not.
    /// @par Cancellation
    /// `total` only while it waits to be sent; terminal and partial always: a put that was sent may
    /// be stored.
    /// @par Database effects
    /// One upsert, its own transaction or one shared with other calls, done when this returns.
    /// Where another transaction has the row locked it waits in the statement for 10 ms
    /// (`lock_timeout`, set for the statement alone) and then without a connection: the row is
    /// looked at every 10 to 80 ms (a SELECT ... FOR NO KEY UPDATE SKIP LOCKED for many keys) until
    /// the deadline, or the role's own `lock_timeout` or `statement_timeout` if that is shorter. A
    /// write waits for an earlier one of its key, of this cache, that is on its way. Where Citus
    /// distributes the table an upsert is shared by calls of one shard only, and only on a
    /// connection to its node; another one is of its own, and waits for a locked row. No size is
    /// told to instrumentations. Which node has a key is read from the server's catalogs every ten
    /// seconds while calls come; a cache whose calls share reads asks once a minute whether its
    /// table is distributed by now.
    /// With tags the same statement also upserts one row of the table of tags for each of them,
    /// after the entry; calls with tags share statements with each other. Distributed tables
    /// (Citus) refuse it.
    asio::awaitable<void> put_raw(std::string key, json::object value, Duration ttl,
                                  PutOptions options = {});

    /// A value must be an object; what merely converts to one does not compile.
    template <detail::NoObject Value>
    asio::awaitable<void> put_raw(std::string key, Value&& value, Duration ttl,
                                  PutOptions options = {}) = delete;
    template <detail::NoMember Value>
    asio::awaitable<void> put_raw(std::string key, std::initializer_list<Value> value, Duration ttl,
                                  PutOptions options = {}) = delete;

    /// Deletes an entry.
    ///
    /// @param key       as in get_raw.
    /// @param options   see CallOptions.
    /// @returns whether there was an entry, live or expired.
    /// @par Errors
    /// As put_raw, but for value and ttl. A key that is not there is no error.
    /// @par Cancellation
    /// As put_raw.
    /// @par Database effects
    /// One DELETE, its own transaction or one shared with other calls. A locked row as in put_raw.
    asio::awaitable<bool> remove(std::string key, CallOptions options = {});

    /// Gives a live entry a new expiry; its value stays.
    ///
    /// @param key       as in put_raw.
    /// @param ttl       as in put_raw, counted from the statement; zero and less expire the entry.
    /// @param options   see CallOptions.
    /// @returns whether there was a live entry; an expired one is not brought back.
    /// @par Errors
    /// As put_raw, but for the value. A key that is not there is no error. With `OnOutage::miss`,
    /// an outage answers false.
    /// @par Cancellation
    /// As put_raw.
    /// @par Database effects
    /// One UPDATE, its own transaction or one shared with other calls. A locked row as in put_raw.
    asio::awaitable<bool> touch(std::string key, Duration ttl, CallOptions options = {});

    /// Looks up the JSON text of a key, as it is stored: for services that pass JSON through.
    ///
    /// @returns the text as PostgreSQL writes JSONB, whatever it holds; nullopt when the entry is
    /// absent or expired. Nothing is parsed: any number comes through with all its digits.
    /// @par Errors
    /// Errc::invalid_key, before anything is sent; those of every call.
    /// @par Cancellation
    /// All types.
    /// @par Database effects
    /// As get_raw, with which it shares statements.
    asio::awaitable<std::optional<std::string>> get_text(std::string key, CallOptions options = {});

    /// Looks up the value of a key in the memory of the process (`CacheOptions::near_cache`), and
    /// in the table where it is not there.
    ///
    /// @param key       as in get_raw.
    /// @param options   see CallOptions.
    /// @returns the value, which all who ask share and none may change; it stays what it is when
    /// the entry is changed. Null when the entry is absent or expired. What is in memory may be as
    /// old as NearCacheOptions says; what this cache has written is seen at once. Without a near
    /// cache every call asks the table.
    /// @par Errors
    /// As get_raw. What is in memory is answered although the server is away, for as long as
    /// NearCacheOptions says.
    /// @par Cancellation
    /// All types. What is in memory is answered all the same.
    /// @par Object lifetimes
    /// The value may outlive the cache, and its context.
    /// @par Database effects
    /// None where memory has the value; else as get_raw. Absent entries are not remembered.
    asio::awaitable<std::shared_ptr<const json::object>> get_shared(std::string key,
                                                                    CallOptions options = {});

    /// The same for a value of the caller's own type, which is converted once for all who ask.
    ///
    /// @tparam T as in get(); `json::value` and `json::object` too. Its destructor may run in any
    ///           thread that calls the cache.
    /// @param key       as in get_raw.
    /// @param options   see CallOptions.
    /// @returns the object that was made of the value, shared by all who ask for this type; else as
    /// get_shared. Memory keeps one such object beside each value, that of the type asked for last,
    /// and reckons that it takes as much as the JSON value. What get_or_create keeps is converted
    /// when it is first asked for here.
    /// @par Errors
    /// As get().
    /// @par Cancellation, Object lifetimes, Database effects
    /// As get_shared.
    template <class T>
    asio::awaitable<std::shared_ptr<const T>> get_shared(std::string key,
                                                         CallOptions options = {}) {
        return detail::share_typed<T>([self = *this, key = std::move(key),
                                       options = std::move(options)](auto reader) mutable {
            return self.get_shared_as(std::move(key), reader, std::move(options));
        });
    }

    /// Looks up the value of a key in the memory of the process and nowhere else.
    ///
    /// @param key any text.
    /// @returns as get_shared; null also for a value that is no object, and without a near cache.
    /// It never asks the table, and starts nothing: what is to be found by it, get_shared keeps.
    /// No instrumentation hears of it.
    /// @par Errors
    /// None.
    /// @par Executor and threads
    /// Any thread at any time. Readers share no lock, and nothing is allocated.
    [[nodiscard]] std::shared_ptr<const json::object> peek(std::string_view key) const noexcept;

    /// The same for an object of the caller's own type.
    ///
    /// @returns the object that `get_shared<T>` keeps; null where memory has none of this type,
    /// also if it has the value.
    /// @par Errors, Executor and threads
    /// As peek.
    template <class T>
    [[nodiscard]] std::shared_ptr<const T> peek(std::string_view key) const noexcept {
        return detail::peek_typed<T>(*this, key);
    }

    /// Stores JSON text under a key; the server parses it.
    ///
    /// @param key       as in put_raw.
    /// @param json_text a JSON object in UTF-8, nested at most 15,000 deep, without `\u0000`;
    ///                  numbers may have 131,072 digits before and 16,383 after the point. JSONB
    ///                  keeps the last of repeated names, no order and no white space.
    /// @param ttl       as in put_raw.
    /// @param options   see PutOptions.
    /// @par Errors
    /// Errc::invalid_key, Errc::invalid_ttl, Errc::invalid_tag, and Errc::invalid_value for what
    /// PostgreSQL does not take for a JSON object, before anything is sent: `what()` tells what is
    /// wrong and at which byte. Errc::invalid_value with the server's SQLSTATE where only the
    /// server can tell: a character that its encoding has not, a text that gets larger than 256 MiB
    /// in its own format, or deeper than its `max_stack_depth` allows. Else as put_raw.
    /// @par Cancellation
    /// As put_raw.
    /// @par Database effects
    /// As put_raw, with which it shares statements.
    asio::awaitable<void> put_text(std::string key, std::string json_text, Duration ttl,
                                   PutOptions options = {});

    /// Looks up many keys.
    ///
    /// @param keys      any number, repeated ones allowed; each as in get_raw.
    /// @param options   see CallOptions; the call opens one span.
    /// @returns what get_raw would return for each key, in the order of @p keys.
    /// @par Errors
    /// Those of get_raw; an error of one key is that of the whole call. `what()` tells the place of
    /// a key that is refused.
    /// @par Cancellation
    /// All types.
    /// @par Database effects
    /// Up to 128 keys make one statement and one round trip, unless calls of others wait before
    /// them; more are split, and each statement sees its own moment. They go in slices of 1,024,
    /// one after the other: equal keys of one slice are asked for once. Other coroutines of the
    /// event loop run meanwhile, and beside its keys and values the call takes memory for one
    /// slice.
    asio::awaitable<std::vector<std::optional<json::object>>> get_raw_many(
        std::vector<std::string> keys, CallOptions options = {});

    /// Stores many entries.
    ///
    /// @param entries   any number, each with the limits of put_raw; of several with one key the
    ///                  last one counts.
    /// @param options   see PutOptions; all entries get its tags. The call opens one span.
    /// @par Errors
    /// Those of put_raw. What is refused before anything is sent is refused as a whole, and
    /// `what()` tells its place; after any other error some of the entries may have been stored.
    /// @par Cancellation
    /// As put_raw, for each entry.
    /// @par Database effects
    /// Upserts of up to 128 entries or 256 KiB, each its own transaction: not all or nothing. In
    /// slices of 1,024 entries or 2 MiB, as get_raw_many.
    asio::awaitable<void> put_raw_many(std::vector<Entry> entries, PutOptions options = {});

    /// Deletes many entries.
    ///
    /// @param keys      any number, repeated ones allowed; each as in get_raw.
    /// @param options   see CallOptions; the call opens one span.
    /// @returns how many entries were there, live or expired; each is counted once.
    /// @par Errors
    /// Those of remove; after an error some of the entries may have been deleted.
    /// @par Cancellation
    /// As put_raw, for each key.
    /// @par Database effects
    /// DELETEs of up to 128 keys, each its own transaction. In slices, as get_raw_many.
    asio::awaitable<std::uint64_t> remove_many(std::vector<std::string> keys,
                                               CallOptions options = {});

    /// Looks up the value of a key and reads it as a T.
    ///
    /// @tparam T what Boost.JSON's conversions read (`value_to`): described structs and enums,
    ///           containers, optionals, numbers, strings, `json::value`, types with a `tag_invoke`
    ///           of their own. What does not convert does not compile; a view of text cannot be
    ///           read.
    /// @param key       as in get_raw.
    /// @param options   see CallOptions.
    /// @returns the value; nullopt when the entry is absent or expired.
    /// @par Errors
    /// As get_raw, but any JSON may be the value. Errc::unreadable_value when it does not convert
    /// to T; `what()` names the member that is wrong, by the names of T.
    /// @par Cancellation
    /// All types.
    /// @par Database effects
    /// As get_raw, with which it shares statements.
    template <class T>
    asio::awaitable<std::optional<T>> get(std::string key, CallOptions options = {}) {
        return detail::read_typed<T>([self = *this, key = std::move(key),
                                      options = std::move(options)](auto reader) mutable {
            return self.get_into(std::move(key), reader, std::move(options));
        });
    }

    /// Stores a value of any type that converts to JSON, replacing value and expiry.
    ///
    /// @tparam T what Boost.JSON's conversions write (`value_from`), see get(); also literals and
    ///           views of text.
    /// @param key       as in put_raw.
    /// @param value     converted before this returns, as JSON with the limits of put_raw; scalars,
    ///                  arrays and null may be values.
    /// @param ttl       as in put_raw.
    /// @param options   see PutOptions.
    /// @throws what the conversion of T throws, from the function itself.
    /// @par Errors
    /// As put_raw.
    /// @par Cancellation
    /// As put_raw.
    /// @par Database effects
    /// As put_raw, with which it shares statements.
    template <class T>
    asio::awaitable<void> put(std::string key, const T& value, Duration ttl,
                              PutOptions options = {}) {
        return put_value(std::move(key), detail::as_json(value), ttl, std::move(options));
    }

    /// Stores a value unless there is a live entry; of several callers at once, in any number of
    /// processes, one stores.
    ///
    /// @param value     as in put().
    /// @param ttl       as in put_raw. Zero and less store an entry that has expired already.
    /// @returns whether the value was stored; false: a live entry is there and stays as it is.
    /// @par Errors
    /// As put_raw; a write whose answer was lost is not repeated (`CacheOptions::replay_writes`).
    /// With `OnOutage::miss`, an outage answers false.
    /// @par Cancellation
    /// As put_raw.
    /// @par Database effects
    /// One INSERT ... ON CONFLICT DO UPDATE, its own transaction or one shared with other calls. It
    /// takes the lock of a live entry's row, too. A locked row as in put_raw.
    template <class T>
    asio::awaitable<bool> put_if_absent(std::string key, const T& value, Duration ttl,
                                        PutOptions options = {}) {
        return put_value_if_absent(std::move(key), detail::as_json(value), ttl, std::move(options));
    }

    /// Stores a value only where there is a live entry, replacing value and expiry.
    ///
    /// @param value     as in put().
    /// @param ttl       as in put_raw.
    /// @returns whether the value was stored; false: absent or expired, and nothing was made.
    /// @par Errors
    /// As put_raw. With `OnOutage::miss`, an outage answers false.
    /// @par Cancellation
    /// As put_raw.
    /// @par Database effects
    /// One UPDATE, its own transaction or one shared with other calls. A locked row as in put_raw.
    template <class T>
    asio::awaitable<bool> replace(std::string key, const T& value, Duration ttl,
                                  PutOptions options = {}) {
        return replace_value(std::move(key), detail::as_json(value), ttl, std::move(options));
    }

    /// Stores a value where the live entry has the one that is expected.
    ///
    /// @param expected  what the entry holds, compared as JSONB compares: names have no order, and
    ///                  1 equals 1.0.
    /// @param desired   as in put().
    /// @param ttl       as in put_raw.
    /// @returns whether it was stored; false: another value is there, or no live entry.
    /// @par Errors
    /// As put_raw, for both values; a write whose answer was lost is not repeated
    /// (`CacheOptions::replay_writes`). With `OnOutage::miss`, an outage answers false.
    /// @par Cancellation
    /// As put_raw.
    /// @par Database effects
    /// One UPDATE, its own transaction or one shared with calls for other keys; those of one key go
    /// one after the other. A locked row as in put_raw.
    template <class T>
    asio::awaitable<bool> compare_and_put(std::string key, const T& expected, const T& desired,
                                          Duration ttl, CallOptions options = {}) {
        return compare_and_put_value(std::move(key), detail::as_json(expected),
                                     detail::as_json(desired), ttl, std::move(options));
    }

    /// Deletes a live entry and reads its value; of several callers at once one gets it.
    ///
    /// @param key       as in get_raw.
    /// @returns the value; nullopt when the entry is absent or expired.
    /// @par Errors
    /// As put_raw, and Errc::unreadable_value as get(): then the entry has been deleted all the
    /// same (a `json::value` reads all but numbers that no double holds). A write whose answer was
    /// lost is not repeated (`CacheOptions::replay_writes`).
    /// @par Cancellation
    /// As put_raw. What a call that was sent deletes goes to another one that shares its statement,
    /// and is lost if there is none.
    /// @par Database effects
    /// One DELETE, its own transaction or one shared with other calls. A locked row as in put_raw.
    template <class T>
    asio::awaitable<std::optional<T>> take(std::string key, CallOptions options = {}) {
        return detail::read_typed<T>([self = *this, key = std::move(key),
                                      options = std::move(options)](auto reader) mutable {
            return self.take_into(std::move(key), reader, std::move(options));
        });
    }

    /// Gives a live entry a new expiry and reads its value: a sliding expiry.
    ///
    /// @param key       as in get_raw.
    /// @param ttl       as in put_raw, counted from the statement.
    /// @returns the value; nullopt when the entry is absent or expired.
    /// @par Errors
    /// As touch, and Errc::unreadable_value as get(): then the entry has its new expiry.
    /// @par Cancellation
    /// As put_raw.
    /// @par Database effects
    /// One UPDATE, its own transaction or one shared with other calls: each is a new version of the
    /// row. A locked row as in put_raw.
    template <class T>
    asio::awaitable<std::optional<T>> get_and_touch(std::string key, Duration ttl,
                                                    CallOptions options = {}) {
        return detail::read_typed<T>([self = *this, key = std::move(key), ttl,
                                      options = std::move(options)](auto reader) mutable {
            return self.get_and_touch_into(std::move(key), ttl, reader, std::move(options));
        });
    }

    /// Looks up an entry with what is left of its time to live, and its size.
    ///
    /// @param key       as in get_raw.
    /// @returns see EntryView; nullopt when the entry is absent or expired.
    /// @par Errors
    /// As get().
    /// @par Cancellation
    /// All types.
    /// @par Database effects
    /// One SELECT, possibly shared with other calls of this kind.
    template <class T>
    asio::awaitable<std::optional<EntryView<T>>> get_entry(std::string key,
                                                           CallOptions options = {}) {
        return detail::read_entry<T>([self = *this, key = std::move(key),
                                      options = std::move(options)](auto reader) mutable {
            return self.get_entry_into(std::move(key), reader, std::move(options));
        });
    }

    /// Looks up what is left of the time to live of an entry.
    ///
    /// @param key       as in get_raw.
    /// @returns the time by the server's clock, no_expiry for an entry without end; nullopt when
    /// the entry is absent or expired.
    /// @par Errors
    /// Errc::invalid_key, before anything is sent; those of every call.
    /// @par Cancellation
    /// All types.
    /// @par Database effects
    /// One SELECT, possibly shared with other calls of this kind.
    asio::awaitable<std::optional<Duration>> expires_in(std::string key, CallOptions options = {});

    /// Adds to a counter: an entry whose value is a JSON integer. Where none is live it is made.
    ///
    /// @param key       as in put_raw.
    /// @param by        how much; negative to count down.
    /// @param ttl       that of a counter which is made now; one that is there keeps its own. Above
    ///                  zero.
    /// @returns what the counter is after this call. Calls that share a statement are added up, and
    /// each hears its own count.
    /// @par Errors
    /// Errc::counter_overflow where the counter would leave the range of 64 bits,
    /// Errc::unreadable_value where the stored value is no integer of 64 bits (1.0 is none); then
    /// nothing is changed. Else as put_raw; a write whose answer was lost is never repeated. An
    /// outage is thrown with `OnOutage::miss`, too: there is no count to answer with.
    /// @par Cancellation
    /// As put_raw.
    /// @par Database effects
    /// One INSERT ... ON CONFLICT DO UPDATE, its own transaction or one shared with other calls. A
    /// locked row as in put_raw.
    asio::awaitable<std::int64_t> increment(std::string key, std::int64_t by, Duration ttl,
                                            CallOptions options = {});

    /// Puts members into a live entry that is an object, on top of those that it has.
    ///
    /// @param key       as in get_raw.
    /// @param patch     members, with the limits of put_raw. Each replaces that of its name as a
    ///                  whole, at the first level (JSONB's `||`); null is stored as null.
    /// @returns whether there was a live entry; none is made.
    /// @par Errors
    /// Errc::unreadable_value where the stored value is no object: it is not changed. Else as
    /// put_raw. With `OnOutage::miss`, an outage answers false.
    /// @par Cancellation
    /// As put_raw.
    /// @par Database effects
    /// One UPDATE that keeps the expiry, its own transaction or one shared with other calls. A
    /// locked row as in put_raw.
    asio::awaitable<bool> merge(std::string key, json::object patch, CallOptions options = {});

    /// A patch must be an object; what merely converts to one does not compile.
    template <detail::NoObject Value>
    asio::awaitable<bool> merge(std::string key, Value&& patch, CallOptions options = {}) = delete;
    template <detail::NoMember Value>
    asio::awaitable<bool> merge(std::string key, std::initializer_list<Value> patch,
                                CallOptions options = {}) = delete;

    /// Looks up many keys and reads their values as T.
    ///
    /// @param keys      as in get_raw_many.
    /// @returns what get() would return for each key, in the order of @p keys.
    /// @par Errors
    /// Those of get(); an error of one key is that of the whole call, and `what()` tells its place.
    /// @par Cancellation
    /// All types.
    /// @par Database effects
    /// As get_raw_many.
    template <class T>
    asio::awaitable<std::vector<std::optional<T>>> get_many(std::vector<std::string> keys,
                                                            CallOptions options = {}) {
        const std::size_t count = keys.size();
        return detail::read_many<T>(count, [self = *this, keys = std::move(keys),
                                            options = std::move(options)](auto reader) mutable {
            return self.get_many_into(std::move(keys), reader, std::move(options));
        });
    }

    /// Stores many values with one ttl.
    ///
    /// @param entries   keys and values, each with the limits of put(); of several with one key the
    ///                  last one counts.
    /// @param ttl       as in put_raw.
    /// @param options   see PutOptions; the call opens one span.
    /// @throws what the conversion of T throws, from the function itself.
    /// @par Errors
    /// As put_raw_many.
    /// @par Cancellation
    /// As put_raw, for each entry.
    /// @par Database effects
    /// As put_raw_many.
    template <class T>
    asio::awaitable<void> put_many(const std::vector<std::pair<std::string, T>>& entries,
                                   Duration ttl, PutOptions options = {}) {
        return put_values(detail::values_of(entries), ttl, std::move(options));
    }

    /// Deletes many live entries and reads their values.
    ///
    /// @param keys      any number; each as in get_raw. A key that is repeated gets its value each
    ///                  time.
    /// @returns what take() would return for each key, in the order of @p keys.
    /// @par Errors
    /// Those of take(); an error of one key is that of the whole call, and `what()` tells its
    /// place. What was deleted stays so.
    /// @par Cancellation
    /// As take(), for each key.
    /// @par Database effects
    /// DELETEs of up to 128 keys, each its own transaction. In slices, as get_raw_many.
    template <class T>
    asio::awaitable<std::vector<std::optional<T>>> take_many(std::vector<std::string> keys,
                                                             CallOptions options = {}) {
        const std::size_t count = keys.size();
        return detail::read_many<T>(count, [self = *this, keys = std::move(keys),
                                            options = std::move(options)](auto reader) mutable {
            return self.take_many_into(std::move(keys), reader, std::move(options));
        });
    }

    /// Gives many live entries a new expiry.
    ///
    /// @param keys      any number; each as in touch.
    /// @param ttl       as in touch.
    /// @returns what touch would return for each key, in the order of @p keys.
    /// @par Errors
    /// Those of touch; after an error some of the entries may have their new expiry.
    /// @par Cancellation
    /// As put_raw, for each key.
    /// @par Database effects
    /// UPDATEs of up to 128 keys, each its own transaction. In slices, as get_raw_many.
    asio::awaitable<std::vector<bool>> touch_many(std::vector<std::string> keys, Duration ttl,
                                                  CallOptions options = {});

    /// Stores those of many values whose keys have no live entry.
    ///
    /// @param entries   keys and values, each with the limits of put(). Each counts by itself: of
    ///                  several with one key the first one is stored, unless it expires at once.
    /// @param ttl       as in put_if_absent().
    /// @param options   see PutOptions; the call opens one span.
    /// @returns what put_if_absent() would return for each entry, in the order of @p entries.
    /// @throws what the conversion of T throws, from the function itself.
    /// @par Errors
    /// As put_if_absent(), and what() tells the place of an entry that is refused. After an error
    /// some of the entries may have been stored.
    /// @par Cancellation
    /// As put_raw, for each entry.
    /// @par Database effects
    /// As put_if_absent(), up to 128 entries or 256 KiB in a statement, each its own transaction.
    /// In slices, as get_raw_many.
    template <class T>
    asio::awaitable<std::vector<bool>> put_if_absent_many(
        const std::vector<std::pair<std::string, T>>& entries, Duration ttl,
        PutOptions options = {}) {
        return put_values_if_absent(detail::values_of(entries), ttl, std::move(options));
    }

    /// Stores those of many values whose keys have a live entry.
    ///
    /// @param entries   keys and values, each with the limits of put(). Each counts by itself: of
    ///                  several with one key the last one stays.
    /// @param ttl       as in replace().
    /// @param options   see PutOptions; the call opens one span.
    /// @returns what replace() would return for each entry, in the order of @p entries.
    /// @throws what the conversion of T throws, from the function itself.
    /// @par Errors
    /// As replace(), and what() tells the place of an entry that is refused. After an error some of
    /// the entries may have been stored.
    /// @par Cancellation
    /// As put_raw, for each entry.
    /// @par Database effects
    /// As replace(), up to 128 entries or 256 KiB in a statement, each its own transaction. In
    /// slices, as get_raw_many.
    template <class T>
    asio::awaitable<std::vector<bool>> replace_many(
        const std::vector<std::pair<std::string, T>>& entries, Duration ttl,
        PutOptions options = {}) {
        return replace_values(detail::values_of(entries), ttl, std::move(options));
    }

    /// Gives many live entries a new expiry and reads their values.
    ///
    /// @param keys      any number, repeated ones allowed; each as in get_and_touch().
    /// @param ttl       as in get_and_touch().
    /// @param options   see CallOptions; the call opens one span.
    /// @returns what get_and_touch() would return for each key, in the order of @p keys.
    /// @par Errors
    /// Those of get_and_touch(); an error of one key is that of the whole call, and `what()` tells
    /// its place. Some of the entries may have their new expiry then.
    /// @par Cancellation
    /// As put_raw, for each key.
    /// @par Database effects
    /// UPDATEs of up to 128 keys, each its own transaction. In slices, as get_raw_many.
    template <class T>
    asio::awaitable<std::vector<std::optional<T>>> get_and_touch_many(std::vector<std::string> keys,
                                                                      Duration ttl,
                                                                      CallOptions options = {}) {
        const std::size_t count = keys.size();
        return detail::read_many<T>(count, [self = *this, keys = std::move(keys), ttl,
                                            options = std::move(options)](auto reader) mutable {
            return self.get_and_touch_many_into(std::move(keys), ttl, reader, std::move(options));
        });
    }

    /// Looks up many entries with what is left of their time to live, and their sizes.
    ///
    /// @param keys      any number, repeated ones allowed; each as in get_raw.
    /// @param options   see CallOptions; the call opens one span.
    /// @returns what get_entry() would return for each key, in the order of @p keys.
    /// @par Errors
    /// Those of get_many().
    /// @par Cancellation
    /// All types.
    /// @par Database effects
    /// As get_raw_many; it shares statements with get_entry().
    template <class T>
    asio::awaitable<std::vector<std::optional<EntryView<T>>>> get_entry_many(
        std::vector<std::string> keys, CallOptions options = {}) {
        const std::size_t count = keys.size();
        return detail::read_entries<T>(count, [self = *this, keys = std::move(keys),
                                               options = std::move(options)](auto reader) mutable {
            return self.get_entry_many_into(std::move(keys), reader, std::move(options));
        });
    }

    /// Adds to many counters.
    ///
    /// @param counters  keys, each as in put_raw, and how much is added. Each counts by itself,
    /// also
    ///                  several with one key, in no particular order.
    /// @param ttl       as in increment().
    /// @param options   see CallOptions; the call opens one span.
    /// @returns what increment() would return for each counter, in the order of @p counters.
    /// @par Errors
    /// Those of increment(); an error of one counter is that of the whole call, and some of the
    /// others may have been added to.
    /// @par Cancellation
    /// As put_raw, for each counter.
    /// @par Database effects
    /// As increment(), up to 128 counters in a statement, each its own transaction. In slices, as
    /// get_raw_many.
    asio::awaitable<std::vector<std::int64_t>> increment_many(
        std::vector<std::pair<std::string, std::int64_t>> counters, Duration ttl,
        CallOptions options = {});

    /// Looks up the value of a key, and has it loaded where there is none.
    ///
    /// However many callers want a missing value, in any number of processes, one loader runs for
    /// it (CreateOptions::scope): the others wait for its result, without a connection, a lock or a
    /// thread. What is loaded is not stored where the entry was put, removed or cleared in the
    /// meantime, by whomever: its callers get it, and the next one has it loaded anew.
    ///
    /// | the entry                     | the caller gets                | a loader                |
    /// |-------------------------------|--------------------------------|-------------------------|
    /// | fresh                         | its value                      | none, or early by chance|
    /// | stale                         | its value, at once             | one, in the background  |
    /// | stale, the loader has failed  | its value; the exception without `stale_on_error` | none
    /// for `retry_after_error`, then as stale | | absent or expired             | what is loaded |
    /// one; the caller waits   | | absent, the loader has failed | the exception                  |
    /// none for `retry_after_error`, then as absent | | absent, another process loads | what that
    /// stores               | none, unless `load_lease` ends first | | out of reach
    /// (OnOutage::miss) | what is loaded                 | one in this process     |
    ///
    /// Freshness is computed from what is left of the entry's time to live, by the server's clock:
    /// an entry that was stored by put(), or with other options, is stale for the last `stale_for`
    /// of it.
    ///
    /// @tparam T what is stored, as in get() and put(); or an optional of that: then a loader may
    ///           return nothing, which is every waiting caller's answer and is not stored.
    /// @param key       as in put_raw.
    /// @param options   see CreateOptions.
    /// @param loader    `asio::awaitable<T>()`, called once for each load. It runs on a strand of
    /// the
    ///                  executor of the caller that starts it, and may go on, or begin, after that
    ///                  caller has its answer: it must own what it uses. It may use the cache, but
    ///                  not wait for its own key.
    /// @returns the value. Callers of one load get equal values, each of its own.
    /// @par Errors
    /// What the loader throws, to every caller of its load. Errc::unreadable_value as get();
    /// Errc::invalid_key, Errc::invalid_tag before anything is sent; Errc::invalid_value where what
    /// was loaded cannot be stored; Errc::timed_out at CreateOptions::timeout; those of every call
    /// from its look-up and from claiming the load. A value that was loaded and could not be stored
    /// is answered; `CacheStatistics::errors` counts it.
    /// @par Cancellation
    /// All types: the caller leaves at once. When the last one that waits for a load has left, its
    /// loader is cancelled (`terminal`), and not before; one in the background is not.
    /// @par Object lifetimes
    /// If the context of a loader is destroyed, callers on other contexts start another load.
    /// @par Database effects
    /// A hit is one SELECT, possibly shared with other calls of this kind. A load claims its lease
    /// (an upsert), and stores its value (an UPDATE) or gives the lease back (a DELETE). The lease
    /// is a *stub* in the place of the entry: a row that has expired for every reader, that names
    /// its owner, and that any cleanup may delete (another process may load then, too). For a live
    /// entry it is a row under a key of its own. A process that waits for another one looks every 5
    /// to 100 ms, once for all of its callers.
    template <class T, class Loader>
    asio::awaitable<T> get_or_create(std::string key, CreateOptions options, Loader loader) {
        return detail::read_created<T>(
            [self = *this, key = std::move(key), options = std::move(options),
             load = detail::async_loader<T>(std::move(loader))](auto reader) mutable {
                return self.create_into(std::move(key), std::move(options), std::move(load), reader,
                                        detail::Created<T>::must_have);
            });
    }

    /// Looks up the values of many keys, and has those loaded that are missing.
    ///
    /// Each key is treated as get_or_create() does. The loader is called once with all missing keys
    /// that this call is to load; those that other callers, or other processes, load already are
    /// waited for. It is called once more for what these then have not stored. Stale values are
    /// answered, and loaded anew in the background, by one call of it, too.
    ///
    /// @param keys      any number, repeated ones allowed; each as in put_raw.
    /// @param options   see CreateOptions.
    /// @param loader    `asio::awaitable<std::vector<T>>(std::vector<std::string> missing)`;
    /// returns
    ///                  one value for each key, in their order, or the call fails with
    ///                  `std::length_error`. Else as in get_or_create().
    /// @returns what get_or_create() would return for each key, in the order of @p keys.
    /// @par Errors
    /// Those of get_or_create(); an error of one key is that of the whole call, and `what()` tells
    /// the place of a key that is refused. What was loaded for the others is stored.
    /// @par Cancellation
    /// As get_or_create(); a loader is cancelled when no caller waits for any of its keys.
    /// @par Database effects
    /// As get_or_create(), for up to 128 keys in one statement.
    template <class T, class Loader>
    asio::awaitable<std::vector<T>> get_or_create_many(std::vector<std::string> keys,
                                                       CreateOptions options, Loader loader) {
        const std::size_t count = keys.size();
        return detail::read_created_many<T>(
            count,
            [self = *this, keys = std::move(keys), options = std::move(options),
             load = detail::async_loader_of_many<T>(std::move(loader))](auto reader) mutable {
                return self.create_many_into(std::move(keys), std::move(options), std::move(load),
                                             reader, detail::Created<T>::must_have);
            });
    }

    /// Deletes all entries whose keys begin with a prefix, live and expired.
    ///
    /// Every entry that was put before the call is gone when it returns. One that is put meanwhile
    /// may be deleted or not. Keys are compared byte by byte, whatever the collation of the
    /// database is; `%` and `_` are letters like others.
    ///
    /// It is fast, a few microseconds for an entry, where PostgreSQL can find keys by their
    /// beginning: where the database has the collation "C", by the table's own index; elsewhere by
    /// one that you make, which costs every put of a new key a little:
    /// `CREATE INDEX CONCURRENTLY ON psycache (key text_pattern_ops);`
    /// Without one, each batch of 1,000 reads the table from its beginning.
    ///
    /// @param prefix    UTF-8 without NUL; "" is refused.
    /// @param options   see CallOptions; the deadline is that of the whole call.
    /// @returns how many were deleted.
    /// @par Errors
    /// Errc::invalid_key, before anything is sent, also for "": see clear() and flush();
    /// Errc::timed_out also where other transactions have some of the entries locked for all that
    /// time; those of every call. What was deleted before an error stays deleted.
    /// @par Cancellation
    /// All types: the caller leaves at once; a batch that was sent goes on, and no further one
    /// begins.
    /// @par Database effects
    /// DELETEs of up to 1,000 rows, each its own transaction on a connection lent for it. Rows that
    /// others hold are skipped, and tried again by their keys after 10 to 80 ms, without a
    /// connection or a lock meanwhile. Rows of tags stay: a cleanup takes them within a day. Where
    /// the server cannot name rows by their place, as in cleanup_expired, it is one DELETE, which
    /// waits for locked rows.
    asio::awaitable<std::uint64_t> remove_prefix(std::string prefix, CallOptions options = {});

    /// Deletes all entries that have a tag, live and expired.
    ///
    /// Every entry that was put with the tag before the call is gone when it returns, also one that
    /// was touched, or stored anew by a client that knows no tags: too much may be deleted, too
    /// little is not. One that is put meanwhile may be deleted or not, and keeps its tag if not.
    ///
    /// @param tag       as in PutOptions.
    /// @param options   see CallOptions; the deadline is that of the whole call.
    /// @returns how many entries were deleted.
    /// @par Errors
    /// Errc::invalid_tag, before anything is sent; Errc::table_missing where there is no table of
    /// tags; Errc::timed_out also where other transactions have some of the entries locked for all
    /// that time; those of every call. What was deleted before an error stays deleted.
    /// @par Cancellation
    /// As remove_prefix.
    /// @par Database effects
    /// Statements that delete up to 1,000 entries and the rows of their tag, in the order of keys,
    /// each its own transaction. They wait for no row: those that are locked are tried again, as in
    /// remove_prefix.
    asio::awaitable<std::uint64_t> remove_tag(std::string tag, CallOptions options = {});

    /// Deletes all entries at once, and all tags, in a time that does not depend on their number.
    ///
    /// @param options   see CallOptions.
    /// @par Errors
    /// Errc::permission_denied where the role lacks TRUNCATE on the tables, which flush() does
    /// without; Errc::timed_out where other transactions use the table for all that time;
    /// Errc::outcome_unknown when the connection broke; those of every call.
    /// @par Cancellation
    /// All types: the caller leaves at once; the statement, if it was sent, goes on.
    /// @par Database effects
    /// One TRUNCATE of the table and of that of tags, if there is one, its own transaction. While
    /// it waits for transactions that use the table, all others wait behind it: so it waits for
    /// 0.1 s (`lock_timeout`, set for the statement alone), and is tried again after 0.1 to 1 s.
    /// Its transaction sees no rows that others still see: theirs find the table empty.
    asio::awaitable<void> clear(CallOptions options = {});

    /// Deletes all expired entries, and then live ones for as long as there are more than
    /// `CacheOptions::max_entries` or `CacheOptions::max_bytes` allow.
    ///
    /// @param options   see CallOptions.
    /// @returns how many were deleted.
    /// @par Errors
    /// Those of every call; batches that were done stay done.
    /// @par Cancellation
    /// All types: the running batch ends first, then the call ends with `operation_aborted`.
    /// @par Database effects
    /// Batches of 1,000 rows, each its own transaction on a connection lent for it. Rows that
    /// others hold are skipped, so that it neither blocks writers nor deadlocks with another
    /// cleaner. A row that was renewed in the meantime stays. Where the server cannot name rows by
    /// their place (a view, a distributed table) it deletes by key, and waits for locked rows.
    /// Where there is a table of tags that the role may write, rows of it whose entries are gone
    /// are deleted as well, in batches of their own, which are not counted: a day after they were
    /// written at the latest, or when their entry would have expired. Rows of entries that are
    /// still there get a later expiry. Live entries go in such batches, too, of one session at a
    /// time (an advisory lock of the transaction).
    asio::awaitable<std::uint64_t> cleanup_expired(CallOptions options = {});

    /// Deletes all entries, live and expired.
    ///
    /// @param options   see CallOptions.
    /// @returns how many were deleted.
    /// @par Errors
    /// Errc::outcome_unknown when the connection broke; those of every call.
    /// @par Cancellation
    /// All types: the caller leaves at once; the statement, if it was sent, goes on.
    /// @par Database effects
    /// One DELETE of all rows, one transaction. Rows of tags stay, and are left to a cleanup.
    asio::awaitable<std::uint64_t> flush(CallOptions options = {});

    /// Opens connections before the first call needs them: of a pool of the cache's own as
    /// ConnectionPool::warm_up() does; from a pool that was given one is borrowed and given back. A
    /// near cache begins to listen, which is not waited for.
    ///
    /// @par Errors
    /// Errc::connect_failed, Errc::authentication_failed, Errc::acquire_timed_out,
    /// Errc::pool_closed, a SQLSTATE: why the first connection that failed could not be opened.
    /// @par Cancellation
    /// All types: the caller leaves at once with `operation_aborted`.
    /// @par Database effects
    /// None but the connections.
    asio::awaitable<void> warm_up();

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
    /// @par Cancellation
    /// All types: it stops waiting; calls are still refused.
    asio::awaitable<bool> drain(Duration timeout);

    /// The cleanup loop itself: cleans at once, then after every interval, until it is cancelled.
    ///
    /// An error of one run is logged ("Periodic cache cleanup failed") and counted; the loop goes
    /// on. Spawn it where you like and stop it by its slot: `co_spawn(executor,
    /// cache.run_cleanup(1min), bind_cancellation_slot(slot, detached))`.
    ///
    /// @param interval the pause between two runs; positive and finite.
    /// @par Errors
    /// `std::invalid_argument` for the interval, before anything is sent; it ends no other way than
    /// by cancellation, with `operation_aborted`.
    /// @par Cancellation
    /// All types, also where the spawning code did not enable `partial` and `total`: a pause ends
    /// at once, a running batch is finished first.
    asio::awaitable<void> run_cleanup(Duration interval);

    /// Starts the cleanup loop on the pool's executor.
    ///
    /// @param interval the pause between two runs; positive and finite.
    /// @returns the handle that stops it; the loop stops when that is destroyed.
    /// @throws std::invalid_argument for the interval, or when the pool names no executor.
    /// @par Object lifetimes
    /// The loop keeps the cache alive until it ends. It is outstanding work of its executor:
    /// `io_context::run` does not return before it has been stopped.
    [[nodiscard("the loop stops when its handle goes")]] AsyncCleanupService start_cleanup_task(
        Duration interval);

    /// Starts the cleanup loop on @p executor.
    ///
    /// @throws std::invalid_argument for the interval, or an empty executor.
    [[nodiscard("the loop stops when its handle goes")]] AsyncCleanupService start_cleanup_task(
        asio::any_io_executor executor, Duration interval);

    /// @returns what has been counted so far; cheap enough to be polled.
    [[nodiscard]] CacheStatistics statistics() const;

    /// @returns the numbers of the cache's ConnectionPool, its own or a shared one; nullopt for a
    /// pool of another type.
    [[nodiscard]] std::optional<PoolStatistics> pool_statistics() const;

  private:
    template <class T, class Cache>
    friend std::shared_ptr<const T> detail::peek_typed(const Cache& cache,
                                                       std::string_view key) noexcept;

    asio::awaitable<bool> get_into(std::string key, detail::ValueReader reader,
                                   CallOptions options);
    asio::awaitable<std::shared_ptr<const void>> get_shared_as(std::string key,
                                                               detail::SharedReader reader,
                                                               CallOptions options);
    std::shared_ptr<const void> peek_as(std::string_view key,
                                        const std::type_info* type) const noexcept;
    asio::awaitable<void> put_value(std::string key, const json::value& value, Duration ttl,
                                    PutOptions options);
    asio::awaitable<bool> put_value_if_absent(std::string key, const json::value& value,
                                              Duration ttl, PutOptions options);
    asio::awaitable<bool> replace_value(std::string key, const json::value& value, Duration ttl,
                                        PutOptions options);
    asio::awaitable<bool> compare_and_put_value(std::string key, const json::value& expected,
                                                const json::value& desired, Duration ttl,
                                                CallOptions options);
    asio::awaitable<bool> take_into(std::string key, detail::ValueReader reader,
                                    CallOptions options);
    asio::awaitable<bool> get_and_touch_into(std::string key, Duration ttl,
                                             detail::ValueReader reader, CallOptions options);
    asio::awaitable<std::optional<detail::EntryFacts>> get_entry_into(std::string key,
                                                                      detail::ValueReader reader,
                                                                      CallOptions options);
    asio::awaitable<void> get_many_into(std::vector<std::string> keys, detail::ValueReader reader,
                                        CallOptions options);
    asio::awaitable<void> take_many_into(std::vector<std::string> keys, detail::ValueReader reader,
                                         CallOptions options);
    asio::awaitable<void> put_values(std::vector<detail::KeyedValue> entries, Duration ttl,
                                     PutOptions options);
    asio::awaitable<std::vector<bool>> put_values_if_absent(std::vector<detail::KeyedValue> entries,
                                                            Duration ttl, PutOptions options);
    asio::awaitable<std::vector<bool>> replace_values(std::vector<detail::KeyedValue> entries,
                                                      Duration ttl, PutOptions options);
    asio::awaitable<void> get_and_touch_many_into(std::vector<std::string> keys, Duration ttl,
                                                  detail::ValueReader reader, CallOptions options);
    asio::awaitable<std::vector<std::optional<detail::EntryFacts>>> get_entry_many_into(
        std::vector<std::string> keys, detail::ValueReader reader, CallOptions options);

    asio::awaitable<bool> create_into(std::string key, CreateOptions options,
                                      detail::AsyncLoader loader, detail::ValueReader reader,
                                      bool must_have);
    asio::awaitable<std::vector<bool>> create_many_into(std::vector<std::string> keys,
                                                        CreateOptions options,
                                                        detail::AsyncLoader loader,
                                                        detail::ValueReader reader, bool must_have);

    std::shared_ptr<detail::CacheCore> core_;
};

}  // namespace psycache
