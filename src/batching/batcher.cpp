#include "batching/batcher.hpp"

#include <algorithm>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <random>

#include "batching/group_statement.hpp"
#include "pg/exchange.hpp"
#include "pool/borrow.hpp"
#include "pool/lease_state.hpp"

namespace psycache {

namespace {

constexpr const char* timed_out_sent = "the call timed out: the server did not answer";
constexpr const char* timed_out_locked =
    "the call timed out: another transaction has the row locked";
constexpr const char* timed_out_unsent =
    "the call timed out before it could be sent: no connection was free";

constexpr std::string_view lock_not_available = "55P03";

/// The server's limit for a lone blocking write: it shall give up a little before its caller does,
/// which would cost the connection.
std::chrono::milliseconds lock_wait_between(TimePoint now, TimePoint deadline) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - now);
    const auto margin = std::min(left / 5, std::chrono::milliseconds(500));
    return std::clamp(left - margin, std::chrono::milliseconds(1),
                      std::chrono::milliseconds(std::chrono::hours(24)));
}

}  // namespace

void Call::cancelled(asio::cancellation_type type) {
    if (const auto batcher = batcher_.lock()) {
        batcher->abandon(*this, type);
    }
}

/// The right to be a worker. When a worker's context is destroyed, its waiting calls learn it here.
class Batcher::WorkerTurn {
  public:
    /// Counted already, as one that is coming.
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
            batcher_->coming_ -= coming ? 1 : 0;
            batcher_->writing_ -= writing ? 1 : 0;
            orphans = batcher_->queue_.take_all();
        }
        batcher_->finish_all(orphans, cancelled_failure());
    }
    /// The worker has ended as it should, and has been counted out.
    void done() noexcept { batcher_.reset(); }

    bool coming = true;    // counted in coming_; both under the batcher's lock
    bool writing = false;  // counted in writing_
    Resume resume = Resume::posted;

  private:
    std::shared_ptr<Batcher> batcher_;
};

/// The right to try locked keys. When its context is destroyed, the calls that wait for them learn
/// it here.
class Batcher::LockTurn {
  public:
    explicit LockTurn(std::shared_ptr<Batcher> batcher) : batcher_(std::move(batcher)) {}
    LockTurn(LockTurn&&) noexcept = default;
    LockTurn& operator=(LockTurn&&) = delete;
    ~LockTurn() {
        if (!batcher_) {
            return;
        }
        Calls orphans;
        {
            const std::lock_guard lock(batcher_->mutex_);
            batcher_->trying_locked_ = false;
            orphans = batcher_->locked_.take_all();
        }
        batcher_->finish_all(orphans, cancelled_failure());
    }
    /// Nothing is left to try, and the turn has been given back.
    void done() noexcept { batcher_.reset(); }

  private:
    std::shared_ptr<Batcher> batcher_;
};

/// The right to the one connection of a batcher that has no more at a time.
class Batcher::LoneLease {
  public:
    explicit LoneLease(Batcher& batcher) : batcher_(batcher) { batcher_.lending_ = true; }
    LoneLease(const LoneLease&) = delete;
    LoneLease& operator=(const LoneLease&) = delete;
    ~LoneLease() { batcher_.lending_ = false; }

  private:
    Batcher& batcher_;
};

/// A statement on its way, so that the timer can end it.
class Batcher::Flight {
  public:
    Flight(Batcher& batcher, pg::Connection& its)
        : connection(its),
          deadline(std::chrono::steady_clock::now() + batcher.settings_.statement_timeout),
          batcher_(batcher) {
        const std::lock_guard lock(batcher_.mutex_);
        place() = this;
        batcher_.set_timer();
    }
    Flight(const Flight&) = delete;
    Flight& operator=(const Flight&) = delete;
    ~Flight() {
        const std::lock_guard lock(batcher_.mutex_);
        *std::find(batcher_.flights_.begin(), batcher_.flights_.end(), this) = nullptr;
    }

