#pragma once

#include <cstddef>
#include <cstdint>

#include <psycache/duration.hpp>

namespace psycache {

/// A moment of a ConnectionPool: what it holds now, and what it has counted since it was made,
/// connections to the nodes of a cluster (`PoolOptions::max_size`) included.
struct PoolStatistics {
    std::size_t max_size = 0;    ///< `PoolOptions::max_size`
    std::size_t open = 0;        ///< open connections, idle and busy
    std::size_t idle = 0;        ///< open connections that are not in use
    std::size_t busy = 0;        ///< open connections that are lent
    std::size_t connecting = 0;  ///< connections being opened; at most `max_connecting`
    std::size_t waiting = 0;     ///< callers that wait for a connection
    std::size_t listening = 0;   ///< connections that listen for near caches, not among the others

    std::uint64_t leases = 0;            ///< connections lent
    std::uint64_t waits = 0;             ///< of them, those that had to wait
    Duration wait_time{0};               ///< time spent waiting, all callers together
    std::uint64_t acquire_timeouts = 0;  ///< waits that ended by `acquire_timeout`
    std::uint64_t connects = 0;          ///< connections opened
    std::uint64_t connect_failures = 0;  ///< attempts that failed
    std::uint64_t lost = 0;              ///< connections found dead, or left unusable by a call
    std::uint64_t retired = 0;           ///< connections closed by `idle_timeout` or `max_lifetime`
};

}  // namespace psycache
