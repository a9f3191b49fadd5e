#include "pool/pool_core.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>
#include <string>

#include "core/at_end.hpp"
#include "pool/lease_state.hpp"
#include "pool/within.hpp"

namespace psycache::detail {

namespace {

/// A connection that was used this short a time ago is lent without a look at it: the look is a
/// system call, and finds nothing that the statement itself would not find a moment later.
constexpr std::chrono::milliseconds too_short_to_die{1};

}  // namespace

class PoolCore::Lease final : public LeaseState {
  public:
    Lease(std::shared_ptr<PoolCore> core, PooledConnection lent)
        : LeaseState(std::move(lent.connection)),
          core_(std::move(core)),
          retire_at_(lent.retire_at) {}
    ~Lease() override {
        PooledConnection back{std::move(connection_), retire_at_, Clock::now()};
        back.origin = back.connection->origin();
        core_->give_back(std::move(back));
    }

  private:
    std::shared_ptr<PoolCore> core_;
    TimePoint retire_at_;
};

PoolCore::PoolCore(asio::any_io_executor executor, PoolOptions options)
    : PoolCore(std::move(executor), std::move(options), std::nullopt) {}

PoolCore::PoolCore(asio::any_io_executor executor, PoolOptions options, std::optional<Node> node)
    : executor_(std::move(executor)),
      connecting_strand_(asio::make_strand(executor_)),
      options_(std::move(options)),
      node_(std::move(node)),
      observers_(options_.instrumentations, options_.log),
      prepare_(std::make_shared<std::atomic<bool>>(options_.prepare_statements)),
      state_(options_, std::random_device()()),
      nodes_(executor_, options_) {}

PoolCore::~PoolCore() {
    // Its connections go with it: what the observers were told must not outlive it.
    PoolChange rest;
    rest.open = -shown_.open;
    rest.idle = -shown_.idle;
    rest.busy = -shown_.busy;
    rest.connecting = -shown_.connecting;
    rest.waiting = -shown_.waiting;
    if (rest != PoolChange()) {
        observers_.tell([&](CacheInstrumentation& provider) { provider.record_pool_change(rest); });
    }
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
    const auto waiter = std::make_shared<Waiter>();
    auto start = [self, &timer](std::shared_ptr<Waited> waited) {
        self->join_line(std::static_pointer_cast<Waiter>(std::move(waited)), timer);
    };
    auto connection = Waited::wait(waiter, std::move(start));
    co_await std::move(connection);
    {
        const std::lock_guard lock(self->mutex_);
        self->state_.leave(*waiter, std::chrono::duration_cast<Duration>(Clock::now() - since));
    }
    self->show_change();
    co_return std::move(waiter->value());
}

ConnectionLease PoolCore::try_acquire() {
    while (forks_ == pg::forks()) {
        const auto now = Clock::now();
        PoolState::Idle idle;  // what is too old is closed after the lock
        {
            const std::lock_guard lock(mutex_);
            idle = state_.lend_idle(now);
        }
        if (!idle.lent) {
            if (!idle.too_old.empty()) {
                show_change();
            }
            break;
        }
        PooledConnection& lent = *idle.lent;
        if (now - lent.idle_since < too_short_to_die || lent.connection->alive()) {
            show_change();
            if (options_.min_idle > 0) {
                connect_for_waiters();
            }
            return lease_of(std::move(lent));
        }
        {
            const std::lock_guard lock(mutex_);
            state_.found_dead();
        }
        show_change();
        observers_.log(LogLevel::info, "an idle connection was closed by the server");
    }
    return ConnectionLease();
}

ConnectionLease PoolCore::lease_of(PooledConnection connection) {
    return ConnectionLease(std::make_unique<Lease>(shared_from_this(), std::move(connection)));
}

void PoolCore::join_line(std::shared_ptr<Waiter> waiter, asio::steady_timer& timer) {
    // The timer comes first: once the waiter stands in line, its coroutine may already be running.
    Waiter::limit(waiter, timer, options_.acquire_timeout,
                  [self = shared_from_this()] { return self->waited_too_long(); });
    PoolState::Joined joined;
    {
        const std::lock_guard lock(mutex_);
        joined = state_.join(waiter, Clock::now());
    }
    show_change();
    if (joined.failure) {
        waiter->settle(*joined.failure);
    } else if (joined.lent) {
        waiter->settle(lease_of(std::move(*joined.lent)));
    } else {
        connect_for_waiters();
    }
}

Failure PoolCore::waited_too_long() {
    const std::lock_guard lock(mutex_);
    state_.acquire_timed_out();
    return state_.acquire_timeout();
}

void PoolCore::give_back(PooledConnection connection) noexcept {
    if (connection.connection->behind()) {
        connection.retire_at = TimePoint::min();
    }
    const bool given_up = connection.connection->give_up();
    const bool reusable = connection.connection->reusable();
    bool keeps = false;
    {
        const std::lock_guard lock(mutex_);
        keeps = state_.keep(connection, reusable);
    }
    if (keeps) {
        return hand_over(std::move(connection));
    }
    connection.connection.reset();
    show_change();
    if (given_up) {
        observers_.log(LogLevel::info,
                       "a statement was given up: its connection was closed, and the server is "
                       "being asked to cancel it");
    } else if (!reusable) {
        observers_.log(LogLevel::info, "a connection was lost and closed");
    }
    connect_for_waiters();
}

/// Gives a live connection to the caller that has waited longest, else lays it aside.
void PoolCore::hand_over(PooledConnection connection) noexcept {
    std::shared_ptr<Waiter> next;
    {
        const std::lock_guard lock(mutex_);
        next = state_.hand_over(connection);
    }
    show_change();
    if (next) {
        // A waiter that leaves at this very moment leaves the lease here: its end brings the
        // connection back for the next one.
        next->settle(lease_of(std::move(connection)));
    }
}

asio::awaitable<std::optional<Failure>> PoolCore::warm_up(std::shared_ptr<PoolCore> self,
                                                          std::size_t wanted) {
    {
        const std::lock_guard lock(self->mutex_);
        self->state_.begin_warm_up(wanted);
    }
    const AtEnd done([self] {
        const std::lock_guard lock(self->mutex_);
        self->state_.end_warm_up();
    });
    // Held until all are there, so that each is another one.
    std::vector<ConnectionLease> held;
    bool warm = false;
    while (!warm) {
        auto acquiring = acquire(self);
        auto lease = co_await std::move(acquiring);
        if (!lease) {
            co_return lease.error();
        }
        held.push_back(std::move(*lease));
        const std::lock_guard lock(self->mutex_);
        warm = self->state_.is_warm();
    }
    co_return std::nullopt;
}

void PoolCore::connect_for_waiters() noexcept {
    while (start_connecting()) {
    }
}

/// Starts one more driver. @returns whether one was wanted, and could be started.
bool PoolCore::start_connecting() noexcept {
    {
        const std::lock_guard lock(mutex_);
        if (!state_.begin_connecting()) {
            return false;
        }
    }
    show_change();
    // Let go of even when the coroutine is destroyed with its context, or for want of memory.
    AtEnd end([self = shared_from_this()] {
        PoolState::Waiters in_vain;
        {
            const std::lock_guard lock(self->mutex_);
            in_vain = self->state_.connecting_lost();
        }
        self->show_change();
        for (const auto& waiter : in_vain) {
            waiter->settle(cancelled_failure());
        }
    });
    try {
        asio::co_spawn(connecting_strand_, open_connections(shared_from_this(), std::move(end)),
                       asio::detached);
        return true;
    } catch (...) {
        return false;  // out of memory: its waiters know it
    }
}

template <class End>
asio::awaitable<void> PoolCore::open_connections(std::shared_ptr<PoolCore> self, End end) {
    asio::steady_timer pause(co_await asio::this_coro::executor);
    for (;;) {
        std::optional<TimePoint> not_before;
        {
            // Deciding to stop and stopping are one step: a caller that joins the line after it
            // starts this anew.
            const std::lock_guard lock(self->mutex_);
            not_before = self->state_.next_attempt();
        }
        if (!not_before) {
            end.dismiss();
            self->show_change();
            co_return;
        }
        if (*not_before > Clock::now()) {
            pause.expires_at(*not_before);
            co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
        } else {
            co_await self->open_connection();
        }
    }
}

asio::awaitable<void> PoolCore::open_connection() {
    const auto began = Clock::now();
    std::unique_ptr<pg::Connection> connection;
    Failure failure;
    try {
        auto connecting = connect(executor_, began + options_.connect_timeout);
        auto result = co_await std::move(connecting);
        if (result) {
            connection = std::move(*result);
        } else {
            failure = result.error();
        }
    } catch (...) {
        // Out of memory or of descriptors: as good a reason as any other to try again later.
        failure = to_failure(std::current_exception(), Errc::connect_failed);
    }
    if (connection && connection->behind()) {
        connection.reset();
        failure = Failure(Errc::connect_failed,
                          "cannot connect to the server: another host was promoted meanwhile");
    }
    if (connection) {
        PooledConnection opened;
        std::vector<PooledConnection> behind;  // closed after the lock
        {
            const std::lock_guard lock(mutex_);
            opened = state_.opened(std::move(connection), Clock::now());
            complained_ = false;
            opened.origin = opened.connection->origin();
            behind = state_.drop_behind(*timelines_);
        }
        if (!behind.empty()) {
            observers_.log(
                LogLevel::warning,
                "another host has been promoted: connections to the old one were closed");
        }
        observers_.log(LogLevel::debug, "a connection was opened");
        hand_over(std::move(opened));
        // After failures there was one driver only.
        connect_for_waiters();
        co_return;
    }
    PoolState::Waiters disappointed;
    bool complains = true;
    {
        const std::lock_guard lock(mutex_);
        disappointed = state_.open_failed(began, failure, Clock::now());
        // Without the node calls are only slower: once is enough.
        complains = !node_ || !std::exchange(complained_, true);
    }
    show_change();
    observers_.log(complains ? LogLevel::warning : LogLevel::debug, failure.cause);
    for (const auto& waiter : disappointed) {
        waiter->settle(Failure(failure));
    }
}

asio::awaitable<PoolCore::Connected> PoolCore::connect(asio::any_io_executor io,
                                                       TimePoint deadline) {
    pg::Target target(options_.dsn);
    if (node_) {
        target.host.emplace(pg::Host{node_->host, "", node_->port});
        target.system = node_->system;
    } else {
        target.timelines = timelines_;
    }
    if (options_.password) {
        auto asking = ask_for_password(deadline);
        auto password = co_await std::move(asking);
        if (!password) {
            co_return password.error();
        }
        target.password = std::move(*password);
    }
    auto opening = pg::Connection::open(std::move(io), std::move(target), deadline, prepare_);
    Connected connected = co_await std::move(opening);
    for (std::size_t i = 0; connected && i < options_.init_sql.size(); ++i) {
        auto running = (*connected)->execute_script(options_.init_sql[i], deadline);
        const pg::Answer answer = co_await std::move(running);
        if (answer && (*connected)->reusable()) {
            continue;
        }
        Failure failure = answer ? Failure(Errc::connect_failed, "it left a transaction open")
                                 : answer.error().failure;
        failure.code = make_error_code(Errc::connect_failed);
        failure.cause = "cannot connect to the server: statement " + std::to_string(i + 1) +
                        " of PoolOptions::init_sql failed: " + failure.cause;
        connected = std::move(failure);
    }
    co_return connected;
}

asio::awaitable<Result<std::string>> PoolCore::ask_for_password(TimePoint deadline) {
    const auto failed = [](const char* how) {
        return Failure(Errc::connect_failed,
                       std::string("cannot connect to the server: PoolOptions::password ") + how);
    };
    std::optional<std::string> password;
    std::exception_ptr thrown;
    try {
        auto asking = options_.password();
        auto waiting = within(deadline, std::move(asking));
        password = co_await std::move(waiting);
    } catch (...) {
        thrown = std::current_exception();
    }
    if (thrown) {
        // Its text stays with it: it can hold anything.
        Failure failure = failed("threw an exception");
        failure.exception = thrown;
        co_return failure;
    }
    if (!password) {
        co_return failed("did not answer in time (connect_timeout)");
    }
    if (password->find('\0') != std::string::npos) {
        co_return failed("returned a NUL byte");
    }
    co_return std::move(*password);
}

PoolStatistics PoolCore::statistics() {
    std::vector<PooledConnection> too_old;  // closed after the lock
    PoolStatistics now;
    {
        const std::lock_guard lock(mutex_);
        too_old = state_.take_too_old(Clock::now());
        now = state_.statistics();
    }
    now.listening = listening_;
    nodes_.add_to(now);
    if (!too_old.empty()) {
        show_change();
    }
    return now;
}

void PoolCore::set_limit(std::size_t limit) {
    std::vector<PooledConnection> too_many;  // closed after the lock
    {
        const std::lock_guard lock(mutex_);
        too_many = state_.set_limit(limit);
    }
    show_change();
    connect_for_waiters();
}

bool PoolCore::reached() const {
    const std::lock_guard lock(mutex_);
    return state_.open() > 0;
}

void PoolCore::top_up() noexcept {
    {
        const std::lock_guard lock(mutex_);
        state_.top_up();
    }
    connect_for_waiters();
}

std::vector<std::shared_ptr<PoolCore>> PoolCore::reach(const std::vector<Node>& nodes,
                                                       const std::vector<std::string>& settings) {
    NodePools::Reached reached = nodes_.reach(nodes, settings);
    set_limit(reached.own);
    return std::move(reached.pools);
}

void PoolCore::close() noexcept {
    nodes_.close();
    PoolState::Closed rest;  // idle connections are closed after the lock
    {
        const std::lock_guard lock(mutex_);
        rest = state_.close();
    }
    show_change();
    for (const auto& waiter : rest.waiters) {
        waiter->settle(Failure(Errc::pool_closed));
    }
}

void PoolCore::dismiss_waiters() noexcept {
    nodes_.dismiss_waiters();
    PoolState::Waiters waiters;
    {
        const std::lock_guard lock(mutex_);
        waiters = state_.take_waiters();
    }
    show_change();
    for (const auto& waiter : waiters) {
        waiter->settle(cancelled_failure());
    }
}

/// Tells the observers what is new; differences, since two threads may tell theirs in any order.
void PoolCore::show_change() noexcept {
    if (observers_.empty()) {
        return;
    }
    PoolChange change;
    {
        const std::lock_guard lock(mutex_);
        const PoolChange now = state_.numbers();
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
