#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>

#include <psycache/options.hpp>
#include <psycache/pool_statistics.hpp>

namespace psycache::detail {

namespace asio = boost::asio;

class PoolCore;

/// A server of a cluster that a pool's DSN does not name.
struct Node {
    std::string host;
    std::string port;
    /// Its system identifier: what else listens at its address, seen from here, is not it.
    std::int64_t system = 0;

    auto operator<=>(const Node&) const = default;
};

/// The pools to the nodes of a cluster, of a pool to one of its servers: with the same options but
/// for the host, and within the same number of connections.
///
/// Safe for several threads.
class NodePools {
  public:
    /// @param options those of the pool; they outlive this.
    NodePools(asio::any_io_executor executor, const PoolOptions& options);
    NodePools(const NodePools&) = delete;
    NodePools& operator=(const NodePools&) = delete;
    ~NodePools();

    /// What reach() has made of the number of connections.
    struct Reached {
        std::vector<std::shared_ptr<PoolCore>> pools;  ///< of each node; null: none is left for it
        std::size_t own = 0;  ///< how many are left for the pool itself; at least one
    };
    /// Makes pools to nodes, or finds those that are there. Those that no caller of this keeps any
    /// longer are closed first.
    /// @param settings in SQL, of each of their sessions, after PoolOptions::init_sql.
    Reached reach(const std::vector<Node>& nodes, const std::vector<std::string>& settings);

    /// Adds what they hold and have counted.
    void add_to(PoolStatistics& sum) const;
    void close() noexcept;
    void dismiss_waiters() noexcept;

    /// How many connections there are for each of so many nodes, and for how many of them.
    struct Share {
        std::size_t each = 0;
        std::size_t nodes = 0;
        std::size_t own = 0;  ///< for the pool itself
    };
    static Share share(std::size_t connections, std::size_t nodes) noexcept;

  private:
    std::vector<std::shared_ptr<PoolCore>> all() const;

    const asio::any_io_executor executor_;
    const PoolOptions& options_;
    mutable std::mutex mutex_;
    std::map<Node, std::shared_ptr<PoolCore>> pools_;
    PoolStatistics gone_;  // counts of pools that have been closed
    bool closed_ = false;
};

/// Adds what a pool has counted. @param numbers_too also what it holds now.
void add_statistics(PoolStatistics& sum, const PoolStatistics& more, bool numbers_too) noexcept;

}  // namespace psycache::detail
