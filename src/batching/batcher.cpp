#include "batching/batcher.hpp"

#include <algorithm>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <random>

#include "batching/group_statement.hpp"
#include "pool/borrow.hpp"
#include "pool/lease_state.hpp"

namespace psycache {

void Call::cancelled(asio::cancellation_type type) {
    if (const auto batcher = batcher_.lock()) {
        batcher->abandon(*this, type);
    }
}

/// The right to be a worker. When a worker's context is destroyed, its waiting calls learn it here.
class Batcher::WorkerTurn {
  public:
    explicit WorkerTurn(std::shared_ptr<Batcher> batcher) : batcher_(std::move(batcher)) {}
    WorkerTurn(WorkerTurn&&) noexcept = default;
    WorkerTurn& operator=(WorkerTurn&&) = delete;
    ~WorkerTurn() {
        if (!batcher_) {
            return;
        }
        Calls orphans;
        {
            const std::lock_guard lock(batcher_->mutex_);
            --batcher_->workers_;
            orphans = batcher_->queue_.take_all();
        }
        batcher_->finish_all(orphans, cancelled_failure());
    }
    /// The worker has ended as it should, and has been counted out.
    void done() noexcept { batcher_.reset(); }

  private:
    std::shared_ptr<Batcher> batcher_;
};

/// Answers what is left of a group when its coroutine ends, for whatever reason.
class Batcher::GroupEnd {
  public:
    GroupEnd(Batcher& batcher, const Calls& calls) : batcher_(batcher), calls_(calls) {}
    GroupEnd(const GroupEnd&) = delete;
    GroupEnd& operator=(const GroupEnd&) = delete;
    ~GroupEnd() { batcher_.finish_all(calls_, cancelled_failure()); }

