#include "batching/batcher.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/execution/context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/query.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <random>

#include "batching/limits.hpp"
#include "core/at_end.hpp"
#include "pool/borrow.hpp"
#include "pool/lease_state.hpp"

namespace psycache::detail {

namespace {

const asio::execution_context& context_of(const asio::any_io_executor& executor) {
    return asio::query(executor, asio::execution::context);
}

}  // namespace

Batcher::Batcher(std::shared_ptr<AsyncCachePool> pool, Settings settings,
                 std::shared_ptr<Counts> counts, std::shared_ptr<const Observers> observers,
                 std::shared_ptr<const void> operations)
    : pool_(std::move(pool)),
      settings_(std::move(settings)),
      observers_(std::move(observers)),
      operations_(std::move(operations)),
      context_{std::move(counts), observers_, settings_.replay_writes, settings_.router},
      home_(pool_->get_executor()),
      pool_names_home_(home_),
      scheduler_(settings_.limits, settings_.capacity) {
    if (pool_names_home_) {
        home_context_ = &context_of(home_);
    }
}

Batcher::~Batcher() {
    if (const auto timer = timer_.lock()) {
        timer->cancel();
    }
}

void Batcher::CallSubmission::operator()(std::shared_ptr<Waited> call) {
    const auto one = std::static_pointer_cast<Call>(std::move(call));
    batcher->submit(CallSpan(&one, 1), std::move(fallback));
}

void Batcher::BatchSubmission::operator()(std::shared_ptr<Waited> waited) {
    const auto batch = std::static_pointer_cast<Batch>(std::move(waited));
    for (const auto& call : batch->calls()) {
        call->owner = batch;
        call->together = batch.get();
    }
    batcher->submit(batch->calls(), std::move(fallback));
}

Waited::Waiting<Batcher::CallSubmission> Batcher::perform(std::shared_ptr<Batcher> self,
                                                          std::shared_ptr<Call> call,
                                                          asio::any_io_executor fallback) {
    call->batcher_ = self;
    return Waited::wait(std::move(call), CallSubmission{std::move(self), std::move(fallback)});
}

Waited::Waiting<Batcher::BatchSubmission> Batcher::perform_all(std::shared_ptr<Batcher> self,
                                                               std::shared_ptr<Batch> batch,
                                                               asio::any_io_executor fallback) {
    return Waited::wait(std::move(batch), BatchSubmission{std::move(self), std::move(fallback)});
}

std::optional<asio::steady_timer> Batcher::watch_from(const asio::any_io_executor& executor,
                                                      CallSpan calls) {
    const auto* const home = home_context_.load(std::memory_order_relaxed);
    if (home == nullptr || home == &context_of(executor)) {
        return std::nullopt;
    }
    std::optional<asio::steady_timer> timer(std::in_place, executor, calls.front()->deadline);
    timer->async_wait([self = weak_from_this(), calls = Calls(calls.begin(), calls.end())](
                          const boost::system::error_code& error) {
        const auto batcher = error ? nullptr : self.lock();
        for (std::size_t i = 0; batcher && i < calls.size(); ++i) {
            batcher->time_out(*calls[i]);
        }
    });
    return timer;
}

void Batcher::submit(CallSpan calls, asio::any_io_executor fallback) {
    std::size_t queued = 0;
    bool start = false;
    {
        const std::lock_guard lock(mutex_);
        settle_in(std::move(fallback));
        queued = add_to_queue(calls, true);
        start = queued > 0 && scheduler_.call_worker();
        set_timer();
    }
    if (start) {
        start_worker();
    }
    refuse(calls.subspan(queued));
}

/// Where the pool names no executor, statements run on that of the first caller; on that of the
/// next one when there is nothing left to do: the context of the first may be gone by then. Under
/// the lock.
void Batcher::settle_in(asio::any_io_executor executor) {
    const bool moves = !pool_names_home_ && home_ != executor && scheduler_.idle() &&
                       waiting() == 0 && !retrying_locked_;
    if (!home_ || moves) {
        if (const auto timer = timer_.lock()) {
            timer->cancel();
        }
        timer_.reset();
        timer_at_ = TimePoint::max();
        runner_ = std::thread::id();
        many_runners_ = false;
        home_ = std::move(executor);
        home_context_ = &context_of(home_);
    }
}

/// Queues calls as far as there is room. Under the lock. @returns how many.
std::size_t Batcher::add_to_queue(CallSpan calls, bool with_deadlines) {
    std::size_t queued = 0;
    const bool routed = settings_.router && settings_.router->used();
    for (; queued < calls.size(); ++queued) {
        if (routed && calls[queued]->operation.traits.by_key) {
            calls[queued]->route = settings_.router->route_of(calls[queued]->key);
        }
        if (!scheduler_.add(calls[queued], locked_.size() + order_.size())) {
            break;
        }
        if (with_deadlines) {
            deadlines_.add(*calls[queued]);
        }
    }
    return queued;
}

void Batcher::refuse(CallSpan calls) const {
    for (const auto& call : calls) {
        call->fail(Failure(Errc::queue_full,
                           "too many calls are waiting (CacheOptions::max_queued_calls is " +
                               std::to_string(settings_.capacity) + ")"));
    }
}

/// Starts a worker that has been counted.
void Batcher::start_worker() {
    WorkerTurn turn(shared_from_this());
    if (settings_.host != nullptr) {
        return hand_on(std::move(turn));
    }
    // Posted, so that the rest of this turn of the event loop can join.
    asio::post(home_, [home = home_, turn = std::move(turn), self = shared_from_this()]() mutable {
        asio::co_spawn(home, work(std::move(self), std::move(turn), nullptr), asio::detached);
    });
}

/// @param group that was started elsewhere, if the worker starts with one.
asio::awaitable<void> Batcher::work(std::shared_ptr<Batcher> self, WorkerTurn turn,
                                    std::unique_ptr<Running> group) {
    bool resumed = group != nullptr;
    if (!resumed) {
        group = std::make_unique<Running>();
    }
    AtEnd destroyed([&] { self->orphan(group->calls); });
    for (;; resumed = false) {
        if (!resumed) {
            group->begin(self->next_group(turn));
        }
        if (group->calls.empty()) {
            destroyed.dismiss();
            turn.done();
            co_return;
        }
        std::exception_ptr thrown;
        try {
            if (group->outcome == Outcome::retry) {
                co_await self->run(*group, &turn);
            }
            if (group->outcome != Outcome::settled) {
                co_await self->run_parted(*group, turn);
            }
        } catch (...) {
            thrown = std::current_exception();
        }
        if (thrown) {
            // Out of memory, most likely: this group suffers, the worker goes on.
            group->statement.reset();
            self->fail_all(group->calls, to_failure(thrown, Errc::protocol_error));
        }
        group->calls.clear();
        if (self->settings_.host != nullptr) {
            destroyed.dismiss();
            self->hand_on(std::move(turn));
            co_return;
        }
        if (self->await_more(turn)) {
            auto one_turn = asio::post(self->home_, asio::deferred);
            co_await std::move(one_turn);
        }
    }
}

Calls Batcher::next_group(WorkerTurn& turn) {
    Calls calls;
    bool start = false;
    {
        const std::lock_guard lock(mutex_);
        turn.resume = how_to_resume();
        calls = scheduler_.next_group(turn.worker, locked_, order_, Clock::now());
        start = !calls.empty() && scheduler_.call_worker();
        set_timer();
    }
    if (start) {
        start_worker();
    }
    return calls;
}

/// @returns whether to wait for one turn of the event loop before looking for the next group.
bool Batcher::await_more(WorkerTurn& turn) {
    const std::lock_guard lock(mutex_);
    scheduler_.coming(turn.worker);
    return scheduler_.queued() == 0;
}

/// Callers may go on inside of a worker if they would have to wait for its thread anyway. Under the
/// lock.
Resume Batcher::how_to_resume() {
    const std::thread::id here = std::this_thread::get_id();
    many_runners_ = many_runners_ || (runner_ != std::thread::id() && runner_ != here);
    runner_ = here;
    return many_runners_ ? Resume::posted : Resume::inside;
}

/// Calls that have been settled meanwhile are not sent.
void Batcher::mark_sent(Calls& calls) {
    bool start = false;
    {
        const std::lock_guard lock(mutex_);
        Calls freed;
        std::erase_if(calls, [&](const auto& call) {
            const bool gone = call->progress.left || call->settled();
            if (gone) {
                order_.end(*call, freed);
            }
            return gone;
        });
        for (const auto& call : calls) {
            call->progress.sent = true;
        }
        start = put_first(freed);
    }
    if (start) {
        start_worker();
    }
}

/// Puts calls back into the queue. Under the lock. @returns whether a worker is to be started.
bool Batcher::put_first(const Calls& calls) {
    scheduler_.add_first(calls);
    return !calls.empty() && scheduler_.call_worker();
}

void Batcher::fail_all(const Calls& calls, const Failure& failure) {
    unlink(calls);
    for (const auto& call : calls) {
        call->fail(failure);
    }
}

/// The context of a group's worker was destroyed: its calls learn it here, and those behind them
/// from the worker's turn.
void Batcher::orphan(const Calls& calls) {
    {
        const std::lock_guard lock(mutex_);
        Calls freed;
        for (const auto& call : calls) {
            deadlines_.remove(*call);
            order_.end(*call, freed);
        }
        scheduler_.add_first(freed);
    }
    for (const auto& call : calls) {
        call->fail(cancelled_failure());
    }
}

/// There is no connection for a group.
void Batcher::fail_unconnected(const Calls& calls, const SendAttempts& attempts,
                               const Failure& why) {
    // A pool of the application may still lend the connection that was lost.
    const bool same_again = attempts.lost.code && why.code == Errc::connection_unusable;
    fail_all(calls, same_again ? attempts.lost : why);
}

/// @param turn that of a worker which is done with these calls.
void Batcher::unlink(CallSpan calls, WorkerTurn* turn) {
    bool start = false;
    {
        const std::lock_guard lock(mutex_);
        if (turn != nullptr) {
            scheduler_.coming(turn->worker);
        }
        Calls freed;
        for (const auto& call : calls) {
            deadlines_.remove(*call);
            order_.end(*call, freed);
        }
        start = put_first(freed);
        set_timer();
    }
    if (start) {
        start_worker();
    }
}

/// @returns until when a thread may be held up for a statement of these calls.
TimePoint Batcher::statement_deadline(const Calls& calls) const {
    TimePoint last = Clock::now();
    for (const auto& call : calls) {
        last = std::max(last, call->deadline);
    }
    return last;
}

void Batcher::abandon(Call& call, asio::cancellation_type type) {
    {
        const std::lock_guard lock(mutex_);
        const bool promises_no_effect =
            (type & (asio::cancellation_type::terminal | asio::cancellation_type::partial)) ==
            asio::cancellation_type::none;
        if (call.progress.sent && call.operation.writes && promises_no_effect) {
            return;
        }
        // Said before the lock is let go: it must not be sent between here and fail().
        call.progress.left = true;
        deadlines_.remove(call);
        set_timer();
    }
    call.fail(cancelled_failure());
}

/// A worker's context was destroyed: the calls that wait for one learn it here.
void Batcher::turn_lost(const Worker& worker) {
    Calls orphans;
    {
        const std::lock_guard lock(mutex_);
        scheduler_.ended(worker);
        orphans = scheduler_.take_all();
    }
    fail_all(orphans, cancelled_failure());
}

std::size_t Batcher::queued() const {
    const std::lock_guard lock(mutex_);
    return waiting();
}

/// Under the lock.
std::size_t Batcher::waiting() const noexcept {
    return scheduler_.queued() + locked_.size() + order_.size();
}

/// Keeps one timer for all that has a deadline; none when no worker is left and nothing waits, so
/// that a context with nothing to do comes to its end. Under the lock.
void Batcher::set_timer() {
    TimePoint wanted = deadlines_.next();
    if (settings_.host == nullptr) {
        wanted = std::min(wanted, scheduler_.stuck_at());
    }
    // A timer that is too early finds nothing to do and is set anew: cheaper than setting it for
    // every call.
    const bool early_enough =
        timer_at_ <= wanted && (wanted != TimePoint::max() || !scheduler_.idle());
    if (early_enough || wanted == timer_at_) {
        return;
    }
    timer_at_ = wanted;
    auto timer = timer_.lock();
    if (wanted == TimePoint::max()) {
        if (timer) {
            timer->cancel();
        }
        return;
    }
    if (!timer) {
        timer = std::make_shared<asio::steady_timer>(home_);
        timer_ = timer;
    }
    timer->expires_at(wanted);
    timer->async_wait([weak = weak_from_this(), timer](const boost::system::error_code& error) {
        const auto self = weak.lock();
        if (!error && self) {
            self->expire();
        }
    });
}

void Batcher::expire() {
    const TimePoint now = Clock::now();
    Calls late;
    std::vector<const char*> why;
    bool start = false;
    {
        const std::lock_guard lock(mutex_);
        timer_at_ = TimePoint::max();
        start = settings_.host == nullptr && scheduler_.call_worker_if_stuck(now);
        for (StatementInFlight* statement : deadlines_.expired_statements(now)) {
            statement->connection.overrun();
        }
        late = deadlines_.expired_calls(now);
        for (const auto& call : late) {
            call->progress.left = true;
            why.push_back(why_timed_out(*call));
        }
        set_timer();
    }
    if (start) {
        start_worker();
    }
    for (std::size_t i = 0; i < late.size(); ++i) {
        late[i]->fail(Failure(Errc::timed_out, why[i]));
    }
}

}  // namespace psycache::detail
