// The part of Batcher that looks after calls whose rows other transactions have locked.

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <unordered_map>

#include "batching/batcher.hpp"
#include "core/at_end.hpp"
#include "pool/borrow.hpp"
#include "pool/lease_state.hpp"

namespace psycache::detail {

namespace {

/// @returns whether a limit of the role's own ended a statement.
bool is_limit_of_role(const Failure& failure) {
    return failure.sqlstate == "55P03" || failure.sqlstate == "57014";
}

}  // namespace

/// Looks which rows of some keys are locked, and waits for none of them.
/// @param operation any one that writes.
asio::awaitable<Result<LockSight>> Batcher::look_for_locks(const Operation& operation,
                                                           std::string keys) {
    Result<ConnectionLease> lease = co_await borrow(*pool_, *observers_);
    if (!lease) {
        co_return lease.error();
    }
    pg::Connection& connection = lease->state().connection();
    pg::Parameters parameters;
    parameters.own(std::move(keys));
    const pg::Statement& looks = operation.looks_for_locks();
    const TimePoint until = Clock::now() + settings_.statement_timeout;
    pg::Answer answer{pg::Rows()};
    if (settings_.pool_blocks) {
        answer = connection.execute_blocking(looks, parameters, until);
    } else if (connection.attach(home_)) {
        answer = co_await connection.execute(looks, parameters, until);
    }
    if (!answer) {
        co_return answer.error().failure;
    }
    co_return operation.lock_sight(*answer);
}

/// A statement met a lock: lays those calls aside whose rows are seen to be locked, and a lone one
/// in any case. They are tried again without holding up others.
/// @param calls  those that are left.
/// @param waited how long the statement took.
/// @returns whether any was taken.
asio::awaitable<bool> Batcher::lay_locked_aside(Calls& calls, Duration waited) {
    const Operation& operation = calls.front()->operation;
    pg::ArrayBuilder keys(pg::Oid::text, calls.size());
    for (const auto& call : calls) {
        keys.add(call->key);
    }
    auto looking = look_for_locks(operation, keys.take());
    const Result<LockSight> seen = co_await std::move(looking);
    const LockSight sight = seen ? *seen : LockSight();
    const bool limited = sight.held.empty() && sight.limit && waited >= sight.limit->after;
    if (limited || (!seen && is_limit_of_role(seen.error()))) {
        // They waited for the whole table, for as long as the role may.
        const char* const sqlstate = limited                            ? sight.limit->sqlstate
                                     : seen.error().sqlstate == "57014" ? "57014"
                                                                        : "55P03";
        fail_all(calls, operation.explain(server_failure(sqlstate, std::string())));
        calls.clear();
        co_return true;
    }
    std::unordered_map<std::string_view, std::string_view> holders;
    for (const auto& held : sight.held) {
        holders.emplace(held.key, held.holder);
    }
    const bool in_any_case = calls.size() == 1;
    bool found = false;
    bool start = false;
    {
        const std::lock_guard lock(mutex_);
        const TimePoint now = Clock::now();
        std::erase_if(calls, [&](const std::shared_ptr<Call>& call) {
            const auto held = holders.find(call->key);
            if (held == holders.end() && !in_any_case) {
                return false;
            }
            found = true;
            locked_.add(call, std::string(held != holders.end() ? held->second : ""), sight.limit,
                        now);
            follow(*call, now);
            return true;
        });
        start = found && !retrying_locked_;
        retrying_locked_ = retrying_locked_ || found;
    }
    if (start) {
        start_retries();
    }
    co_return found;
}

void Batcher::lay_conflicting_aside(const std::shared_ptr<Call>& call) {
    {
        const std::lock_guard lock(mutex_);
        const TimePoint now = Clock::now();
        locked_.add_conflicting(call, now);
        follow(*call, now);
        if (std::exchange(retrying_locked_, true)) {
            return;
        }
    }
    start_retries();
}

/// The call waits for a lock now: those that wait for it do so as well. Under the lock.
void Batcher::follow(Call& call, TimePoint now) {
    Calls behind;
    order_.end(call, behind);
    for (const auto& other : behind) {
        locked_.add_behind(other, now);
    }
}

/// @returns whether a call that is to be sent alone waits for a lock now: its key's row was found
/// locked a moment ago.
bool Batcher::joins_locked(const std::shared_ptr<Call>& call) {
    const std::lock_guard lock(mutex_);
    const TimePoint now = Clock::now();
    scheduler_.started(now);
    const bool joins = locked_.add_behind(call, now);
    if (joins) {
        follow(*call, now);
    }
    return joins;
}

/// Starts the coroutine that looks after locked keys.
void Batcher::start_retries() {
    // Its context goes away: the calls that wait for it learn it here.
    AtEnd destroyed([self = shared_from_this()] {
        Calls orphans;
        {
            const std::lock_guard lock(self->mutex_);
            self->retrying_locked_ = false;
            orphans = self->locked_.take_all();
        }
        self->fail_all(orphans, cancelled_failure());
    });
    asio::co_spawn(home_, retry_locked(shared_from_this(), std::move(destroyed)), asio::detached);
    if (settings_.host != nullptr) {
        settings_.host->loop_has_work();
    }
}

template <class End>
asio::awaitable<void> Batcher::retry_locked(std::shared_ptr<Batcher> self, End end) {
    asio::steady_timer pause(co_await asio::this_coro::executor);
    for (;;) {
        const std::optional<TimePoint> next = self->next_lock_try();
        if (!next) {
            end.dismiss();
            co_return;
        }
        pause.expires_at(*next);
        co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
        LockRetry::Due due;
        {
            const std::lock_guard lock(self->mutex_);
            due = self->locked_.take_due(Clock::now());
        }
        for (const auto& call : due.limited) {
            self->fail_all(Calls(1, call), call->operation.explain(server_failure(
                                               call->progress.limit_sqlstate, std::string())));
        }
        if (!due.looks.empty()) {
            co_await self->look_again(due);
        } else if (!due.tries.empty()) {
            co_await self->try_again(std::move(due.tries));
        }
    }
}

/// @returns when a locked key is to be looked at or tried again; nothing when none is left, and the
/// coroutine ends.
std::optional<TimePoint> Batcher::next_lock_try() {
    const std::lock_guard lock(mutex_);
    if (locked_.empty()) {
        retrying_locked_ = false;
        return std::nullopt;
    }
    return locked_.due();
}

asio::awaitable<void> Batcher::look_again(const LockRetry::Due& due) {
    pg::ArrayBuilder keys(pg::Oid::text, due.looks.size());
    for (const std::string& key : due.looks) {
        keys.add(key);
    }
    auto looking = look_for_locks(*due.operation, keys.take());
    const Result<LockSight> sight = co_await std::move(looking);
    go_again([&](TimePoint now) {
        return sight ? locked_.seen(due.looks, *sight, now) : locked_.not_seen(due.looks, now);
    });
}

asio::awaitable<void> Batcher::try_again(Calls calls) {
    const std::string key = calls.front()->key;
    Running group;
    group.begin(std::move(calls));
    AtEnd destroyed([&] { fail_all(group.calls, cancelled_failure()); });
    std::exception_ptr thrown;
    try {
        co_await run(group, nullptr);
    } catch (...) {
        thrown = std::current_exception();
    }
    destroyed.dismiss();
    if (thrown) {
        group.outcome = Outcome::settled;
        group.statement.reset();
        fail_all(group.calls, to_failure(thrown, Errc::protocol_error));
    }
    const bool in_vain = group.outcome == Outcome::locked || group.outcome == Outcome::conflicting;
    go_again([&](TimePoint now) {
        Calls free = locked_.tried(key, group.calls, in_vain, now);
        if (group.outcome == Outcome::one_by_one) {
            free.insert(free.begin(), group.calls.begin(), group.calls.end());
        }
        return free;
    });
}

/// Puts calls that may go back into the queue. @param release takes them out of where they wait.
template <class Release>
void Batcher::go_again(const Release& release) {
    bool start = false;
    {
        const std::lock_guard lock(mutex_);
        start = put_first(release(Clock::now()));
        set_timer();
    }
    if (start) {
        start_worker();
    }
}

}  // namespace psycache::detail
