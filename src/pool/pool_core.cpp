#include "pool/pool_core.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "pool/lease_state.hpp"

namespace psycache::detail {

namespace {

/// A connection that was used this short a time ago is lent without a look at it: the look is a
/// system call, and finds nothing that the statement itself would not find a moment later.
constexpr std::chrono::milliseconds too_short_to_die{1};

}  // namespace

class PoolCore::Lease final : public LeaseState {
  public:
    Lease(std::shared_ptr<PoolCore> core, Slot slot)
        : LeaseState(std::move(slot.connection)),
          core_(std::move(core)),
          retire_at_(slot.retire_at) {}
    ~Lease() override { core_->give_back(Slot{std::move(connection_), retire_at_, Clock::now()}); }

  private:
    std::shared_ptr<PoolCore> core_;
    Clock::time_point retire_at_;
};

/// The right to open connections, held by one coroutine at a time; let go of even when that
/// coroutine is destroyed with its context.
class PoolCore::ConnectTurn {
  public:
    explicit ConnectTurn(std::shared_ptr<PoolCore> core) : core_(std::move(core)) {}
    ConnectTurn(ConnectTurn&&) noexcept = default;
    ConnectTurn& operator=(ConnectTurn&&) = delete;
    ~ConnectTurn() {
        if (!core_) {
            return;
        }
        std::deque<std::shared_ptr<Waiter>> abandoned;
        {
            const std::lock_guard lock(core_->mutex_);
            core_->connecting_ = false;
            abandoned.swap(core_->waiters_);
        }
        core_->show_change();
        for (const auto& waiter : abandoned) {
            waiter->settle(cancelled_failure());
        }
    }
    /// The turn ended as it should: nobody waits, or somebody else has the turn.
    void done() noexcept { core_.reset(); }
    bool is_done() const noexcept { return !core_; }