  private:
    Batcher& batcher_;
    const Calls& calls_;
};

Batcher::Batcher(std::shared_ptr<AsyncCachePool> pool,
                 std::shared_ptr<const TableStatements> statements, Settings settings,
                 std::shared_ptr<BatchCounters> counters,
                 std::shared_ptr<const Observers> observers)
    : pool_(std::move(pool)),
      statements_(std::move(statements)),
      settings_(settings),
      counters_(std::move(counters)),
      observers_(std::move(observers)),
      home_(pool_->get_executor()),
      queue_(limits_, settings.capacity) {}

asio::awaitable<Result<CallAnswer>> Batcher::perform(std::shared_ptr<Batcher> self,
                                                     std::shared_ptr<Call> call,
                                                     asio::any_io_executor fallback) {
    call->batcher_ = self;
    auto start = [self = std::move(self), fallback = std::move(fallback)](
                     std::shared_ptr<Completion<Result<CallAnswer>>> completion) {
        self->submit(std::static_pointer_cast<Call>(std::move(completion)), fallback);
    };
    return Call::wait(std::move(call), std::move(start));
}

void Batcher::submit(std::shared_ptr<Call> call, asio::any_io_executor fallback) {
    bool full = false;
    bool start = false;
    {
        const std::lock_guard lock(mutex_);
        if (!home_) {
            home_ = std::move(fallback);
        }
        full = !queue_.push(call);
        if (!full) {
            unanswered_.insert(*call);
            start = workers_ < usual_workers ||
                    (workers_ < most_workers && queue_.size() >= limits_.calls);
            workers_ += start ? 1 : 0;
            set_timer();
        }
    }
    if (full) {
        call->settle(Failure(Errc::queue_full,
                             "too many calls are waiting (CacheOptions::max_queued_calls is " +
                                 std::to_string(settings_.capacity) + ")"));
    } else if (start) {
        start_worker();
    }
}

void Batcher::start_worker() {
    auto strand = asio::make_strand(home_);
    // Posted, so that the rest of this turn of the event loop can join.
    asio::post(strand, [strand, turn = WorkerTurn(shared_from_this()),
                        self = shared_from_this()]() mutable {
        asio::co_spawn(strand, work(std::move(self), std::move(turn)), asio::detached);
    });
}

asio::awaitable<void> Batcher::work(std::shared_ptr<Batcher> self, WorkerTurn turn) {
    for (;;) {
        Calls calls = self->next_group();
        if (calls.empty()) {
            turn.done();
            co_return;
        }
        co_await self->run(std::move(calls));
    }
}

Calls Batcher::next_group() {
    const std::lock_guard lock(mutex_);
    last_start_ = std::chrono::steady_clock::now();
    Calls calls = queue_.next_group();
    if (calls.empty()) {
        // Ending and finding nothing are one step: a call that comes later starts a new worker.
        --workers_;
    }
    return calls;
}

asio::awaitable<void> Batcher::run(Calls calls) {
    const GroupEnd end(*this, calls);
    std::exception_ptr thrown;
    try {
        bool singly = false;
        co_await run_as_one(calls, singly);
        for (std::size_t i = 0; singly && i < calls.size(); ++i) {
            Calls alone(1, calls[i]);
            bool no_smaller = false;
            co_await run_as_one(alone, no_smaller);
        }
    } catch (...) {
        thrown = std::current_exception();
    }
    if (thrown) {
        // Out of memory, most likely: this group suffers, the worker goes on.
        finish_all(calls, to_failure(thrown, Errc::protocol_error));
    }
}

asio::awaitable<void> Batcher::run_as_one(Calls& calls, bool& singly) {
    Tries tries;
    Failure lost;  // why the group was sent before, if it was
    for (bool again = false;; again = true) {
        Result<ConnectionLease> lease = co_await detail::borrow(*pool_, *observers_);
        if (!lease) {
            const Failure failure = lease.error();
            // A pool of the application may still lend the connection that was lost.
            const bool same_again = again && failure.code == Errc::connection_unusable;
            finish_all(calls, same_again ? lost : failure);
            co_return;
        }
        mark_sent(calls);
        if (calls.empty()) {
            co_return;
        }
        const GroupStatement group(*statements_, calls);
        ++counters_->statements;
        counters_->retries += again ? 1 : 0;
        const StatementWatch watch(*observers_, operation_name(calls.front()->kind), calls.size(),
                                   again);
        const TimePoint deadline = std::chrono::steady_clock::now() + settings_.statement_timeout;
        pg::Answer answer = co_await lease->state().connection().execute(
            group.statement(), group.parameters(), deadline);
        watch.ended(answer ? boost::system::error_code() : answer.error().failure.code);
        // Back before anybody is answered: a caller's next call finds it idle.
        *lease = ConnectionLease();
        if (answer) {
            std::vector<Result<CallAnswer>> answers = group.answers(*answer);
            unlink(calls);
            for (std::size_t i = 0; i < calls.size(); ++i) {
                calls[i]->settle(std::move(answers[i]));
            }
            co_return;
        }
        const pg::StatementFailure failed = answer.error();
        switch (judge(failed, calls.front()->kind, calls.size(), settings_.replay_writes, tries)) {
            case Verdict::retry:
                lost = failed.failure;
                break;
            case Verdict::retry_later: {
                thread_local std::minstd_rand dice{std::random_device()()};
                std::uniform_int_distribution<int> milliseconds(1, 10);
                asio::steady_timer pause(co_await asio::this_coro::executor);
                pause.expires_after(std::chrono::milliseconds(milliseconds(dice)));
                co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
                break;
            }
            case Verdict::one_by_one:
                singly = true;
                co_return;
            case Verdict::fail:
                finish_all(calls, statements_->explain(failed.failure));
                co_return;
            case Verdict::fail_as_unknown:
                finish_all(calls, Failure(Errc::outcome_unknown));
                co_return;
        }
    }
}

/// What nobody waits for any more is not sent.
void Batcher::mark_sent(Calls& calls) {
    const std::lock_guard lock(mutex_);
    std::erase_if(calls, [](const auto& call) { return call->settled(); });
    for (const auto& call : calls) {
        call->sent_ = true;
    }
}

void Batcher::finish_all(const Calls& calls, const Failure& failure) {
    unlink(calls);
    for (const auto& call : calls) {
        call->settle(Failure(failure));
    }
}

void Batcher::unlink(const Calls& calls) {
    const std::lock_guard lock(mutex_);
    for (const auto& call : calls) {
        unanswered_.remove(*call);
    }
    set_timer();
}

void Batcher::abandon(Call& call, asio::cancellation_type type) {
    {
        const std::lock_guard lock(mutex_);
        const bool promises_no_effect =
            (type & (asio::cancellation_type::terminal | asio::cancellation_type::partial)) ==
            asio::cancellation_type::none;
        if (call.sent_ && call.kind != CallKind::get && promises_no_effect) {
            return;
        }
        unanswered_.remove(call);
        set_timer();
    }
    call.settle(cancelled_failure());
}

std::size_t Batcher::queued() const {
    const std::lock_guard lock(mutex_);
    return queue_.size();
}

/// Keeps one timer for all calls, at the earliest deadline; none when nobody waits, so that a
/// context with nothing to do comes to its end. Under the lock.
void Batcher::set_timer() {
    const TimePoint wanted = unanswered_.empty() ? TimePoint::max() : unanswered_.first()->deadline;
    // A timer that is too early finds nothing to do and is set anew.
    if (wanted == timer_at_ || (wanted != TimePoint::max() && timer_at_ < wanted)) {
        return;
    }
    timer_at_ = wanted;
    if (!timer_) {
        timer_.emplace(home_);
    }
    if (wanted == TimePoint::max()) {
        timer_->cancel();
        return;
    }
    timer_->expires_at(wanted);
    timer_->async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
        const auto self = weak.lock();
        if (!error && self) {
            self->expire();
        }
    });
}

void Batcher::expire() {
    const TimePoint now = std::chrono::steady_clock::now();
    Calls late;
    std::vector<bool> were_sent;
    bool start = false;
    {
        const std::lock_guard lock(mutex_);
        timer_at_ = TimePoint::max();
        if (!queue_.empty() && workers_ < most_workers && now - last_start_ >= stuck_after) {
            // A row that somebody has locked must not hold up those who want other rows.
            start = true;
            ++workers_;
            last_start_ = now;
        }
        while (!unanswered_.empty() && unanswered_.first()->deadline <= now) {
            Call& call = *unanswered_.first();
            unanswered_.remove(call);
            if (auto alive = std::static_pointer_cast<Call>(call.weak_from_this().lock())) {
                were_sent.push_back(call.sent_);
                late.push_back(std::move(alive));
            }
        }
        set_timer();
    }
    if (start) {
        start_worker();
    }
    for (std::size_t i = 0; i < late.size(); ++i) {
        late[i]->settle(Failure(Errc::timed_out,
                                were_sent[i] ? "the call timed out: the server did not answer"
                                             : "the call timed out before it could be sent: no "
                                               "connection was free"));
    }
}

}  // namespace psycache
