#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include <psycache/duration.hpp>
#include <psycache/export.hpp>

namespace psycache {

/// How a process learns that an entry it keeps in memory has been changed by another one.
enum class Invalidation {
    /// From the database: the triggers of `TableOptions::notify` tell a connection that listens of
    /// every change, also one by SQL or by Python. Nothing older than
    /// `NearCacheOptions::max_staleness` is served, whatever breaks.
    listen,
    /// Not at all: an entry is served for `NearCacheOptions::max_age` at most, and up to so long
    /// after it was changed elsewhere. For what cannot listen: transaction poolers (PgBouncer),
    /// tables that Citus distributes, pools that an application lends.
    none,
};

/// Entries that a process keeps in its own memory (`CacheOptions::near_cache`), for `get_shared`,
/// `peek` and `get_or_create`. Checked by the cache's constructor.
///
/// Every other call asks the server as ever. What this cache itself writes is never served from
/// memory as it was before, from the moment at which the call ends: whatever the call does to
/// entries, they are dropped from memory. What a
/// TransactionCache writes, and a write that was cancelled or timed out and takes effect after
/// that, count as changes by another process.
///
/// @par The connection that listens
/// With Invalidation::listen a cache opens one connection beside those of its pool (in
/// `PoolStatistics::listening`), with warm_up() or when get_shared or get_or_create first wants an
/// entry kept; until it is there, and whenever it is not, entries come from the server and none is
/// kept. Four times within `max_staleness` it sends a notification to itself: what comes back
/// proves that all changes before it have been heard of. Without such a proof that is younger than
/// `max_staleness` nothing is served from memory; after a new connection everything in memory is
/// dropped.
///
/// It ends when the last handle of the cache is gone, by `drain()`, and when nothing has asked
/// memory for `max_age`; until then it is work on the pool's executor, and `io_context::run` does
/// not return. A PostgresCache runs it in a thread of its own.
struct PSYCACHE_EXPORT NearCacheOptions {
    NearCacheOptions();

    /// What entries may take: keys, values and what keeps them. At least 64 KiB. The least wanted
    /// go first (SIEVE). An entry that takes more than a 32nd of it may not be kept.
    std::size_t max_bytes = std::size_t{64} << 20;

    /// An entry is served at most so long after the server was asked for it, and never longer than
    /// until its expiry. Positive; no_expiry is refused.
    Duration max_age = std::chrono::minutes(1);

    /// How changes by others are heard of.
    Invalidation invalidation = Invalidation::listen;

    /// With Invalidation::listen: nothing that was changed longer ago is served from memory, as it
    /// was before. At least 20 ms; no_expiry is refused.
    Duration max_staleness = std::chrono::seconds(2);

    /// With Invalidation::listen, where listening is not possible as things are set up: the table
    /// has no triggers, or a pooler swallows LISTEN. With zero nothing is then kept in memory; else
    /// entries are served for so long, as with Invalidation::none. Either way the log says so, and
    /// what is wrong is looked at again every five seconds. Not negative; no_expiry is refused.
    Duration fallback_max_age{0};
};

/// What a near cache holds now, and what it has counted.
struct NearStatistics {
    std::uint64_t hits = 0;           ///< look-ups answered from memory, not among the cache's hits
    std::uint64_t misses = 0;         ///< look-ups of the table, since memory had no answer
    std::uint64_t evictions = 0;      ///< entries that made room for others
    std::uint64_t invalidations = 0;  ///< entries that were dropped, since they may have changed
    std::size_t entries = 0;          ///< kept now, those that have expired included
    std::size_t bytes = 0;            ///< what they take
    bool listening = false;           ///< whether it was proven that changes are heard of
    Duration lag{0};                  ///< how long the last proof took to come; 0 before the first
};

}  // namespace psycache
