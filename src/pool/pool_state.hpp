#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include <psycache/cache_pool.hpp>
#include <psycache/instrumentation.hpp>
#include <psycache/options.hpp>
#include <psycache/pool_statistics.hpp>

#include "core/clock.hpp"
#include "core/timed_wait.hpp"
#include "pg/connection.hpp"
#include "pool/attempts.hpp"

namespace psycache::detail {

/// A connection of a pool, with its age.
struct PooledConnection {
    std::unique_ptr<pg::Connection> connection;
    TimePoint retire_at = TimePoint::max();
    TimePoint idle_since = TimePoint::min();
    pg::Origin origin = {};
};

/// Who gets which connection of a pool, when one is opened, and what is counted. No I/O, no lock,
/// no clock; it looks into no connection.
class PoolState {
  public:
    /// A caller that waits for a connection.
    using Waiter = TimedWait<ConnectionLease>;
    using Waiters = std::deque<std::shared_ptr<Waiter>>;

    /// @param options of them, the limits; they outlive this.
    PoolState(const PoolOptions& options, unsigned seed);

    /// So many may be open from now on, @ref PoolOptions::max_size until then.
    /// @returns the idle connections that are too many; they are no longer counted.
    std::vector<PooledConnection> set_limit(std::size_t limit);
    std::size_t limit() const noexcept { return limit_; }
    std::size_t open() const noexcept { return open_; }
    /// min_idle connections are to be opened, though no caller waits for one.
    void top_up() noexcept { topping_up_ = true; }

    /// @returns the connections that were idle for too long; they are no longer counted.
    std::vector<PooledConnection> take_too_old(TimePoint now);

    /// An idle connection, and those that have become too old to be lent.
    struct Idle {
        std::optional<PooledConnection> lent;
        std::vector<PooledConnection> too_old;
    };
    /// @returns the newest idle connection, if no caller waits for one.
    Idle lend_idle(TimePoint now);
    /// A connection that was lent by lend_idle() was found dead before it was used.
    void found_dead() noexcept;

    /// What becomes of a caller that joins the line.
    struct Joined {
        std::shared_ptr<const Failure> failure;  ///< it need not wait: this is why
        std::optional<PooledConnection> lent;    ///< it need not wait: this came back meanwhile
    };
    Joined join(std::shared_ptr<Waiter> waiter, TimePoint now);
    /// @param waited how long it has waited, whatever came of it.
    void leave(const Waiter& waiter, Duration waited) noexcept;
    void acquire_timed_out() noexcept { ++counters_.acquire_timeouts; }
    /// @returns the failure of a caller that has waited for too long.
    Failure acquire_timeout() const;

    /// A connection comes back. @returns whether it may be lent again; otherwise it is no longer
    /// counted.
    bool keep(const PooledConnection& connection, bool reusable) noexcept;
    /// @returns the caller that gets a connection; where none waits it is laid aside, or left to be
    /// closed with the pool.
    std::shared_ptr<Waiter> hand_over(PooledConnection& connection);

    /// @returns whether one more driver is to open connections from now on, one after the other.
    bool begin_connecting() noexcept;
    /// @returns when a driver is to open the next one; nothing if no more is wanted of it, and it
    /// has ended.
    std::optional<TimePoint> next_attempt() noexcept;
    /// @returns the connection with its age.
    PooledConnection opened(std::unique_ptr<pg::Connection> connection, TimePoint now);
    /// @param began when the attempt began.
    /// @returns the callers for whom this is the answer.
    Waiters open_failed(TimePoint began, const Failure& failure, TimePoint now);
    /// A driver has gone away. @returns the callers that wait in vain.
    Waiters connecting_lost() noexcept;

    /// @returns the idle connections that lead to a server that another one has left behind.
    std::vector<PooledConnection> drop_behind(const pg::Timelines& timelines);

    /// A caller wants so many to be open, whether they are lent or not; to be ended.
    void begin_warm_up(std::size_t wanted) noexcept;
    void end_warm_up() noexcept { --warming_up_; }
    /// @returns whether they are.
    bool is_warm() const noexcept { return open_ >= warm_; }

    /// @returns all who wait; they stand in line no longer.
    Waiters take_waiters() noexcept { return std::exchange(waiters_, Waiters()); }

    /// What is left when a pool is closed.
    struct Closed {
        std::vector<PooledConnection> idle;
        Waiters waiters;
    };
    Closed close() noexcept;

    PoolStatistics statistics() const;
    /// @returns the numbers that observers are told.
    PoolChange numbers() const noexcept;

  private:
    bool wanted(std::size_t under_way) const noexcept;
    TimePoint retirement(TimePoint now);

    const PoolOptions& options_;
    std::vector<PooledConnection> idle_;  // the newest last
    Waiters waiters_;
    std::size_t limit_;
    std::size_t open_ = 0;        // idle and lent
    std::size_t connecting_ = 0;  // drivers
    std::size_t warming_up_ = 0;
    std::size_t warm_ = 0;     // how many are to be open when they are done
    bool topping_up_ = false;  // used since an attempt failed: min_idle are to be idle
    bool closed_ = false;
    Attempts attempts_;
    std::minstd_rand dice_;
    PoolStatistics counters_;
};

}  // namespace psycache::detail
