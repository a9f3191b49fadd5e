#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <psycache/duration.hpp>
#include <psycache/export.hpp>
#include <psycache/near_cache.hpp>

namespace psycache {

class CacheInstrumentation;

/// How much a log line matters.
enum class LogLevel { debug, info, warning, error };

/// Where log lines go. It is called from any thread that runs the library, must be safe for that,
/// and should return at once; an exception out of it is swallowed. Lines may name a host and a
/// port, and quote what the application's own pool threw, but never hold keys, values, passwords or
/// text of the server.
///
/// Without a sink, warnings and errors go to standard error, the same line once a minute at most
/// and no more than 64 lines a minute in the whole process. A sink that does nothing silences them:
/// `options.log = [](psycache::LogLevel, std::string_view) {};`
using LogSink = std::function<void(LogLevel, std::string_view)>;

/// What a cache does when PostgreSQL cannot be reached (`Condition::unavailable`).
enum class OnOutage {
    /// Every call throws.
    raise,
    /// Look-ups answer "miss"; writes return without effect, and say so where they can. Both are
    /// counted in `CacheStatistics`. All other errors are thrown as ever, and so are those of
    /// `increment`, `remove_prefix`, `remove_tag`, `clear`, `flush` and `cleanup_expired`.
    ///
    /// No caller waits for a server that is known to be away: when five calls in a row have failed
    /// so, and none has succeeded since they began, further ones are answered at once, without the
    /// server (`CacheStatistics::circuit_open`). After 0.1 s, growing to 3 s, one call is let
    /// through, within its deadline as ever; its success ends the outage.
    ///
    /// A server that is read-only (SQLSTATE 25006) takes no writes, which are dropped in the same
    /// way; gets are answered by it.
    miss,
};

/// How a ConnectionPool connects and what it keeps. Every field is checked by the pool's
/// constructor, which throws `std::invalid_argument` naming the field.
///
/// It declares its constructor, as every options type here does: g++ 12 destroys temporaries of an
/// aggregate twice inside a `co_await` expression.
struct PSYCACHE_EXPORT PoolOptions {
    PoolOptions();
    PoolOptions(const PoolOptions&);
    PoolOptions(PoolOptions&&) noexcept;
    PoolOptions& operator=(const PoolOptions&);
    PoolOptions& operator=(PoolOptions&&) noexcept;
    ~PoolOptions();

    /// What libpq accepts: a URI, "keyword=value" pairs, or "" for the environment (PGHOST ...) and
    /// the service file. Several hosts, `target_session_attrs` and all TLS settings work as libpq
    /// defines them, but for four: over TCP a peer that vanished is found out within 20 seconds
    /// unless the DSN sets `keepalives_idle`, `tcp_user_timeout` and their like; host names are
    /// resolved by threads in the background that no caller waits for (eight at most in a process,
    /// two for a name), all their addresses are tried; `gssencmode` is "disable" unless the DSN or
    /// PGGSSENCMODE sets it; the encoding of the connection is always UTF-8. `connect_timeout` of
    /// the DSN is not used: see below.
    ///
    /// Of several hosts, each connection is asked for its timeline (`pg_control_system()` and
    /// `pg_walfile_name()`, open to every role unless revoked). Once a promoted host has been seen,
    /// an old primary of the same cluster that is still up is passed over, idle connections to it
    /// are closed, and an answer that it still gives counts as a lost connection: reads are sent
    /// again, writes as @ref CacheOptions::replay_writes says. Until a pool has reached the new one
    /// it cannot know, and several pools do not tell each other.
    std::string dsn;

    /// How many connections may be open at once; at least 1. A few are enough: calls that arrive
    /// together share statements, so one connection serves hundreds of callers.
    ///
    /// Where a cache finds its table distributed by Citus they are divided: one at least stays for
    /// the server of the DSN, and the nodes that have shards get an equal part of the others each,
    /// as far as there are enough. What else is set here (user, @ref password, TLS, @ref init_sql,
    /// time-outs) holds for nodes as well; their hosts and ports are those of the cluster's
    /// catalog.
    std::size_t max_size = 4;

    /// Where it is set: a coroutine that is asked for the password of each connection before that
    /// is opened, for credentials that change. What it returns takes the place of the DSN's
    /// password, PGPASSWORD and the password file; it is used once and kept nowhere.
    ///
    /// It runs on a strand of the pool's executor, several at once if @ref max_connecting allows
    /// it, and must not block (that of a PostgresCache is run by a thread that waits for a
    /// connection). Its time is part of @ref connect_timeout: later it is cancelled (`terminal`),
    /// and not waited for. What it throws ends the attempt with `Errc::connect_failed` and can be
    /// asked for as `Error::cause_exception()`; its text is not shown, since it can hold a secret.
    std::function<boost::asio::awaitable<std::string>()> password;

