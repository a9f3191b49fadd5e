#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <psycache/duration.hpp>
#include <psycache/export.hpp>

namespace psycache {

class CacheInstrumentation;

/// How much a log line matters.
enum class LogLevel { debug, info, warning, error };

/// Where log lines go. It is called from any thread that runs the library, must be safe for that,
/// and should return at once; an exception out of it is swallowed. Lines may name a host and a
/// port, but never hold keys, values, passwords or text of the server.
using LogSink = std::function<void(LogLevel, std::string_view)>;

/// What a cache does when PostgreSQL cannot be reached (`Condition::unavailable`).
enum class OnOutage {
    /// Every call throws.
    raise,
    /// `get_raw` answers "miss"; `put_raw` and `remove` return without effect. Both are counted in
    /// `CacheStatistics`. All other errors are thrown as ever, and so are those of `flush` and
    /// `cleanup_expired`.
    ///
    /// No caller waits for a server that is known to be away: when five calls in a row have failed
    /// so, and none has succeeded since they began, further ones are answered at once, without the
    /// server (`CacheStatistics::circuit_open`). After 0.1 s, growing to 3 s, one call is let
    /// through, within its deadline as ever; its success ends the outage.
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
    /// resolved without blocking, all their addresses are tried; `gssencmode` is "disable" unless
    /// the DSN or PGGSSENCMODE sets it; the encoding of the connection is always UTF-8.
    /// `connect_timeout` of the DSN is not used: see below.
    std::string dsn;

    /// How many connections may be open at once; at least 1. A few are enough: calls that arrive
    /// together share statements, so one connection serves hundreds of callers.
    std::size_t max_size = 4;

    /// How long opening one connection may take: names, TCP, TLS, authentication. Of several hosts
    /// and addresses each has its share of it, so that one that says nothing leaves time for the
    /// next. Keep it below acquire_timeout, or callers learn that they waited rather than why.
    /// Positive; no_expiry is refused, since a black hole would then hold its callers for ever.
    Duration connect_timeout = std::chrono::seconds(3);

    /// How long a caller of `connect()` waits for a connection. Positive; no_expiry is refused.
    Duration acquire_timeout = std::chrono::seconds(4);

    /// A connection that was idle longer is closed when the pool is next used, rather than lent.
    /// Positive; no_expiry keeps idle connections for ever.
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

    /// Connects, losses and replacements of connections; silent by default.
    LogSink log;
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

    /// The deadline of one call, waiting included. Positive; no_expiry is refused. `flush` and each
    /// batch of `cleanup_expired` get @ref maintenance_timeout instead.
    Duration timeout = std::chrono::seconds(5);

    /// The deadline of `flush` and of each batch of `cleanup_expired`. Positive; no_expiry is
    /// refused.
    Duration maintenance_timeout = std::chrono::minutes(1);

    /// What happens when PostgreSQL cannot be reached.
    OnOutage on_outage = OnOutage::raise;

    /// Whether a write that was sent and whose answer was lost with the connection is sent once
    /// more. Off, such a call ends with `Errc::outcome_unknown`, since a replay could overwrite a
    /// newer value of somebody else.
    bool replay_writes = false;

    /// How many calls may wait at once; at least 1. A further one fails with `Errc::queue_full`.
    std::size_t max_queued_calls = 16384;

    /// Failures of the cleanup loop and of instrumentations; silent by default.
    LogSink log;
};

}  // namespace psycache
