#pragma once

#include <boost/asio/awaitable.hpp>
#include <optional>
#include <string>

#include <psycache/cache_pool.hpp>
#include <psycache/export.hpp>

namespace psycache {

/// Where the cache's table is made, and how.
struct PSYCACHE_EXPORT TableOptions {
    TableOptions();
    TableOptions(const TableOptions&);
    TableOptions(TableOptions&&) noexcept;
    TableOptions& operator=(const TableOptions&);
    TableOptions& operator=(TableOptions&&) noexcept;
    ~TableOptions();

    /// The schema of the table; nullopt for the connection's default schema. The schema must exist.
    /// "" is refused with "schema must not be empty".
    std::optional<std::string> schema;

    /// An UNLOGGED table (true) writes no WAL: several times faster to write, not replicated, and
    /// empty after a crash of the server. A logged one keeps its rows. An existing table is left as
    /// it is.
    bool unlogged = true;

    /// Whether the expiry has an index, as Python's psycache always makes one. The cleanup finds
    /// expired rows by it. Without it PostgreSQL can overwrite a row in place (a HOT update), for
    /// which the table then leaves room (fillfactor 70): where the same keys are put again and
    /// again, merged puts are about twice as fast and the table takes a fourth of the space, while
    /// a cleanup reads the whole table. An existing table or index is left as it is.
    bool expiry_index = true;

    /// Whether there is a table of tags, `psycache_tags(tag, key, expires_at)`, beside that of the
    /// entries, which is as Python's psycache makes it either way. It is what `PutOptions::tags`
    /// and `remove_tag` want; @ref unlogged and @ref expiry_index count for it as well. With false
    /// a table of tags that is there is left as it is.
    bool tags = false;

    /// Whether triggers tell of changed entries by NOTIFY, be it by this library, by Python's
    /// psycache or by SQL. They are made on a table that is there as well. With false
    /// triggers that are there are left as they are; @ref drop_notify removes them.
    ///
    /// A statement that overwrites or removes entries sends one notification when its transaction
    /// commits, on the channel `psycache_OID`, with the OID of the cache's table. It holds
    /// `hashtextextended(key, 0)` of each key, as `to_hex` writes it, separated by a space; or `*`,
    /// all of them, for more than 400 keys and for TRUNCATE. New entries are not told of, nor are
    /// expired ones that are removed. Equal notifications of one transaction are sent once.
    ///
    /// The triggers are `psycache_notify_update`, `psycache_notify_delete` and
    /// `psycache_notify_truncate`, which run also where `session_replication_role` is `replica`;
    /// their function is `psycache_notify()` in the schema of the table. A role that may write to
    /// the table needs no other privilege.
    ///
    /// Beware: PostgreSQL lets transactions that notify commit one after the other. It refuses to
    /// PREPARE one. It fires no such trigger for the changes that a logical subscription applies,
    /// TRUNCATE apart. Where the server distributes the table (Citus) it refuses the triggers.
    bool notify = false;
};

/// The statements that make the table and its index, as text for a migration tool; nothing is sent.
///
/// Two statements (one without `expiry_index`; twice as many with `tags`; one more with `notify`),
/// each ended by a semicolon and a line break; they do nothing where all is there already. By
/// default they make what Python's psycache makes; either library can use either table, with and
/// without the index or the triggers.
///
/// Any number of sessions may run them at once, and may run @ref init_db meanwhile: each statement
/// is a DO block in PL/pgSQL that takes the lock which init_db takes. So they may be committed one
/// by one, as psql does, or be a part of a larger transaction, which then holds the lock until its
/// end. In their text `\x3b` stands for a semicolon, so that a tool which splits scripts at
/// semicolons leaves each in one piece.
/// @throws std::invalid_argument when the schema is "" or holds a NUL byte.
[[nodiscard]] PSYCACHE_EXPORT std::string init_db_sql(const TableOptions& options = {});

/// Makes the table and its index unless they are there, with a connection of @p pool.
///
/// Idempotent, and safe when many processes do it at once. With `notify` it makes the triggers as
/// well; to make one waits for transactions that write to the table, and holds up others meanwhile.
///
/// @param pool    must live until the operation ends.
/// @param options see TableOptions.
/// @par Errors
/// `std::invalid_argument` for a schema that is ""; what `pool.connect()` throws; Errc::timed_out
/// after a minute; Errc::permission_denied (42501) for a role without CREATE on the schema, or that
/// does not own the table that is there; 3F000 when the schema does not exist; other
/// SQLSTATEs. The text tells which.
/// @par Cancellation
/// All types: a statement that was already sent ends first, and makes the table or not; then the
/// call ends with `operation_aborted`.
/// @par Executor and threads
/// Resumes on the awaiting coroutine's executor.
/// @par Database effects
/// One round trip, one transaction: an advisory lock, then the statements. All or nothing.
PSYCACHE_EXPORT asio::awaitable<void> init_db(AsyncCachePool& pool, TableOptions options = {});

/// The same, blocking, with a connection that the application owns.
///
/// @param connection open, idle and outside of any transaction; comes back that way.
/// @param options    see TableOptions.
/// @par Errors
/// Thrown: Errc::connection_unusable when the connection is not idle; otherwise as above.
PSYCACHE_EXPORT void init_db(pg_conn* connection, const TableOptions& options = {});

/// The same, blocking, with a connection of its own that is closed afterwards.
///
/// @param dsn     as `PoolOptions::dsn`.
/// @param options see TableOptions.
/// @par Errors
/// Thrown: `std::invalid_argument` for a DSN that libpq cannot read; Errc::connect_failed,
/// Errc::authentication_failed; otherwise as above. Opening takes ten seconds at most.
PSYCACHE_EXPORT void init_db(const std::string& dsn, const TableOptions& options = {});

/// The statement that removes what @ref TableOptions::notify makes, as text; nothing is sent.
///
/// One statement of the kind of @ref init_db_sql: it takes the same lock, and does nothing where
/// there are no triggers.
/// @param options where the table is; only `schema` counts.
/// @throws std::invalid_argument when the schema is "" or holds a NUL byte.
[[nodiscard]] PSYCACHE_EXPORT std::string drop_notify_sql(const TableOptions& options = {});

/// Removes them, blocking, with a connection of its own that is closed afterwards.
///
/// Idempotent. Where there are triggers it waits for all transactions that use the table, and holds
/// up others meanwhile. Who still listens hears nothing any more.
///
/// @param dsn     as `PoolOptions::dsn`.
/// @param options where the table is; only `schema` counts.
/// @par Errors
/// Thrown: as by @ref init_db with a DSN; 2BP01 when triggers of another table use the function.
PSYCACHE_EXPORT void drop_notify(const std::string& dsn, const TableOptions& options = {});

}  // namespace psycache
