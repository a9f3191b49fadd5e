#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <psycache/cache_pool.hpp>
#include <psycache/duration.hpp>
#include <psycache/entry.hpp>
#include <psycache/export.hpp>
#include <psycache/options.hpp>
#include <psycache/typed.hpp>

namespace psycache {

namespace detail {
class TransactionCore;
}

/// The cache inside of the application's own transaction: its calls are statements of the
/// transaction that is open on a connection, so that an invalidation is committed or rolled back
/// together with the data that it is about.
///
/// @code
/// PQexec(connection, "BEGIN");
/// PQexec(connection, "UPDATE account SET name = 'Ada' WHERE id = 7");
/// psycache::TransactionCache(connection).remove("account:7");
/// PQexec(connection, "COMMIT");  // both, or neither
/// @endcode
///
/// What a call does is seen by later statements of the same transaction at once, and by others when
/// it is committed. Until then others find the entry as it was, and writes of theirs under the same
/// key wait, those of the library's other caches as they wait for any locked row. A get sees what
/// its transaction sees: in REPEATABLE READ the state of its first statement, even where a newer
/// one is committed, and a write of what was changed since then fails with SQLSTATE 40001.
///
/// A reader who misses between a removal's commit and the moment at which it last read the data can
/// still put what it read before. Where that matters let such entries live for a short time only.
///
/// @par Transactions
/// A call is refused with Errc::connection_unusable, before anything is sent, unless the connection
/// is open, idle between two statements and inside of a transaction that no error has aborted, is
/// not in pipeline mode, and has UTF-8 as its client encoding; `what()` tells which. So are calls
/// in a process that was forked off after the object was made, and a call while another one of the
/// same object runs. What is refused, for its state or its arguments, leaves the transaction
/// untouched. An error of the server leaves it as PostgreSQL leaves it: aborted, until it is rolled
/// back, or rolled back to a savepoint of the application's. The library begins, ends and saves
/// nothing itself, sets nothing, prepares nothing, and takes no lock but those of its rows, which
/// last until the transaction's end.
/// @par Deadlines
/// A statement that is not answered at the deadline (`CallOptions::timeout`, else
/// `CacheOptions::timeout`) is cancelled on the server, by the cancel key of the connection, and
/// its end is waited for. As a rule it ends at once: the call fails with Errc::timed_out and
/// SQLSTATE 57014, the transaction is aborted and the connection can be used for ROLLBACK, or
/// ROLLBACK TO SAVEPOINT, and further. A statement that has ended by itself meanwhile counts as
/// ever. Where the server has not ended it two seconds after the deadline, the call fails with
/// Errc::timed_out, and the connection is closed (`PQstatus` says CONNECTION_BAD).
/// @par Options
/// Of CacheOptions, `schema`, `instrumentations`, `timeout` and `log` count. `on_outage` does not:
/// a connection that is lost takes the transaction along, so that it is always an error. Nothing is
/// queued, shared with other calls, or tried again. Instrumentations hear of each call by a span
/// and of each statement; the cache's counters do not.
/// @par Errors
/// Thrown as `psycache::Error`. Every call can fail with Errc::connection_unusable; with
/// Errc::connection_lost, when nothing of the transaction is stored; Errc::timed_out;
/// Errc::table_missing, Errc::permission_denied; any SQLSTATE, such as 40001 and 40P01, after which
/// the whole transaction can be tried again.
/// @par Threads
/// One call at a time, by the rules of the connection: it is libpq's.
/// @par Object lifetimes
/// The connection must outlive the object, which leaves it as it was found, its blocking or
/// non-blocking mode included. One object may serve one transaction after the other; making one
/// sends nothing. Not copyable.
class PSYCACHE_EXPORT TransactionCache {
  public:
    /// @param connection of the application; not null. It need not be in a transaction yet.
    /// @param options    see CacheOptions.
    /// @throws std::invalid_argument for a null pointer, or naming the field that is wrong.
    explicit TransactionCache(pg_conn* connection, CacheOptions options = {});
    TransactionCache(const TransactionCache&) = delete;
    TransactionCache& operator=(const TransactionCache&) = delete;
    ~TransactionCache();

    /// Looks up the value of a key.
    ///
    /// @param key     as in AsyncPostgresCache::get_raw.
    /// @param options see CallOptions.
    /// @returns the value; nullopt when the entry is absent or expired, by the server's clock at
    /// the statement's beginning.
    /// @par Errors
    /// Errc::invalid_key, before anything is sent; Errc::unreadable_value, which does not abort the
    /// transaction; those of every call.
    /// @par Database effects
    /// One SELECT of the transaction.
    std::optional<json::object> get_raw(std::string_view key, const CallOptions& options = {});

