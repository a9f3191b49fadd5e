// The part of Batcher for threads that wait: they run their statements themselves.

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <thread>
#include <vector>

#include "batching/batcher.hpp"
#include "batching/limits.hpp"
#include "pool/borrow.hpp"
#include "pool/lease_state.hpp"

namespace psycache::detail {

std::optional<Batcher::Rest> Batcher::perform_alone(const std::shared_ptr<Call>& call,
                                                    std::size_t callers) {
    const bool writes = call->operation.writes;
    {
        const std::lock_guard lock(mutex_);
        const bool waits = writes && (locked_.holds(call->key) || order_.holds(call->key));
        if (waits || !scheduler_.call_lone_worker(callers, writes)) {
            return Rest();
        }
        if (writes) {
            order_.begin(*call);
        }
        call->progress.sent = true;
        if (settings_.router && settings_.router->used() && call->operation.traits.by_key) {
            call->route = settings_.router->route_of(call->key);
        }
    }
    WorkerTurn turn(shared_from_this(), Worker{false, writes});
    const Calls calls(1, call);
    Result<ConnectionLease> lease{ConnectionLease()};
    bool on_route = false;
    if (call->route) {
        lease = borrow_on_route(calls).lease;
        on_route = lease && *lease;
    }
    if (!on_route) {
        lease = borrow_here(*pool_, *observers_);
    }
    if (!lease) {
        unlink(CallSpan(&call, 1));
        call->fail(lease.error());
        hand_on(std::move(turn));
        return std::nullopt;
    }
    SendAttempts attempts;
    Outcome outcome = Outcome::retry;
    if (*lease) {
        if (auto question = question_for(calls)) {
            look_for_routes_blocking(*lease, std::move(*question), call->deadline);
        }
        StatementRun statement(context_, std::move(*lease), CallSpan(&call, 1), attempts, on_route);
        statement.run_blocking(statement.begin(), call->deadline);
        outcome = statement.conclude(attempts);
        if (outcome == Outcome::settled) {
            if (writes) {
                unlink(CallSpan(&call, 1));
            }
            statement.settle(Resume::posted);
            hand_on(std::move(turn));
            return std::nullopt;
        }
    }
    if (!*lease) {
        const std::lock_guard lock(mutex_);
        call->progress.sent = false;
    }
    Rest rest;
    rest.turn.emplace(std::move(turn));
    rest.group = std::make_unique<Running>();
    rest.group->calls = calls;
    rest.group->attempts = std::move(attempts);
    rest.group->outcome = outcome;
    if (outcome == Outcome::elsewhere) {
        leave_route(*rest.group);
    }
    return rest;
}

std::optional<WorkerTurn> Batcher::enqueue(CallSpan calls,
                                           const std::shared_ptr<WaitingThread>& thread,
                                           Rest rest) {
    for (const auto& call : calls) {
        call->thread = thread;
        call->batcher_ = weak_from_this();
    }
    if (rest.group) {
        hand_over(std::move(rest.group), std::move(*rest.turn));
        return std::nullopt;
    }
    std::size_t queued = 0;
    std::optional<WorkerTurn> turn;
    {
        const std::lock_guard lock(mutex_);
        queued = add_to_queue(calls, false);
        if (queued > 0 && scheduler_.call_worker()) {
            turn.emplace(shared_from_this());
        }
    }
    refuse(calls.subspan(queued));
    return turn;
}

void Batcher::work_in_thread(WorkerTurn turn, WaitingThread& thread, TimePoint until) {
    thread.work();
    auto group = std::make_unique<Running>();
    while (!thread.answered()) {
        group->begin(next_group(turn));
        if (group->calls.empty()) {
            turn.done();
            return;
        }
        if (!run_in_thread(*group, turn, until)) {
            return hand_over(std::move(group), std::move(turn));
        }
    }
    hand_on(std::move(turn));
}

/// Runs calls as one statement, as far as the calling thread can.
/// @returns whether they are settled; otherwise the event loop is to go on with them.
bool Batcher::run_in_thread(Running& group, WorkerTurn& turn, TimePoint until) {
    do {
        Result<ConnectionLease> lease{ConnectionLease()};
        group.on_route = false;
        if (group.calls.front()->route) {
            RoutedLease borrowed = borrow_on_route(group.calls);
            if (borrowed.wait) {
                return false;
            }
            lease = std::move(borrowed.lease);
            group.on_route = *lease ? true : false;
            if (!group.on_route && !leave_route(group)) {
                return false;
            }
        }
        if (!group.on_route) {
            lease = borrow_here(*pool_, *observers_);
        }
        if (!lease) {
            fail_unconnected(group.calls, group.attempts, lease.error());
            return true;
        }
        if (!*lease) {
            return false;
        }
        if (auto question = question_for(group.calls)) {
            look_for_routes_blocking(*lease, std::move(*question), until);
        }
        mark_sent(group.calls);
        if (group.calls.empty()) {
            return true;
        }
        group.statement.emplace(context_, std::move(*lease), group.calls, group.attempts,
                                group.on_route);
        group.next = group.statement->begin();
        if (settings_.pool_blocks) {
            group.statement->run_blocking(group.next, statement_deadline(group.calls));
        } else if (group.next != pg::Want::nothing) {
            group.next = group.statement->exchange().run_blocking(group.next, until);
            if (group.next != pg::Want::nothing) {
                // The thread's own time is over; the statement belongs to the others, too.
                return false;
            }
        }
        group.outcome = group.statement->conclude(group.attempts);
        if (group.outcome == Outcome::settled) {
            settle(*group.statement, group.calls, &turn);
        }
        group.statement.reset();
        if (group.outcome == Outcome::elsewhere && !leave_route(group)) {
            return false;
        }
    } while (group.outcome == Outcome::retry);
    return group.outcome == Outcome::settled;
}

/// Lets the event loop go on with a group.
void Batcher::hand_over(std::unique_ptr<Running> group, WorkerTurn turn) {
    asio::post(home_, [home = home_, turn = std::move(turn), group = std::move(group),
                       self = shared_from_this()]() mutable {
        asio::co_spawn(home, work(std::move(self), std::move(turn), std::move(group)),
                       asio::detached);
    });
    settings_.host->loop_has_work();
}

void Batcher::hand_on(WorkerTurn turn) {
    std::vector<const WaitingThread*> at_work;
    for (;;) {
        std::shared_ptr<WaitingThread> next;
        {
            const std::lock_guard lock(mutex_);
            scheduler_.coming(turn.worker);
            if (scheduler_.queued() > 0) {
                next = scheduler_.first_thread([&](const WaitingThread& thread) {
                    return std::find(at_work.begin(), at_work.end(), &thread) == at_work.end();
                });
            }
            if (!next) {
                // Those whose calls wait, if there are any, are workers and will look themselves.
                scheduler_.ended(turn.worker);
                turn.done();
                set_timer();
                return;
            }
        }
        if (next->offer(turn)) {
            return;
        }
        at_work.push_back(next.get());
    }
}

std::optional<WorkerTurn> Batcher::turn_if_stuck() {
    std::optional<WorkerTurn> turn;
    const std::lock_guard lock(mutex_);
    if (scheduler_.call_worker_if_stuck(Clock::now())) {
        turn.emplace(shared_from_this());
    }
    return turn;
}

void Batcher::time_out(Call& call) {
    const char* why = nullptr;
    {
        const std::lock_guard lock(mutex_);
        call.progress.left = true;
        deadlines_.remove(call);
        why = why_timed_out(call);
    }
    call.fail(Failure(Errc::timed_out, why));
}

void Batcher::give_up_statements() {
    const std::lock_guard lock(mutex_);
    for (StatementInFlight* statement : deadlines_.expired_statements(TimePoint::max())) {
        statement->connection.overrun();
    }
}

}  // namespace psycache::detail