    pg::Connection& connection;
    TimePoint deadline;  // under the batcher's lock

  private:
    Flight*& place() {
        return *std::find(batcher_.flights_.begin(), batcher_.flights_.end(), nullptr);
    }

    Batcher& batcher_;
};

/// Answers what is left of a group when its coroutine ends, for whatever reason.
class Batcher::GroupEnd {
  public:
    GroupEnd(Batcher& batcher, const Calls& calls) : batcher_(batcher), calls_(calls) {}
    GroupEnd(const GroupEnd&) = delete;
    GroupEnd& operator=(const GroupEnd&) = delete;
    ~GroupEnd() {
        if (!answered_) {
            batcher_.finish_all(calls_, cancelled_failure());
        }
    }
    /// All of the group have been answered.
    void answered() noexcept { answered_ = true; }

  private:
    Batcher& batcher_;
    const Calls& calls_;
    bool answered_ = false;
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
      queue_(settings.limits, settings.capacity) {}

void Batcher::Submission::operator()(std::shared_ptr<Completion<Result<CallAnswer>>> call) {
    const auto one = std::static_pointer_cast<Call>(std::move(call));
    batcher->submit(&one, 1, std::move(fallback));
}

void Batcher::BatchSubmission::operator()(std::shared_ptr<Completion<std::monostate>> waiting) {
    const auto batch = std::static_pointer_cast<Batch>(std::move(waiting));
    for (const auto& call : batch->calls()) {
        call->owner = batch;
        call->together = batch.get();
    }
    batcher->submit(batch->calls().data(), batch->calls().size(), std::move(fallback));
}

Batch::Waiting<Batcher::BatchSubmission> Batcher::perform_all(std::shared_ptr<Batcher> self,
                                                              std::shared_ptr<Batch> batch,
                                                              asio::any_io_executor fallback) {
    return Batch::wait(std::move(batch), BatchSubmission{std::move(self), std::move(fallback)});
}

Call::Waiting<Batcher::Submission> Batcher::perform(std::shared_ptr<Batcher> self,
                                                    std::shared_ptr<Call> call,
                                                    asio::any_io_executor fallback) {
    call->batcher_ = self;
    return Call::wait(std::move(call), Submission{std::move(self), std::move(fallback)});
}

bool Batcher::perform_blocking(CallSpan calls) {
    ConnectionLease lease = detail::borrow_idle(*pool_, *observers_);
    if (!lease) {
        return false;
    }
    const Call& first = *calls.front();
    TimePoint started;
    std::chrono::milliseconds lock_wait = first_lock_wait;
    if (calls.size() == 1 && first.kind != CallKind::get) {
        started = std::chrono::steady_clock::now();
        lock_wait = lock_wait_between(started, first.deadline);
    }
    const GroupStatement group(*statements_, calls, lock_wait);
    ++counters_->statements;
    const StatementWatch watch(*observers_, operation_name(first.kind), calls.size(), false);
    const pg::Answer answer = lease.state().connection().execute_blocking(
        group.statement(), group.parameters(), first.deadline);
    watch.ended(answer ? boost::system::error_code() : answer.error().failure.code);
    lease = ConnectionLease();
    if (answer) {
        group.answer(*answer, [&calls](std::size_t i, Result<CallAnswer>&& one) {
            calls[i]->settle(std::move(one));
        });
        return true;
    }
    const pg::StatementFailure failed = answer.error();
    Failure failure;
    if (failed.failure.sqlstate == lock_not_available && calls.size() == 1 &&
        std::chrono::steady_clock::now() - started >= lock_wait) {
        calls.front()->settle(Failure(Errc::timed_out, timed_out_locked));
        return true;
    }
    switch (
        judge(failed, first.kind, calls.size(), settings_.replay_writes, calls.front()->tries)) {
        case Verdict::retry:
        case Verdict::retry_later:
        case Verdict::one_by_one:
            return false;
        case Verdict::fail:
            failure = failed.failure.code == Errc::timed_out
                          ? Failure(Errc::timed_out, timed_out_sent)
                          : statements_->explain(failed.failure);
            break;
        case Verdict::fail_as_unknown:
            failure = Failure(Errc::outcome_unknown);
            break;
    }
    for (const auto& call : calls) {
        call->settle(Failure(failure));
    }
    return true;
}

void Batcher::submit(const std::shared_ptr<Call>* calls, std::size_t count,
                     asio::any_io_executor fallback) {
    std::size_t queued = 0;
    bool start = false;
    {
        const std::lock_guard lock(mutex_);
        if (!home_) {
            home_ = std::move(fallback);
        }
        for (; queued < count && queue_.push(calls[queued], locked_.size()); ++queued) {
            unanswered_.insert(*calls[queued]);
        }
        if (queued > 0) {
            start = another_wanted();
            workers_ += start ? 1 : 0;
            coming_ += start ? 1 : 0;
            set_timer();
        }
    }
    if (start) {
        start_worker();
    }
    for (; queued < count; ++queued) {
        calls[queued]->settle(Failure(
            Errc::queue_full, "too many calls are waiting (CacheOptions::max_queued_calls is " +
                                  std::to_string(settings_.capacity) + ")"));
    }
}

Serve Batcher::may_serve() const noexcept {
    return writing_ < settings_.most_writing ? Serve::all : Serve::gets;
}

/// Whether calls wait that are worth one more worker. One that is about to look takes them along;
/// one that may not write would only look at them. Under the lock.
bool Batcher::another_wanted() const noexcept {
    return coming_ == 0 && settings_.limits.worth_another(queue_.size(may_serve()), workers_);
}

void Batcher::start_worker() {
    // Posted, so that the rest of this turn of the event loop can join.
    asio::post(home_, [home = home_, turn = WorkerTurn(shared_from_this()),
                       self = shared_from_this()]() mutable {
        asio::co_spawn(home, work(std::move(self), std::move(turn)), asio::detached);
    });
}

asio::awaitable<void> Batcher::work(std::shared_ptr<Batcher> self, WorkerTurn turn) {
    for (;;) {
        Calls calls = self->next_group(turn);
        if (calls.empty()) {
            turn.done();
            co_return;
        }
        GroupEnd end(*self, calls);
        std::exception_ptr thrown;
        try {
            const Ended ended = co_await self->run(calls, first_lock_wait, &turn);
            if (ended == Ended::locked && calls.size() == 1) {
                self->park(calls.front());
            } else if (ended != Ended::answered) {
                co_await self->run_singly(calls);
            }
        } catch (...) {
            thrown = std::current_exception();
        }
        if (thrown) {
            // Out of memory, most likely: this group suffers, the worker goes on.
            self->finish_all(calls, to_failure(thrown, Errc::protocol_error));
        }
        end.answered();
        if (self->await_more(turn)) {
            auto one_turn = asio::post(self->home_, asio::deferred);
            co_await std::move(one_turn);
        }
    }
}

Calls Batcher::next_group(WorkerTurn& turn) {
    bool start = false;
    Calls calls;
    {
        const std::lock_guard lock(mutex_);
        turn.coming = false;
        --coming_;
        last_start_ = std::chrono::steady_clock::now();
        turn.resume = how_to_resume();
        const Serve serve = may_serve();
        Take take;
        if (coming_ == 0) {
            take.parts = settings_.limits.parts(queue_.size(serve), workers_ - 1);
        }
        do {
            calls = queue_.next_group(take, serve);
            if (calls.empty()) {
                break;
            }
            set_aside_locked(calls);
        } while (calls.empty());
        turn.writing = !calls.empty() && calls.front()->kind != CallKind::get;
        writing_ += turn.writing ? 1 : 0;
        if (calls.empty()) {
            // Ending and finding nothing are one step: a call that comes later starts a new worker.
            --workers_;
        } else if (another_wanted()) {
            start = true;
            ++workers_;
            ++coming_;
        }
        set_timer();
    }
    if (start) {
        start_worker();
    }
    return calls;
}

/// The worker is about to look for its next group, and takes along who comes until then. Under the
/// lock.
void Batcher::be_coming(WorkerTurn& turn) {
    if (!turn.coming) {
        turn.coming = true;
        ++coming_;
        writing_ -= turn.writing ? 1 : 0;
        turn.writing = false;
    }
}

/// @returns whether to wait for one turn of the event loop before looking for the next group.
bool Batcher::await_more(WorkerTurn& turn) {
    const std::lock_guard lock(mutex_);
    be_coming(turn);
    return queue_.empty();
}

/// Callers may go on inside of a worker if they would have to wait for its thread anyway. Under the
/// lock.
Resume Batcher::how_to_resume() {
    const std::thread::id here = std::this_thread::get_id();
    many_runners_ = many_runners_ || (runner_ != std::thread::id() && runner_ != here);
    runner_ = here;
    return many_runners_ ? Resume::posted : Resume::inside;
}

/// Takes out of a group what would only meet a lock that is known. Under the lock.
void Batcher::set_aside_locked(Calls& calls) {
    if (locked_.empty() || calls.front()->kind == CallKind::get) {
        return;
    }
    std::erase_if(calls, [&](const std::shared_ptr<Call>& call) {
        const bool known = locked_.holds(call->key);
        if (known) {
            call->locked_ = true;
            locked_.add(call, last_start_);
        }
        return known;
    });
}

/// Sends each call alone, so that only the guilty fail.
asio::awaitable<void> Batcher::run_singly(const Calls& calls) {
    for (const auto& call : calls) {
        Calls alone(1, call);
        {
            const std::lock_guard lock(mutex_);
            last_start_ = std::chrono::steady_clock::now();
            set_aside_locked(alone);
        }
        if (!alone.empty()) {
            const Ended ended = co_await run(alone, first_lock_wait);
            if (ended == Ended::locked) {
                park(call);
            }
        }
    }
}

/// Lays a call aside whose row is locked; it will be tried again without holding up others.
void Batcher::park(const std::shared_ptr<Call>& call) {
    bool start = false;
    {
        const std::lock_guard lock(mutex_);
        call->locked_ = true;
        call->sent_ = false;
        locked_.add(call, std::chrono::steady_clock::now());
        start = !trying_locked_;
        trying_locked_ = true;
    }
    if (start) {
        asio::co_spawn(home_, try_locked(shared_from_this(), LockTurn(shared_from_this())),
                       asio::detached);
    }
}

asio::awaitable<void> Batcher::try_locked(std::shared_ptr<Batcher> self, LockTurn turn) {
    asio::steady_timer pause(co_await asio::this_coro::executor);
    for (;;) {
        const std::optional<TimePoint> due = self->next_try(turn);
        if (!due) {
            co_return;
        }
        pause.expires_at(*due);
        co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
        Calls calls = self->take_locked();
        if (calls.empty()) {
            continue;
        }
        const Calls all = calls;  // some may leave before they are sent
        const std::string key = calls.front()->key;
        GroupEnd end(*self, all);
        Ended ended = Ended::answered;
        std::exception_ptr thrown;
        try {
            ended = co_await self->run(calls, further_lock_wait);
        } catch (...) {
            thrown = std::current_exception();
        }
        if (thrown) {
            self->finish_all(all, to_failure(thrown, Errc::protocol_error));
            ended = Ended::answered;
        }
        end.answered();
        self->tried(calls, key, ended);
    }
}

/// @returns when a locked key is to be tried again; nothing when none is left, and the turn ends.
std::optional<TimePoint> Batcher::next_try(LockTurn& turn) {
    const std::lock_guard lock(mutex_);
    if (locked_.empty()) {
        trying_locked_ = false;
        turn.done();
        return std::nullopt;
    }
    return locked_.due();
}

Calls Batcher::take_locked() {
    const std::lock_guard lock(mutex_);
    return locked_.take_due();
}

/// What becomes of a locked key whose calls were tried.
void Batcher::tried(const Calls& calls, std::string_view key, Ended ended) {
    bool start = false;
    {
        const std::lock_guard lock(mutex_);
        if (ended == Ended::locked) {
            for (const auto& call : calls) {
                call->sent_ = false;
            }
            locked_.still_locked(calls, std::chrono::steady_clock::now());
            return;
        }
        if (ended == Ended::one_by_one) {
            for (const auto& call : calls) {
                queue_.push_back(call);
            }
        }
        for (auto& call : locked_.freed(key)) {
            queue_.push_back(std::move(call));
        }
        start = another_wanted();
        workers_ += start ? 1 : 0;
        coming_ += start ? 1 : 0;
        set_timer();
    }
    if (start) {
        start_worker();
    }
}

/// @returns whether a lock was waited for as long as our own limit says: the server's limit, if the
/// role has one, is an error for the caller.
asio::awaitable<bool> Batcher::met_our_limit(pg::Connection& connection) {
    const pg::Parameters none;
    const TimePoint until = std::chrono::steady_clock::now() + settings_.statement_timeout;
    const pg::Answer answer = co_await connection.execute(statements_->limits_locks, none, until);
    co_return answer && answer->size() == 1 && answer->bytes(0, 0) == std::string_view("\0", 1);
}

/// @param lock_wait how long a write waits for a row that somebody else has locked.
/// @param turn      the worker's, if it runs the group for itself.
asio::awaitable<Batcher::Ended> Batcher::run(Calls& calls, std::chrono::milliseconds lock_wait,
                                             WorkerTurn* turn) {
    Tries tries = calls.size() == 1 ? calls.front()->tries : Tries();
    Failure lost;  // why the group was sent before, if it was
    for (bool again = tries.any();; again = true) {
        std::optional<LoneLease> lone;
        while (settings_.limits.most == 1 && !lone) {
            if (lending_) {
                // By a worker, while calls of a locked key want to be tried.
                asio::steady_timer pause(co_await asio::this_coro::executor);
                pause.expires_after(std::chrono::milliseconds(1));
                co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
            } else {
                lone.emplace(*this);
            }
        }
        Result<ConnectionLease> lease = detail::borrow_idle(*pool_, *observers_);
        if (!*lease) {
            lease = co_await detail::borrow(*pool_, *observers_);
        }
        if (!lease) {
            const Failure failure = lease.error();
            // A pool of the application may still lend the connection that was lost.
            const bool same_again = again && failure.code == Errc::connection_unusable;
            finish_all(calls, same_again ? lost : failure);
            co_return Ended::answered;
        }
        mark_sent(calls);
        if (calls.empty()) {
            co_return Ended::answered;
        }
        const GroupStatement group(*statements_, calls, lock_wait);
        ++counters_->statements;
        counters_->retries += again ? 1 : 0;
        const StatementWatch watch(*observers_, operation_name(calls.front()->kind), calls.size(),
                                   again);
        pg::Connection& connection = lease->state().connection();
        pg::Answer answer = connection.attach(home_) && connection.reusable()
                                ? pg::Answer(pg::Rows())
                                : connection.lost(pg::Effect::none);
        if (answer) {
            const Flight flight(*this, connection);
            pg::Exchange exchange(connection, group.statement(), group.parameters());
            for (pg::Want want = exchange.begin(); want != pg::Want::nothing;
                 want = exchange.go_on()) {
                auto came = connection.ready(want);
                co_await std::move(came);
            }
            answer = exchange.take();
        }
        watch.ended(answer ? boost::system::error_code() : answer.error().failure.code);
        if (!answer && answer.error().failure.sqlstate == lock_not_available &&
            connection.reusable()) {
            const bool ours = co_await met_our_limit(connection);
            if (ours) {
                co_return Ended::locked;
            }
        }
        // Back before anybody is answered: a caller's next call finds it idle.
        *lease = ConnectionLease();
        if (answer) {
            unlink(calls, turn);
            const Resume how = turn != nullptr ? turn->resume : Resume::posted;
            group.answer(*answer, [&calls, how](std::size_t i, Result<CallAnswer>&& one) {
                calls[i]->settle(std::move(one), how);
            });
            co_return Ended::answered;
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
                co_return Ended::one_by_one;
            case Verdict::fail:
                finish_all(calls, statements_->explain(failed.failure));
                co_return Ended::answered;
            case Verdict::fail_as_unknown:
                finish_all(calls, Failure(Errc::outcome_unknown));
                co_return Ended::answered;
        }
    }
}

/// What nobody waits for any more is not sent.
void Batcher::mark_sent(Calls& calls) {
    const std::lock_guard lock(mutex_);
    std::erase_if(calls, [](const auto& call) { return call->left_ || call->settled(); });
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

/// @param turn that of a worker which is done with these calls.
void Batcher::unlink(const Calls& calls, WorkerTurn* turn) {
    const std::lock_guard lock(mutex_);
    if (turn != nullptr) {
        be_coming(*turn);
    }
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
        // Said before the lock is let go: it must not be sent between here and settle().
        call.left_ = true;
        unanswered_.remove(call);
        set_timer();
    }
    call.settle(cancelled_failure());
}

std::size_t Batcher::queued() const {
    const std::lock_guard lock(mutex_);
    return queue_.size() + locked_.size();
}

/// Keeps one timer for all that has a deadline; none when no worker is left and nobody waits, so
/// that a context with nothing to do comes to its end. Under the lock.
void Batcher::set_timer() {
    TimePoint wanted = unanswered_.empty() ? TimePoint::max() : unanswered_.first()->deadline;
    for (const Flight* flight : flights_) {
        if (flight != nullptr) {
            wanted = std::min(wanted, flight->deadline);
        }
    }
    if (may_be_stuck()) {
        wanted = std::min(wanted, last_start_ + stuck_after);
    }
    // A timer that is too early finds nothing to do and is set anew: cheaper than setting it for
    // every call.
    const bool early_enough = timer_at_ <= wanted && (wanted != TimePoint::max() || workers_ > 0);
    if (early_enough || wanted == timer_at_) {
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

/// Whether calls wait while all workers are busy: a row that somebody has locked must not hold up
/// those who want other rows. Under the lock.
bool Batcher::may_be_stuck() const noexcept {
    return coming_ == 0 && workers_ > 0 && workers_ < settings_.limits.most && !queue_.empty();
}

void Batcher::expire() {
    const TimePoint now = std::chrono::steady_clock::now();
    Calls late;
    std::vector<const char*> why;
    bool start = false;
    {
        const std::lock_guard lock(mutex_);
        timer_at_ = TimePoint::max();
        if (may_be_stuck() && now - last_start_ >= stuck_after) {
            start = true;
            ++workers_;
            ++coming_;
        }
        for (Flight* flight : flights_) {
            if (flight != nullptr && flight->deadline <= now) {
                flight->connection.overrun();
                flight->deadline = TimePoint::max();
            }
        }
        while (!unanswered_.empty() && unanswered_.first()->deadline <= now) {
            Call& call = *unanswered_.first();
            call.left_ = true;
            unanswered_.remove(call);
            if (auto alive = std::static_pointer_cast<Call>(call.weak_from_this().lock())) {
                why.push_back(call.locked_ ? timed_out_locked
                              : call.sent_ ? timed_out_sent
                                           : timed_out_unsent);
                late.push_back(std::move(alive));
            }
        }
        set_timer();
    }
    if (start) {
        start_worker();
    }
    for (std::size_t i = 0; i < late.size(); ++i) {
        late[i]->settle(Failure(Errc::timed_out, why[i]));
    }
}

}  // namespace psycache