    /// SQL that is run on each new connection before that is lent, one after the other, within
    /// @ref connect_timeout: settings of the session, say. None may be empty, hold a NUL or leave a
    /// transaction open. Where one fails the connection is closed, and the attempt has failed with
    /// `Errc::connect_failed` and the SQLSTATE. Behind a pooler in transaction mode it reaches some
    /// session of the server, now and then: leave it empty there.
    std::vector<std::string> init_sql;

    /// How many connections are kept idle once the pool has been used; at most max_size. Whatever
    /// lends or asks for a connection sees to it that as many are opened, in the background; what
    /// fails there is logged, and tried again when the pool is next used. `idle_timeout` leaves as
    /// many alone. With 0, connections are opened for callers only. `warm_up()` opens them before
    /// the first call. In a PostgresCache, which has no thread to work in the background, nothing
    /// but its `warm_up()` uses this number.
    std::size_t min_idle = 0;

    /// How many connections may be opened at the same time; at least 1. More than that wait for
    /// their turn, so that a server that has just come back is not stormed. While the last attempt
    /// has failed it is one.
    std::size_t max_connecting = 2;

    /// How long opening one connection may take: names, TCP, TLS, authentication. Of several hosts
    /// and addresses each has its share of it, so that one that says nothing leaves time for the
    /// next. Keep it below acquire_timeout, or callers learn that they waited rather than why.
    /// Positive; no_expiry is refused, since a black hole would then hold its callers for ever.
    Duration connect_timeout = std::chrono::seconds(3);

    /// How long a caller of `connect()` waits for a connection. Positive; no_expiry is refused.
    Duration acquire_timeout = std::chrono::seconds(4);

    /// A connection that was idle longer is closed when the pool is next used, or asked for its
    /// statistics, rather than lent. Positive; no_expiry keeps idle connections for ever.
    Duration idle_timeout = std::chrono::minutes(10);

    /// A connection older than this (less up to a tenth, at random) is replaced when it is next
    /// idle, so that load balancers and password changes take effect. Positive; no_expiry for
    /// never.
    Duration max_lifetime = std::chrono::minutes(30);

    /// Whether statements are prepared by name, once per connection. Set it to false behind a
    /// pooler that cannot carry named statements (PgBouncer before 1.21 in transaction mode); a
    /// pool that sees such a pooler's errors stops preparing by itself.
    bool prepare_statements = true;

    /// Who is told when connections are opened, lent, given back and closed, by
    /// `record_pool_change`. No null pointers. A cache that makes its own pool tells those of
    /// `CacheOptions::instrumentations` too; for a pool that is made first and shared, name them
    /// here.
    std::vector<std::shared_ptr<CacheInstrumentation>> instrumentations;

    /// Connects, losses and replacements of connections. Without it, warnings and errors go to the
    /// `CacheOptions::log` of the cache that makes the pool for itself, if there is one, and else
    /// to standard error, as @ref LogSink says.
    LogSink log;
};

/// What one call has of its own. A name alone may stand for it: `cache.get_raw("key", "name")`.
struct PSYCACHE_EXPORT CallOptions {
    /// No name, and the deadline of the cache.
    CallOptions();
    /// @param name as @ref span_name.
    CallOptions(std::string name);       // NOLINT: meant to convert
    CallOptions(std::string_view name);  // NOLINT: meant to convert
    /// @param name as @ref span_name; not null.
    CallOptions(const char* name);  // NOLINT: meant to convert
    /// @param its_timeout as @ref timeout, which is checked by the call.
    explicit CallOptions(Duration its_timeout);
    CallOptions(const CallOptions&);
    CallOptions(CallOptions&&) noexcept;
    CallOptions& operator=(const CallOptions&);
    CallOptions& operator=(CallOptions&&) noexcept;
    ~CallOptions();

    /// What instrumentation calls the call; "" for no name.
    std::string span_name;

    /// The call's deadline, waiting included, instead of `CacheOptions::timeout`; that of
    /// `remove_prefix`, `remove_tag`, `clear`, `flush` and of each batch of `cleanup_expired`
    /// instead of `CacheOptions::maintenance_timeout`.
    /// Positive and finite, else the call throws `std::invalid_argument` naming the field. A
    /// statement that calls share is given up after twice `CacheOptions::timeout`, however long one
    /// of them would wait.
    std::optional<Duration> timeout;
};

/// The longest tag, in bytes.
inline constexpr std::size_t max_tag_size = 1024;

/// How many bytes a tag and the key of its entry may have together: what always fits PostgreSQL's
/// index, whatever the bytes are.
inline constexpr std::size_t max_tagged_size = 2680;

/// What one put has of its own. As with CallOptions, a name alone may stand for it.
struct PSYCACHE_EXPORT PutOptions : CallOptions {
    /// No name, the deadline of the cache, no tags.
    PutOptions();
    using CallOptions::CallOptions;
    /// @param of_the_call without tags.
    PutOptions(CallOptions of_the_call);  // NOLINT: meant to convert
    PutOptions(const PutOptions&);
    PutOptions(PutOptions&&) noexcept;
    PutOptions& operator=(const PutOptions&);
    PutOptions& operator=(PutOptions&&) noexcept;
    ~PutOptions();