    /// Looks up the value of a key and reads it as a T, as AsyncPostgresCache::get does; else as
    /// get_raw().
    template <class T>
    std::optional<T> get(std::string_view key, const CallOptions& options = {}) {
        std::optional<T> value;
        get_into(key, detail::reader_of(value), options);
        return value;
    }

    /// Looks up the JSON text of a key, as AsyncPostgresCache::get_text does; else as get_raw().
    std::optional<std::string> get_text(std::string_view key, const CallOptions& options = {});

    /// Stores a value under a key, replacing value and expiry of an existing entry.
    ///
    /// @param key     as in AsyncPostgresCache::put_raw.
    /// @param value   as there.
    /// @param ttl     as there, counted by the server from the statement, not from the commit.
    /// @param options see PutOptions; its tags are those by which `remove_tag` finds the entry.
    /// @par Errors
    /// Errc::invalid_key, Errc::invalid_tag, Errc::invalid_value, Errc::invalid_ttl,
    /// before anything is sent; those of every call.
    /// @par Database effects
    /// One upsert of the transaction, which with tags also upserts one row of the table of tags for
    /// each. It waits where another transaction has the row locked, as any statement does, and has
    /// the row locked until the transaction's end.
    void put_raw(std::string_view key, const json::object& value, Duration ttl,
                 const PutOptions& options = {});
    /// A value must be an object; what merely converts to one does not compile.
    template <detail::NoObject Value>
    void put_raw(std::string_view key, Value&& value, Duration ttl,
                 const PutOptions& options = {}) = delete;
    template <detail::NoMember Value>
    void put_raw(std::string_view key, std::initializer_list<Value> value, Duration ttl,
                 const PutOptions& options = {}) = delete;

    /// Stores a value of any type that converts to JSON, as AsyncPostgresCache::put does; else as
    /// put_raw().
    template <class T>
    void put(std::string_view key, const T& value, Duration ttl, const PutOptions& options = {}) {
        put_value(key, detail::as_json(value), ttl, options);
    }

    /// Stores JSON text under a key, as AsyncPostgresCache::put_text does; else as put_raw(). What
    /// only the server can refuse aborts the transaction.
    void put_text(std::string_view key, std::string_view json_text, Duration ttl,
                  const PutOptions& options = {});

    /// Deletes an entry.
    ///
    /// @param key     as in get_raw().
    /// @param options see CallOptions.
    /// @returns whether there was an entry, live or expired.
    /// @par Errors
    /// Errc::invalid_key, before anything is sent; those of every call.
    /// @par Database effects
    /// One DELETE of the transaction; locks as put_raw(). Where there is no entry nothing is
    /// locked: one that another transaction puts meanwhile stays.
    bool remove(std::string_view key, const CallOptions& options = {});

    /// Deletes all entries whose keys begin with a prefix, live and expired.
    ///
    /// @param prefix  UTF-8 without NUL; "" is refused. `%` and `_` are letters like others.
    /// @param options see CallOptions.
    /// @returns how many were deleted.
    /// @par Errors
    /// Errc::invalid_key, before anything is sent; those of every call.
    /// @par Database effects
    /// One DELETE of the transaction (`key LIKE ...`), however many rows it takes, which is all or
    /// nothing; it waits for those that others have locked, and may deadlock with a transaction
    /// that waits for one of its rows (40P01). It uses an index that knows the beginnings of keys
    /// where there is one, and else reads the table.
    std::uint64_t remove_prefix(std::string_view prefix, const CallOptions& options = {});

    /// Deletes all entries that have a tag, live and expired.
    ///
    /// @param tag     UTF-8 without NUL, 1 to 1,024 bytes.
    /// @param options see CallOptions.
    /// @returns how many entries were deleted.
    /// @par Errors
    /// Errc::invalid_tag, before anything is sent; Errc::table_missing where there is no table of
    /// tags; those of every call.
    /// @par Database effects
    /// One statement of the transaction, which deletes the entries, in the order of their keys, and
    /// the rows of the tag. Locks as remove_prefix(). An entry that another transaction puts with
    /// the tag meanwhile stays, and keeps its tag.
    std::uint64_t remove_tag(std::string_view tag, const CallOptions& options = {});

  private:
    void get_into(std::string_view key, detail::ValueReader reader, const CallOptions& options);
    void put_value(std::string_view key, const json::value& value, Duration ttl,
                   const PutOptions& options);