  private:
    std::shared_ptr<PoolCore> core_;
};

PoolCore::PoolCore(asio::any_io_executor executor, PoolOptions options,
                   std::shared_ptr<Forsaken> forsaken)
    : executor_(std::move(executor)),
      connecting_strand_(asio::make_strand(executor_)),
      options_(std::move(options)),
      observers_(options_.instrumentations, options_.log),
      prepare_(std::make_shared<std::atomic<bool>>(options_.prepare_statements)),
      forsaken_(std::move(forsaken)),
      attempts_(std::random_device()()),
      dice_(std::random_device()()) {
    counters_.max_size = options_.max_size;
}

PoolCore::~PoolCore() {
    // Its connections go with it: what the observers were told must not outlive it.
    idle_.clear();
    open_ = 0;
    connecting_ = false;
    waiters_.clear();
    show_change();
}

asio::awaitable<Result<ConnectionLease>> PoolCore::acquire(std::shared_ptr<PoolCore> self) {
    if (self->forks_ != pg::forks()) {
        co_return forked_failure();
    }
    if (ConnectionLease lease = self->try_acquire()) {
        co_return lease;
    }
    asio::steady_timer timer(co_await asio::this_coro::executor);
    const auto since = Clock::now();
    auto waiter = std::make_shared<Waiter>();
    Result<ConnectionLease> result = co_await self->wait_in_line(waiter, timer);
    self->leave_line(*waiter, since);
    co_return result;
}

ConnectionLease PoolCore::try_acquire() {
    if (forks_ != pg::forks()) {
        return ConnectionLease();
    }
    const auto now = Clock::now();
    std::vector<Slot> too_old;  // closed after the lock
    for (;;) {
        Slot slot;
        {
            const std::lock_guard lock(mutex_);
            // The oldest stand first, and so do those that were idle for longest.
            auto keep = idle_.begin();
            while (options_.idle_timeout != no_expiry && keep != idle_.end() &&
                   now - keep->idle_since > options_.idle_timeout) {
                ++keep;
            }
            std::move(idle_.begin(), keep, std::back_inserter(too_old));
            counters_.retired += static_cast<std::uint64_t>(keep - idle_.begin());
            open_ -= static_cast<std::size_t>(keep - idle_.begin());
            idle_.erase(idle_.begin(), keep);
            if (closed_ || idle_.empty() || !waiters_.empty()) {
                return ConnectionLease();  // those who wait come first
            }
            slot = std::move(idle_.back());
            idle_.pop_back();
            if (slot.retire_at <= now) {
                --open_;
                ++counters_.retired;
                too_old.push_back(std::move(slot));
                continue;
            }
            ++counters_.leases;
        }
        if (now - slot.idle_since < too_short_to_die || slot.connection->alive()) {
            show_change();
            return ConnectionLease(std::make_unique<Lease>(shared_from_this(), std::move(slot)));
        }
        {
            const std::lock_guard lock(mutex_);
            --open_;
            ++counters_.lost;
            --counters_.leases;
        }
        show_change();
        observers_.log(LogLevel::info, "an idle connection was closed by the server");
    }
}

asio::awaitable<Result<ConnectionLease>> PoolCore::wait_in_line(std::shared_ptr<Waiter> waiter,
                                                                asio::steady_timer& timer) {
    auto start = [self = shared_from_this(),
                  &timer](std::shared_ptr<Completion<Result<ConnectionLease>>> c) {
        self->join_line(std::static_pointer_cast<Waiter>(std::move(c)), timer);
    };
    auto turn = Waiter::wait(waiter, std::move(start));
    co_await std::move(turn);
    co_return std::move(waiter->value());
}

void PoolCore::join_line(std::shared_ptr<Waiter> waiter, asio::steady_timer& timer) {
    // The timer comes first: once the waiter stands in line, its coroutine may already be running.
    timer.expires_after(options_.acquire_timeout);
    timer.async_wait([self = shared_from_this(), weak = std::weak_ptr<Waiter>(waiter)](
                         const boost::system::error_code& error) {
        const auto late = weak.lock();
        if (!error && late && late->settle(self->acquire_timeout())) {
            const std::lock_guard lock(self->mutex_);
            ++self->counters_.acquire_timeouts;
        }
    });
    bool closed = false;
    std::shared_ptr<const Failure> hopeless;
    std::optional<Slot> missed;
    {
        const std::lock_guard lock(mutex_);
        closed = closed_;
        if (!closed && open_ == 0 && attempts_.hopeless()) {
            hopeless = attempts_.failure();
        }
        if (!closed && !hopeless) {
            waiters_.push_back(waiter);
            ++counters_.waits;
            // One that came back between the look for an idle connection and this line was laid
            // aside, since nobody stood here yet; nobody else would bring it.
            if (!idle_.empty()) {
                missed = std::move(idle_.back());
                idle_.pop_back();
            }
        }
    }
    show_change();
    if (closed) {
        waiter->settle(Failure(Errc::pool_closed));
    } else if (hopeless) {
        waiter->settle(*hopeless);
    } else if (missed) {
        hand_over(std::move(*missed));
    } else {
        connect_for_waiters();
    }
}

Failure PoolCore::acquire_timeout() const {
    const std::lock_guard lock(mutex_);
    Failure failure(
        Errc::acquire_timed_out,
        "no connection became free in time (acquire_timeout): " + std::to_string(open_) + " of " +
            std::to_string(options_.max_size) + " are open");
    if (const auto& refused = attempts_.failure()) {
        failure.cause += "; the last attempt to open one failed: " + refused->cause;
        failure.sqlstate = refused->sqlstate;
        failure.server_message = refused->server_message;
    }
    return failure;
}

void PoolCore::leave_line(const Waiter& waiter, Clock::time_point since) noexcept {
    {
        const std::lock_guard lock(mutex_);
        counters_.wait_time += std::chrono::duration_cast<Duration>(Clock::now() - since);
        const auto at = std::find_if(waiters_.begin(), waiters_.end(),
                                     [&](const auto& other) { return other.get() == &waiter; });
        if (at != waiters_.end()) {
            waiters_.erase(at);
        }
    }
    show_change();
}

void PoolCore::give_back(Slot slot) noexcept {
    const bool reusable = slot.connection->reusable();
    if (const std::optional<int> backend = slot.connection->forsaken_backend()) {
        forsaken_->add(*backend);
    }
    bool keep = reusable;
    {
        const std::lock_guard lock(mutex_);
        if (closed_ || slot.retire_at <= slot.idle_since) {
            keep = false;
        }
        if (!keep) {
            --open_;
            ++(reusable ? counters_.retired : counters_.lost);
        }
    }
    if (!keep) {
        slot.connection.reset();
        show_change();
        if (!reusable) {
            observers_.log(LogLevel::info, "a connection was lost and closed");
        }
        connect_for_waiters();
        return;
    }
    hand_over(std::move(slot));
}

/// Gives a live connection to whoever has waited longest, else lays it aside.
void PoolCore::hand_over(Slot slot) noexcept {
    std::shared_ptr<Waiter> next;
    {
        const std::lock_guard lock(mutex_);
        while (!waiters_.empty() && waiters_.front()->settled()) {
            waiters_.pop_front();
        }
        if (!waiters_.empty()) {
            next = std::move(waiters_.front());
            waiters_.pop_front();
            ++counters_.leases;
        } else if (!closed_) {
            idle_.push_back(std::move(slot));
        } else {
            --open_;
        }
    }
    show_change();
    if (!next) {
        return;  // laid aside, or closed with its pool
    }
    Result<ConnectionLease> lease(
        ConnectionLease(std::make_unique<Lease>(shared_from_this(), std::move(slot))));
    // A waiter that leaves at this very moment leaves the lease here: its end brings the connection
    // back for the next one.
    next->settle(std::move(lease));
}

bool PoolCore::wanted() const noexcept {
    return !closed_ && open_ < options_.max_size &&
           std::any_of(waiters_.begin(), waiters_.end(),
                       [](const auto& waiter) { return !waiter->settled(); });
}

void PoolCore::connect_for_waiters() noexcept {
    {
        const std::lock_guard lock(mutex_);
        if (connecting_ || !wanted()) {
            return;
        }
        connecting_ = true;
    }
    show_change();
    ConnectTurn turn(shared_from_this());
    try {
        asio::co_spawn(connecting_strand_, open_connections(shared_from_this(), std::move(turn)),
                       asio::detached);
    } catch (...) {
        // Out of memory: the turn has ended, and its waiters know it.
    }
}

asio::awaitable<void> PoolCore::open_connections(std::shared_ptr<PoolCore> self, ConnectTurn turn) {
    const asio::any_io_executor strand = co_await asio::this_coro::executor;
    for (;;) {
        Clock::time_point not_before;
        {
            // Deciding to stop and letting go of the turn are one step: whoever joins the line
            // after it starts a turn of its own.
            const std::lock_guard lock(self->mutex_);
            not_before = self->attempts_.next();
            if (!self->wanted()) {
                self->connecting_ = false;
                turn.done();
            }
        }
        if (turn.is_done()) {
            self->show_change();
            co_return;
        }
        if (not_before > Clock::now()) {
            asio::steady_timer pause(strand, not_before);
            co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
            continue;
        }
        const auto began = Clock::now();
        std::unique_ptr<pg::Connection> connection;
        Failure failure;
        try {
            auto result = co_await pg::Connection::open(self->executor_, self->options_.dsn,
                                                        began + self->options_.connect_timeout,
                                                        self->prepare_);
            if (result) {
                connection = std::move(*result);
            } else {
                failure = result.error();
            }
        } catch (...) {
            // Out of memory or of descriptors: as good a reason as any other to try again later.
            failure = to_failure(std::current_exception(), Errc::connect_failed);
        }
        if (connection) {
            co_await self->cancel_forsaken(*connection);
            self->opened(std::move(connection));
        } else {
            self->open_failed(began, failure);
        }
    }
}

/// A statement that was given up may still wait for a lock, and its backend would wait with it: the
/// server does not look after its client meanwhile. Without this a pool that gives up again and
/// again would fill the server with such backends.
asio::awaitable<void> PoolCore::cancel_forsaken(pg::Connection& connection) {
    const std::vector<int> forsaken = forsaken_->take();
    if (forsaken.empty()) {
        co_return;
    }
    std::string list;
    for (const int pid : forsaken) {
        list.append(list.empty() ? "" : ",").append(std::to_string(pid));
    }
    // Only what is still ours: a number may belong to somebody else by now.
    const std::string sql =
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid IN (" + list +
        ") AND state = 'active' AND usename = current_user AND datname = current_database()"
        " AND query LIKE '%\"psycache\"%'";
    const pg::Answer answer =
        co_await connection.execute_script(sql, Clock::now() + options_.connect_timeout);
    observers_.log(LogLevel::info, answer ? "statements that were given up have been cancelled"
                                          : "statements that were given up could not be cancelled");
}

void PoolCore::opened(std::unique_ptr<pg::Connection> connection) {
    Slot slot;
    slot.connection = std::move(connection);
    slot.idle_since = Clock::now();
    {
        const std::lock_guard lock(mutex_);
        attempts_.succeeded();
        ++open_;
        ++counters_.connects;
        slot.retire_at = retirement();
    }
    observers_.log(LogLevel::debug, "a connection was opened");
    hand_over(std::move(slot));
}

void PoolCore::open_failed(Clock::time_point began, const Failure& failure) {
    std::deque<std::shared_ptr<Waiter>> disappointed;
    {
        const std::lock_guard lock(mutex_);
        attempts_.failed(began, failure);
        ++counters_.connect_failures;
        // With connections open, the waiters get those as they come back.
        if (open_ == 0) {
            disappointed.swap(waiters_);
        }
    }
    show_change();
    observers_.log(LogLevel::warning, failure.cause);
    for (const auto& waiter : disappointed) {
        waiter->settle(Failure(failure));
    }
}

PoolCore::Clock::time_point PoolCore::retirement() {
    if (options_.max_lifetime == no_expiry) {
        return Clock::time_point::max();
    }
    const auto whole = options_.max_lifetime;
    std::uniform_int_distribution<Duration::rep> less(0, whole.count() / 10);
    return Clock::now() + whole - Duration(less(dice_));
}

PoolStatistics PoolCore::statistics() const {
    const std::lock_guard lock(mutex_);
    PoolStatistics now = counters_;
    now.open = open_;
    now.idle = idle_.size();
    now.busy = open_ - idle_.size();
    now.connecting = connecting_ ? 1 : 0;
    now.waiting = static_cast<std::size_t>(std::count_if(
        waiters_.begin(), waiters_.end(), [](const auto& waiter) { return !waiter->settled(); }));
    return now;
}

void PoolCore::close() noexcept {
    std::vector<Slot> idle;
    std::deque<std::shared_ptr<Waiter>> waiters;
    {
        const std::lock_guard lock(mutex_);
        closed_ = true;
        idle.swap(idle_);
        open_ -= idle.size();
        waiters.swap(waiters_);
    }
    show_change();
    for (const auto& waiter : waiters) {
        waiter->settle(Failure(Errc::pool_closed));
    }
}

PoolChange PoolCore::numbers() const noexcept {
    PoolChange now;
    now.open = static_cast<std::ptrdiff_t>(open_);
    now.idle = static_cast<std::ptrdiff_t>(idle_.size());
    now.busy = now.open - now.idle;
    now.connecting = connecting_ ? 1 : 0;
    now.waiting = static_cast<std::ptrdiff_t>(waiters_.size());
    return now;
}

/// Tells the observers what is new; differences, since two threads may tell theirs in any order.
void PoolCore::show_change() noexcept {
    if (observers_.empty()) {
        return;
    }
    PoolChange change;
    {
        const std::lock_guard lock(mutex_);
        const PoolChange now = numbers();
        change.open = now.open - shown_.open;
        change.idle = now.idle - shown_.idle;
        change.busy = now.busy - shown_.busy;
        change.connecting = now.connecting - shown_.connecting;
        change.waiting = now.waiting - shown_.waiting;
        shown_ = now;
    }
    if (change != PoolChange()) {
        observers_.tell(
            [&](CacheInstrumentation& provider) { provider.record_pool_change(change); });
    }
}

}  // namespace psycache::detail
