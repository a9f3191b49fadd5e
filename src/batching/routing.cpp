// The part of Batcher that sends calls to the servers where their rows are.

#include "batching/router.hpp"

#include <algorithm>

#include "batching/batcher.hpp"
#include "pool/borrow.hpp"
#include "pool/lease_state.hpp"

namespace psycache::detail {

namespace {

/// How long a look may hold up the calls that are about to be sent.
constexpr std::chrono::seconds look_patience{1};

}  // namespace

/// @returns a connection to the server of the calls' route, if one is free; if none is open there
/// yet, one is opened.
Batcher::RoutedLease Batcher::borrow_on_route(const Calls& calls) const {
    RoutedLease borrowed;
    const Route& route = *calls.front()->route;
    if (route.pool) {
        borrowed.lease = route.pool->try_acquire();
        borrowed.wait = !*borrowed.lease && route.pool->reached();
    }
    PoolCore* const wanted = route.pool ? route.pool.get() : route.unreached.get();
    if (wanted != nullptr && !*borrowed.lease && !borrowed.wait) {
        wanted->top_up();
        if (settings_.host != nullptr) {
            settings_.host->loop_has_work();
        }
    }
    return borrowed;
}

/// Borrows a connection for calls that have a route. @returns it, or why there is none; the group's
/// outcome is one_by_one if they cannot be sent as a whole.
asio::awaitable<Result<ConnectionLease>> Batcher::lease_for(Running& group) {
    RoutedLease borrowed = borrow_on_route(group.calls);
    if (borrowed.wait) {
        auto waiting = PoolCore::acquire(group.calls.front()->route->pool);
        borrowed.lease = co_await std::move(waiting);
    }
    group.on_route = borrowed.lease && *borrowed.lease;
    if (group.on_route) {
        co_return std::move(borrowed.lease);
    }
    if (!leave_route(group)) {
        co_return ConnectionLease();
    }
    Result<ConnectionLease> lease = borrow_idle(*pool_, *observers_);
    if (!*lease) {
        lease = co_await borrow(*pool_, *observers_);
    }
    co_return lease;
}

/// From now on calls go through the cache's own pool. @returns whether they may share a statement
/// there; otherwise the outcome is one_by_one.
bool Batcher::leave_route(Running& group) const {
    if (group.outcome == Outcome::elsewhere) {
        settings_.router->doubt(Clock::now());
    }
    const bool together = group.calls.size() == 1 || group.calls.front()->operation.shares(false);
    for (const auto& call : group.calls) {
        call->route.reset();
    }
    group.outcome = together ? Outcome::retry : Outcome::one_by_one;
    return together;
}

/// @returns what is to be asked before these calls are sent.
std::optional<Router::Question> Batcher::question_for(const Calls& calls) const {
    if (!settings_.router) {
        return std::nullopt;
    }
    const bool shared_read = calls.size() > 1 && !calls.front()->operation.writes;
    return settings_.router->ask(shared_read, Clock::now());
}

/// Asks on the connection that calls are about to be sent on: any server of a cluster knows all of
/// it. Should the connection be lost with it, nothing of theirs has been sent.
asio::awaitable<void> Batcher::look_for_routes(const ConnectionLease& lease,
                                               Router::Question question) {
    pg::Connection& connection = lease.state().connection();
    if (settings_.pool_blocks) {
        look_for_routes_blocking(lease, std::move(question), TimePoint::max());
    } else if (!connection.attach(home_)) {
        settings_.router->not_asked(Clock::now());
    } else {
        const TimePoint until = Clock::now() + look_patience;
        std::optional<Router::Question> next(std::move(question));
        while (next) {
            pg::Parameters parameters;
            if (next->parameter) {
                parameters.borrow(*next->parameter);
            }
            auto asking = connection.execute(*next->statement, parameters, until);
            const pg::Answer answer = co_await std::move(asking);
            next = settings_.router->answered(answer, Clock::now());
        }
        serve_routes();
    }
}

/// @param deadline of the calls.
void Batcher::look_for_routes_blocking(const ConnectionLease& lease, Router::Question question,
                                       TimePoint deadline) {
    const TimePoint until = std::min<TimePoint>(deadline, Clock::now() + look_patience);
    std::optional<Router::Question> next(std::move(question));
    while (next) {
        pg::Parameters parameters;
        if (next->parameter) {
            parameters.borrow(*next->parameter);
        }
        next = settings_.router->answered(
            lease.state().connection().execute_blocking(*next->statement, parameters, until),
            Clock::now());
    }
    serve_routes();
}

/// Where many calls wait, all servers are kept busy. Few are kept together instead.
void Batcher::serve_routes() {
    const std::size_t servers = settings_.router->servers();
    GroupLimits limits = settings_.limits;
    limits.most = std::max(limits.most, 2 * servers);
    limits.most_writing = std::max(limits.most_writing, servers);
    const std::lock_guard lock(mutex_);
    scheduler_.set_limits(servers > 0 ? limits : settings_.limits);
}

}  // namespace psycache::detail