    /// What `remove_tag` finds the entry by; any number, each UTF-8 without NUL, 1 to @ref
    /// max_tag_size bytes, together with the key @ref max_tagged_size at most, else the put fails
    /// with `Errc::invalid_tag`. They are kept in a table of their own, which `TableOptions::tags`
    /// makes. An entry that is put again keeps the tags that it had: those of every put count until
    /// `remove_tag`, or a cleanup that finds no entry, takes them away.
    std::vector<std::string> tags;
};

/// How a cache behaves. Checked by the cache's constructor, which throws `std::invalid_argument`
/// naming the field.
struct PSYCACHE_EXPORT CacheOptions {
    CacheOptions();
    CacheOptions(const CacheOptions&);
    CacheOptions(CacheOptions&&) noexcept;
    CacheOptions& operator=(const CacheOptions&);
    CacheOptions& operator=(CacheOptions&&) noexcept;
    ~CacheOptions();

    /// The schema of the table; nullopt for the connection's default schema. "" is refused with
    /// "schema must not be empty". Any other name is safe: it is always quoted.
    std::optional<std::string> schema;

    /// Observers of every call, called in this order at the start and in reverse at the end. No
    /// null pointers. They are called from every thread that calls the cache. Without any, none of
    /// what they are told is measured, and the server is not asked for sizes.
    std::vector<std::shared_ptr<CacheInstrumentation>> instrumentations;

    /// The deadline of one call, waiting included. Positive; no_expiry is refused. `remove_prefix`,
    /// `remove_tag`, `clear`, `flush` and each batch of `cleanup_expired` get @ref
    /// maintenance_timeout instead.
    Duration timeout = std::chrono::seconds(5);

    /// The deadline of `remove_prefix`, `remove_tag`, `clear`, `flush` and of each batch of
    /// `cleanup_expired`. Positive; no_expiry is refused.
    Duration maintenance_timeout = std::chrono::minutes(1);

    /// What happens when PostgreSQL cannot be reached.
    OnOutage on_outage = OnOutage::raise;

    /// Whether a write that was sent and whose answer was lost with the connection is sent once
    /// more. Off, such a call ends with `Errc::outcome_unknown`, since a replay could overwrite a
    /// newer value of another writer. So do `increment`, `take`, `put_if_absent` and
    /// `compare_and_put` in any case: done twice, they answer wrongly or count twice.
    bool replay_writes = false;

    /// How many calls may wait at once; at least 1. A further one fails with `Errc::queue_full`. A
    /// call of many keys counts as one, and has up to 1,024 of them waiting at a time.
    std::size_t max_queued_calls = 16384;

    /// How many entries the table may hold; at least 1, and no limit by default. Every cleanup of
    /// this cache, called or in a loop, deletes what is more when it has deleted what has expired:
    /// the entries that expire soonest, in batches, of one cleaner at a time among all processes.
    /// Between two cleanups the table may hold more.
    ///
    /// How many there are is taken from the server's statistics, which count committed changes and
    /// may be some seconds behind (before PostgreSQL 15, until a session that has written does so
    /// again), and are off by what changed during the last VACUUM or ANALYZE
    /// (`track_counts` must be on, as it is by default): nothing is counted, however large the
    /// table is. What they say of a table that is a view, partitioned or
    /// distributed by Citus is not enough: a warning is logged once, and nothing is deleted.
    std::optional<std::uint64_t> max_entries;

    /// The same for the bytes of all live entries: keys, values as they are stored (compressed),
    /// and the headers of their rows, without indexes and without what deleted rows leave behind
    /// until it is used again. At least 1. The size of an entry is an average over about a hundred
    /// pages of the table.
    std::optional<std::uint64_t> max_bytes;

    /// Entries kept in the memory of the process, for `get_shared`, `peek` and `get_or_create`; see
    /// NearCacheOptions. None by default. Invalidation::listen needs a cache whose pool is a
    /// ConnectionPool: no other can open the connection that listens.
    std::optional<NearCacheOptions> near_cache;

    /// Failures of the cleanup loop and of instrumentations. Without it they go to standard error,
    /// as @ref LogSink says.
    LogSink log;
};

}  // namespace psycache
