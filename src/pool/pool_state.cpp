#include "pool/pool_state.hpp"

#include <algorithm>
#include <iterator>
#include <string>

#include "core/sqlstate.hpp"

namespace psycache::detail {

PoolState::PoolState(const PoolOptions& options, unsigned seed)
    : options_(options), limit_(options.max_size), attempts_(seed), dice_(seed) {
    counters_.max_size = options.max_size;
}

std::vector<PooledConnection> PoolState::set_limit(std::size_t limit) {
    limit_ = limit;
    std::vector<PooledConnection> too_many;
    while (open_ > limit_ && !idle_.empty()) {
        too_many.push_back(std::move(idle_.back()));
        idle_.pop_back();
        --open_;
        ++counters_.retired;
    }
    return too_many;
}

std::vector<PooledConnection> PoolState::take_too_old(TimePoint now) {
    // The oldest stand first, and so do those that were idle for longest.
    auto keep = idle_.begin();
    while (options_.idle_timeout != no_expiry &&
           static_cast<std::size_t>(idle_.end() - keep) > options_.min_idle &&
           now - keep->idle_since > options_.idle_timeout) {
        ++keep;
    }
    std::vector<PooledConnection> too_old(std::move_iterator(idle_.begin()),
                                          std::move_iterator(keep));
    idle_.erase(idle_.begin(), keep);
    open_ -= too_old.size();
    counters_.retired += too_old.size();
    return too_old;
}

PoolState::Idle PoolState::lend_idle(TimePoint now) {
    Idle found;
    found.too_old = take_too_old(now);
    topping_up_ = true;
    // Those who wait come first.
    while (!found.lent && !closed_ && !idle_.empty() && waiters_.empty()) {
        PooledConnection newest = std::move(idle_.back());
        idle_.pop_back();
        if (newest.retire_at <= now) {
            found.too_old.push_back(std::move(newest));
            --open_;
            ++counters_.retired;
        } else {
            found.lent = std::move(newest);
            ++counters_.leases;
        }
    }
    return found;
}

void PoolState::found_dead() noexcept {
    --open_;
    ++counters_.lost;
    --counters_.leases;
}

PoolState::Joined PoolState::join(std::shared_ptr<Waiter> waiter, TimePoint now) {
    Joined joined;
    if (closed_) {
        joined.failure = std::make_shared<const Failure>(Errc::pool_closed);
    } else if (open_ == 0 && attempts_.waiting_is_in_vain(now)) {
        joined.failure = attempts_.failure();
    } else {
        ++counters_.waits;
        topping_up_ = true;
        // One that came back between the look for an idle connection and this line was laid aside,
        // since no caller stood here yet; nothing else would bring it.
        if (!idle_.empty()) {
            joined.lent = std::move(idle_.back());
            idle_.pop_back();
            ++counters_.leases;
        } else {
            waiters_.push_back(std::move(waiter));
        }
    }
    return joined;
}

void PoolState::leave(const Waiter& waiter, Duration waited) noexcept {
    counters_.wait_time += waited;
    std::erase_if(waiters_, [&](const auto& other) { return other.get() == &waiter; });
}

Failure PoolState::acquire_timeout() const {
    Failure failure(Errc::acquire_timed_out,
                    "no connection became free in time (acquire_timeout): " +
                        std::to_string(open_) + " of " + std::to_string(limit_) + " are open");
    if (const auto& refused = attempts_.failure()) {
        failure.cause += "; the last attempt to open one failed: " + refused->cause;
        failure.sqlstate = refused->sqlstate;
        failure.server_message = refused->server_message;
    }
    return failure;
}

bool PoolState::keep(const PooledConnection& connection, bool reusable) noexcept {
    const bool keeps =
        reusable && !closed_ && open_ <= limit_ && connection.retire_at > connection.idle_since;
    if (!keeps) {
        --open_;
        ++(reusable ? counters_.retired : counters_.lost);
    }
    return keeps;
}

std::shared_ptr<PoolState::Waiter> PoolState::hand_over(PooledConnection& connection) {
    while (!waiters_.empty() && waiters_.front()->settled()) {
        waiters_.pop_front();
    }
    std::shared_ptr<Waiter> next;
    if (!waiters_.empty()) {
        next = std::move(waiters_.front());
        waiters_.pop_front();
        ++counters_.leases;
    } else if (!closed_) {
        idle_.push_back(std::move(connection));
    } else {
        --open_;
    }
    return next;
}

/// @returns whether one more is to be opened beside those that are.
bool PoolState::wanted(std::size_t under_way) const noexcept {
    if (closed_ || open_ + under_way >= limit_) {
        return false;
    }
    if (warming_up_ > 0 && open_ + under_way < warm_) {
        return true;
    }
    std::size_t needed = 0;
    if (topping_up_ && warming_up_ == 0 && idle_.size() < options_.min_idle) {
        needed = options_.min_idle - idle_.size();
    }
    for (auto waiter = waiters_.begin(); needed <= under_way && waiter != waiters_.end();
         ++waiter) {
        needed += (*waiter)->settled() ? 0 : 1;
    }
    return needed > under_way;
}

bool PoolState::begin_connecting() noexcept {
    const std::size_t most = attempts_.failure() ? 1 : options_.max_connecting;
    if (connecting_ >= most || !wanted(connecting_)) {
        return false;
    }
    ++connecting_;
    return true;
}

std::optional<TimePoint> PoolState::next_attempt() noexcept {
    const std::size_t others = connecting_ - 1;
    if (wanted(others) && (others == 0 || !attempts_.failure())) {
        return attempts_.next();
    }
    connecting_ = others;
    return std::nullopt;
}

std::vector<PooledConnection> PoolState::drop_behind(const pg::Timelines& timelines) {
    std::vector<PooledConnection> behind;
    const auto kept = std::stable_partition(idle_.begin(), idle_.end(), [&](const auto& one) {
        return !timelines.is_behind(one.origin);
    });
    std::move(kept, idle_.end(), std::back_inserter(behind));
    idle_.erase(kept, idle_.end());
    open_ -= behind.size();
    counters_.retired += behind.size();
    return behind;
}

void PoolState::begin_warm_up(std::size_t wanted) noexcept {
    ++warming_up_;
    warm_ = wanted;
}

PooledConnection PoolState::opened(std::unique_ptr<pg::Connection> connection, TimePoint now) {
    attempts_.succeeded();
    ++open_;
    ++counters_.connects;
    return PooledConnection{std::move(connection), retirement(now), now};
}

TimePoint PoolState::retirement(TimePoint now) {
    if (options_.max_lifetime == no_expiry) {
        return TimePoint::max();
    }
    std::uniform_int_distribution<Duration::rep> less(0, options_.max_lifetime.count() / 10);
    return now + options_.max_lifetime - Duration(less(dice_));
}

PoolState::Waiters PoolState::open_failed(TimePoint began, const Failure& failure, TimePoint now) {
    attempts_.failed(began, failure, now);
    ++counters_.connect_failures;
    topping_up_ = false;
    // With connections open, the waiters get those as they come back; with another attempt under
    // way, what becomes of that one. A session that was ended while it began says nothing against
    // the next one.
    const bool hopeless =
        open_ == 0 && connecting_ <= 1 && !ends_session_unexecuted(failure.sqlstate);
    return hopeless ? take_waiters() : Waiters();
}

PoolState::Waiters PoolState::connecting_lost() noexcept {
    --connecting_;
    return take_waiters();
}

PoolState::Closed PoolState::close() noexcept {
    closed_ = true;
    Closed rest;
    rest.idle.swap(idle_);
    rest.waiters = take_waiters();
    open_ -= rest.idle.size();
    return rest;
}

PoolStatistics PoolState::statistics() const {
    PoolStatistics now = counters_;
    now.open = open_;
    now.idle = idle_.size();
    now.busy = open_ - idle_.size();
    now.connecting = connecting_;
    now.waiting = static_cast<std::size_t>(std::count_if(
        waiters_.begin(), waiters_.end(), [](const auto& waiter) { return !waiter->settled(); }));
    return now;
}

PoolChange PoolState::numbers() const noexcept {
    PoolChange now;
    now.open = static_cast<std::ptrdiff_t>(open_);
    now.idle = static_cast<std::ptrdiff_t>(idle_.size());
    now.busy = now.open - now.idle;
    now.connecting = static_cast<std::ptrdiff_t>(connecting_);
    now.waiting = static_cast<std::ptrdiff_t>(waiters_.size());
    return now;
}

}  // namespace psycache::detail