    const std::unique_ptr<detail::TransactionCore> core_;
};

/// TransactionCache for coroutines.
///
/// Transactions, deadlines, options, errors and effects in the database are those of
/// TransactionCache, call by call.
///
/// A cheap handle: copies share one object, and one call at a time.
///
/// @par Executor and threads
/// A call waits for the server on the executor that was given here, and resumes on the awaiting
/// coroutine's. While it runs, nothing else may use the connection. One call at a time.
/// @par Cancellation
/// All types, and all in the same way, since the connection is not the library's to be left in the
/// middle of an answer: the server is asked to cancel the statement, and the call returns when that
/// has ended. If it was cancelled, the call ends with `operation_aborted`, the statement has had no
/// effect and the transaction is aborted: the connection can be used for ROLLBACK. A statement that
/// was quicker has its result returned (the coroutine's next `co_await` then throws, as Asio has
/// it), and the transaction goes on. Where the server has not ended the statement after two seconds
/// the connection is closed, as at a deadline. A call that is cancelled before it has started sends
/// nothing.
/// @par Object lifetimes
/// A call keeps the object alive, not the connection, which must outlive it. A context that is
/// destroyed with a call in flight has its statement cancelled, and the connection closed
/// (CONNECTION_BAD) though not freed.
class PSYCACHE_EXPORT AsyncTransactionCache {
  public:
    /// @param executor   where calls wait for the server; not empty.
    /// @param connection of the application; not null. It need not be in a transaction yet.
    /// @param options    see CacheOptions.
    /// @throws std::invalid_argument for an empty executor or a null pointer, or naming the field
    /// that is wrong.
    AsyncTransactionCache(asio::any_io_executor executor, pg_conn* connection,
                          CacheOptions options = {});
    AsyncTransactionCache(const AsyncTransactionCache&) noexcept;
    AsyncTransactionCache(AsyncTransactionCache&&) noexcept;
    AsyncTransactionCache& operator=(const AsyncTransactionCache&) noexcept;
    AsyncTransactionCache& operator=(AsyncTransactionCache&&) noexcept;
    ~AsyncTransactionCache();

    /// @see TransactionCache::get_raw.
    asio::awaitable<std::optional<json::object>> get_raw(std::string key, CallOptions options = {});
    /// @see TransactionCache::get.
    template <class T>
    asio::awaitable<std::optional<T>> get(std::string key, CallOptions options = {}) {
        return detail::read_typed<T>([self = *this, key = std::move(key),
                                      options = std::move(options)](auto reader) mutable {
            return self.get_into(std::move(key), reader, std::move(options));
        });
    }
    /// @see TransactionCache::put.
    template <class T>
    asio::awaitable<void> put(std::string key, const T& value, Duration ttl,
                              PutOptions options = {}) {
        return put_value(std::move(key), detail::as_json(value), ttl, std::move(options));
    }
    /// @see TransactionCache::get_text.
    asio::awaitable<std::optional<std::string>> get_text(std::string key, CallOptions options = {});
    /// @see TransactionCache::put_raw.
    asio::awaitable<void> put_raw(std::string key, json::object value, Duration ttl,
                                  PutOptions options = {});
    /// A value must be an object; what merely converts to one does not compile.
    template <detail::NoObject Value>
    asio::awaitable<void> put_raw(std::string key, Value&& value, Duration ttl,
                                  PutOptions options = {}) = delete;
    template <detail::NoMember Value>
    asio::awaitable<void> put_raw(std::string key, std::initializer_list<Value> value, Duration ttl,
                                  PutOptions options = {}) = delete;
    /// @see TransactionCache::put_text.
    asio::awaitable<void> put_text(std::string key, std::string json_text, Duration ttl,
                                   PutOptions options = {});
    /// @see TransactionCache::remove.
    asio::awaitable<bool> remove(std::string key, CallOptions options = {});
    /// @see TransactionCache::remove_prefix.
    asio::awaitable<std::uint64_t> remove_prefix(std::string prefix, CallOptions options = {});
    /// @see TransactionCache::remove_tag.
    asio::awaitable<std::uint64_t> remove_tag(std::string tag, CallOptions options = {});

  private:
    asio::awaitable<bool> get_into(std::string key, detail::ValueReader reader,
                                   CallOptions options);
    asio::awaitable<void> put_value(std::string key, const json::value& value, Duration ttl,
                                    PutOptions options);

    std::shared_ptr<detail::TransactionCore> core_;
};

}  // namespace psycache
