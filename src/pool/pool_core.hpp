#pragma once

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <vector>

#include <psycache/connection_pool.hpp>

#include "async/completion.hpp"
#include "failure.hpp"
#include "observers.hpp"
#include "pg/connection.hpp"
#include "pool/attempts.hpp"
#include "pool/forsaken.hpp"

namespace psycache::detail {

/// The shared part of a ConnectionPool: outlives the pool object while leases are out.
///
/// A mutex guards a few containers; no connection is opened, used or closed, and no waiter is
/// answered, while it is held.
class PoolCore : public std::enable_shared_from_this<PoolCore> {
  public:
    /// @param forsaken shared with other pools of the same cache.
    PoolCore(asio::any_io_executor executor, PoolOptions options,
             std::shared_ptr<Forsaken> forsaken = std::make_shared<Forsaken>());
    PoolCore(const PoolCore&) = delete;
    PoolCore& operator=(const PoolCore&) = delete;
    ~PoolCore();

    static asio::awaitable<Result<ConnectionLease>> acquire(std::shared_ptr<PoolCore> self);
    /// @returns a lease of an idle connection, or an empty one.
    ConnectionLease try_acquire();
    PoolStatistics statistics() const;
    void close() noexcept;
    const asio::any_io_executor& executor() const noexcept { return executor_; }

  private:
    using Clock = std::chrono::steady_clock;

    /// A connection with its age.
    struct Slot {
        std::unique_ptr<pg::Connection> connection;
        Clock::time_point retire_at;
        Clock::time_point idle_since;
    };

    /// A caller that waits for a connection. Its timer is the waiting coroutine's own: this object
    /// may live on in another thread for a moment when that coroutine's context is gone.
    class Waiter final : public Completion<Result<ConnectionLease>> {
        void cancelled(asio::cancellation_type) override { this->settle(cancelled_failure()); }
    };

    class Lease;
    class ConnectTurn;

    asio::awaitable<Result<ConnectionLease>> wait_in_line(std::shared_ptr<Waiter> waiter,
                                                          asio::steady_timer& timer);
    void join_line(std::shared_ptr<Waiter> waiter, asio::steady_timer& timer);
    void leave_line(const Waiter& waiter, Clock::time_point since) noexcept;
    void give_back(Slot slot) noexcept;
    void hand_over(Slot slot) noexcept;
    Failure acquire_timeout() const;
    void connect_for_waiters() noexcept;
    static asio::awaitable<void> open_connections(std::shared_ptr<PoolCore> self, ConnectTurn turn);
    asio::awaitable<void> cancel_forsaken(pg::Connection& connection);
    void opened(std::unique_ptr<pg::Connection> connection);
    void open_failed(Clock::time_point began, const Failure& failure);
    bool wanted() const noexcept;
    Clock::time_point retirement();
    PoolChange numbers() const noexcept;
    void show_change() noexcept;

    const unsigned forks_ = pg::forks();
    const asio::any_io_executor executor_;
    // Made here and not when it is needed: one made while its context is being destroyed is never
    // emptied, and keeps for ever what is posted to it.
    const asio::strand<asio::any_io_executor> connecting_strand_;
    const PoolOptions options_;
    const Observers observers_;
    const std::shared_ptr<std::atomic<bool>> prepare_;
    const std::shared_ptr<Forsaken> forsaken_;

    mutable std::mutex mutex_;
    std::vector<Slot> idle_;  // the newest last
    std::deque<std::shared_ptr<Waiter>> waiters_;
    std::size_t open_ = 0;  // idle and lent
    bool connecting_ = false;
    bool closed_ = false;
    Attempts attempts_;
    std::minstd_rand dice_;
    PoolStatistics counters_;
    PoolChange shown_;  // what the observers have been told, summed up
};

}  // namespace psycache::detail
