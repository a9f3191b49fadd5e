#pragma once

#include <algorithm>
#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <psycache/connection_pool.hpp>

#include "core/observers.hpp"
#include "pool/node_pools.hpp"
#include "pool/pool_state.hpp"

namespace psycache::detail {

/// The shared part of a ConnectionPool: outlives the pool object while leases are out.
///
/// A mutex guards a few containers; no connection is opened, used or closed, and no waiter is
/// answered, while it is held.
class PoolCore : public std::enable_shared_from_this<PoolCore> {
  public:
    PoolCore(asio::any_io_executor executor, PoolOptions options);
    /// @param node where it leads instead of the hosts of the DSN.
    PoolCore(asio::any_io_executor executor, PoolOptions options, std::optional<Node> node);
    PoolCore(const PoolCore&) = delete;
    PoolCore& operator=(const PoolCore&) = delete;
    ~PoolCore();

    static asio::awaitable<Result<ConnectionLease>> acquire(std::shared_ptr<PoolCore> self);
    /// @returns a lease of an idle connection, or an empty one.
    ConnectionLease try_acquire();
    /// Opens connections until @p wanted are open; one of them is looked at.
    /// @returns why not, if that is so.
    static asio::awaitable<std::optional<Failure>> warm_up(std::shared_ptr<PoolCore> self,
                                                           std::size_t wanted);
    /// How many connections warm_up() is to open.
    std::size_t warm() const noexcept { return std::max<std::size_t>(options_.min_idle, 1); }
    /// Closes what was idle for too long first: without calls nothing else does.
    PoolStatistics statistics();
    void close() noexcept;
    /// So many connections may be open from now on.
    void set_limit(std::size_t limit);
    /// @returns whether a connection is open, idle or lent.
    bool reached() const;
    /// Opens PoolOptions::min_idle connections in the background.
    void top_up() noexcept;
    /// Pools to the nodes of the cluster that this one's server belongs to; see NodePools::reach.
    std::vector<std::shared_ptr<PoolCore>> reach(const std::vector<Node>& nodes,
                                                 const std::vector<std::string>& settings);
    /// Sends away all who wait for a connection.
    void dismiss_waiters() noexcept;
    const asio::any_io_executor& executor() const noexcept { return executor_; }

    using Connected = Result<std::unique_ptr<pg::Connection>>;
    /// Opens a connection that is none of the pool's: for one who listens. It may outlive the pool,
    /// which stays until it is open.
    /// @param io where it waits for the server; no strand.
    asio::awaitable<Connected> connect_beside(asio::any_io_executor io) {
        return connect(std::move(io), Clock::now() + options_.connect_timeout);
    }

    /// A connection beside the pool that listens, for as long as this lives.
    class Listening {
      public:
        explicit Listening(std::shared_ptr<PoolCore> core) noexcept : core_(std::move(core)) {
            ++core_->listening_;
        }
        Listening(const Listening&) = delete;
        Listening& operator=(const Listening&) = delete;
        ~Listening() { --core_->listening_; }

      private:
        const std::shared_ptr<PoolCore> core_;
    };

  private:
    using Waiter = PoolState::Waiter;

    class Lease;

    void join_line(std::shared_ptr<Waiter> waiter, asio::steady_timer& timer);
    Failure waited_too_long();
    void give_back(PooledConnection connection) noexcept;
    void hand_over(PooledConnection connection) noexcept;
    ConnectionLease lease_of(PooledConnection connection);
    void connect_for_waiters() noexcept;
    template <class End>
    static asio::awaitable<void> open_connections(std::shared_ptr<PoolCore> self, End end);
    asio::awaitable<void> open_connection();
    asio::awaitable<Connected> connect(asio::any_io_executor io, TimePoint deadline);
    asio::awaitable<Result<std::string>> ask_for_password(TimePoint deadline);
    bool start_connecting() noexcept;
    void show_change() noexcept;

    const unsigned forks_ = pg::forks();
    const asio::any_io_executor executor_;
    // Made here and not when it is needed: one made while its context is being destroyed is never
    // emptied, and keeps for ever what is posted to it.
    const asio::strand<asio::any_io_executor> connecting_strand_;
    const PoolOptions options_;
    const std::optional<Node> node_;
    const Observers observers_;
    const std::shared_ptr<std::atomic<bool>> prepare_;
    const std::shared_ptr<pg::Timelines> timelines_ = std::make_shared<pg::Timelines>();

    std::atomic<std::size_t> listening_{0};
    mutable std::mutex mutex_;
    PoolState state_;
    PoolChange shown_;         // what the observers have been told, summed up
    bool complained_ = false;  // of a node that cannot be reached, since it last was

    NodePools nodes_;
};

/// The core of a ConnectionPool, which other pools have not.
struct PoolAccess {
    static std::shared_ptr<PoolCore> core_of(const AsyncCachePool& pool) noexcept {
        const auto* const connections = dynamic_cast<const ConnectionPool*>(&pool);
        return connections == nullptr ? nullptr : connections->core_;
    }
};

}  // namespace psycache::detail
