// The part of Batcher that runs groups as statements.

#include "batching/batcher.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>

#include "pool/borrow.hpp"
#include "pool/lease_state.hpp"

namespace psycache::detail {

/// A statement on its way, so that the timer can end it.
class Batcher::InFlight {
  public:
    InFlight(Batcher& batcher, pg::Connection& connection, TimePoint deadline)
        : statement_{connection, deadline}, batcher_(batcher) {
        const std::lock_guard lock(batcher_.mutex_);
        batcher_.deadlines_.add(statement_);
        batcher_.set_timer();
    }
    InFlight(const InFlight&) = delete;
    InFlight& operator=(const InFlight&) = delete;
    ~InFlight() {
        const std::lock_guard lock(batcher_.mutex_);
        batcher_.deadlines_.remove(statement_);
    }

  private:
    StatementInFlight statement_;
    Batcher& batcher_;
};

/// Runs calls as one statement, as often as that helps, or resumes one that was sent.
/// @param turn the worker's, if it runs the group for itself.
asio::awaitable<void> Batcher::run(Running& group, WorkerTurn* turn) {
    for (;;) {
        if (!group.statement) {
            Result<ConnectionLease> lease{ConnectionLease()};
            group.on_route = false;
            if (!group.calls.front()->route) {
                lease = borrow_idle(*pool_, *observers_);
                if (!*lease) {
                    lease = co_await borrow(*pool_, *observers_);
                }
            } else {
                auto borrowing = lease_for(group);
                lease = co_await std::move(borrowing);
                if (group.outcome == Outcome::one_by_one) {
                    co_return;
                }
            }
            if (!lease) {
                fail_unconnected(group.calls, group.attempts, lease.error());
                group.outcome = Outcome::settled;
                co_return;
            }
            if (auto question = question_for(group.calls)) {
                auto looking = look_for_routes(*lease, std::move(*question));
                co_await std::move(looking);
            }
            mark_sent(group.calls);
            if (group.calls.empty()) {
                group.outcome = Outcome::settled;
                co_return;
            }
            group.statement.emplace(context_, std::move(*lease), group.calls, group.attempts,
                                    group.on_route);
            group.next = pg::Want::nothing;
            if (group.statement->connection().attach(home_)) {
                group.next = group.statement->begin();
            }
        }
        if (settings_.pool_blocks) {
            group.statement->run_blocking(group.next, statement_deadline(group.calls));
        } else if (group.next != pg::Want::nothing) {
            const InFlight in_flight(*this, group.statement->connection(),
                                     Clock::now() + settings_.statement_timeout);
            auto running = group.statement->exchange().run(group.next);
            co_await std::move(running);
        }
        group.outcome = group.statement->conclude(group.attempts);
        if (group.outcome == Outcome::settled) {
            settle(*group.statement, group.calls, turn);
        }
        group.statement.reset();
        if (group.outcome == Outcome::elsewhere && !leave_route(group)) {
            co_return;
        }
        if (group.outcome == Outcome::retry_later) {
            co_await pause_before_retry();
        } else if (group.outcome != Outcome::retry) {
            co_return;
        }
    }
}

asio::awaitable<void> Batcher::pause_before_retry() {
    thread_local std::minstd_rand dice{std::random_device()()};
    std::uniform_int_distribution<int> milliseconds(1, 10);
    asio::steady_timer pause(co_await asio::this_coro::executor);
    pause.expires_after(std::chrono::milliseconds(milliseconds(dice)));
    co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
}

/// Goes on with a group that could not be run as a whole.
asio::awaitable<void> Batcher::run_parted(Running& group, WorkerTurn& turn) {
    if (group.outcome == Outcome::retry_later) {
        co_await pause_before_retry();
        co_await run(group, &turn);
    }
    for (int in_vain = 0; group.outcome == Outcome::locked;) {
        const bool found = co_await lay_locked_aside(group.calls, group.attempts.waited);
        if (group.calls.empty()) {
            co_return;
        }
        // The lock may be gone by now; if not, it is one that cannot be seen.
        if (!found && ++in_vain == 2) {
            break;
        }
        co_await run(group, &turn);
    }
    if (group.outcome == Outcome::conflicting) {
        lay_conflicting_aside(group.calls.front());
    } else if (group.outcome != Outcome::settled) {
        co_await run_singly(group.calls);
    }
}

/// Sends each call alone, so that only those fail that cause a failure.
asio::awaitable<void> Batcher::run_singly(Calls calls) {
    Running alone;
    for (const auto& call : calls) {
        if (joins_locked(call)) {
            continue;
        }
        alone.begin(Calls(1, call));
        co_await run(alone, nullptr);
        if (alone.outcome == Outcome::locked) {
            co_await lay_locked_aside(alone.calls, alone.attempts.waited);
        } else if (alone.outcome == Outcome::conflicting) {
            lay_conflicting_aside(call);
        }
    }
}

/// Hands out the answers of a statement. @param turn of a worker that is done with these calls.
void Batcher::settle(const StatementRun& statement, const Calls& calls, WorkerTurn* turn) {
    unlink(calls, turn);
    statement.settle(turn != nullptr ? turn->resume : Resume::posted);
}

}  // namespace psycache::detail
