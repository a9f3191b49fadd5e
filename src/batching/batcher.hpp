#pragma once

#include <array>
#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include <psycache/cache_pool.hpp>

#include "batching/batch.hpp"
#include "batching/call.hpp"
#include "batching/call_queue.hpp"
#include "batching/locked_keys.hpp"
#include "batching/verdict.hpp"
#include "observers.hpp"
#include "statements/table_statements.hpp"

namespace psycache {

/// What a batcher counts.
struct BatchCounters {
    std::atomic<std::uint64_t> statements{0};
    std::atomic<std::uint64_t> retries{0};
};

/// Turns calls that arrive together into statements and hands the answers back.
///
/// A call is queued; a worker is posted to the executor, so that whatever else is queued in the
/// same turn of the event loop goes out with it. While enough groups are on their way, further
/// calls pile up and form the next one. A worker is a coroutine that ends when the queue is empty:
/// there is no permanent task, and a group belongs to the batcher, not to any caller. Those whom it
/// answers often come back at once: where one thread runs the event loop they go on inside of the
/// worker, and what they ask next is its next group; elsewhere it lets one more turn of the event
/// loop pass before it ends.
///
/// A row that somebody else has locked holds up nobody but its own callers: a write waits for it
/// for a moment only; then the group is run one by one, and the calls of the locked key wait
/// without a connection and are tried again from time to time, until their deadlines.
class Batcher : public std::enable_shared_from_this<Batcher> {
  public:
    struct Settings {
        Settings() = default;
        std::size_t capacity = 16384;
        Duration statement_timeout = std::chrono::seconds(10);
        bool replay_writes = false;
        /// How many groups of writes may be on their way at once, so that gets find a connection
        /// even when all writes wait for locks.
        std::size_t most_writing = 3;
        GroupLimits limits;
    };

    Batcher(std::shared_ptr<AsyncCachePool> pool, std::shared_ptr<const TableStatements> statements,
            Settings settings, std::shared_ptr<BatchCounters> counters,
            std::shared_ptr<const Observers> observers);

    /// Hands a call to the batcher when it is awaited.
    struct Submission {
        void operator()(std::shared_ptr<Completion<Result<CallAnswer>>> call);

        std::shared_ptr<Batcher> batcher;
        asio::any_io_executor fallback;
    };

    /// What queues a call, once it is awaited, and waits for its answer, to its deadline at most.
    /// @param fallback where statements run if the pool names no executor and this is the first
    /// call.
    static Call::Waiting<Submission> perform(std::shared_ptr<Batcher> self,
                                             std::shared_ptr<Call> call,
                                             asio::any_io_executor fallback);

    /// Hands the calls of a batch to the batcher when it is awaited.
    struct BatchSubmission {
        void operator()(std::shared_ptr<Completion<std::monostate>> batch);

        std::shared_ptr<Batcher> batcher;
        asio::any_io_executor fallback;
    };

    /// What queues the calls of a batch, once it is awaited, and waits for all their answers.
    static Batch::Waiting<BatchSubmission> perform_all(std::shared_ptr<Batcher> self,
                                                       std::shared_ptr<Batch> batch,
                                                       asio::any_io_executor fallback);

    /// Runs calls of one kind as one statement in the calling thread, if that takes no waiting for
    /// a connection.
    /// @returns whether they have been answered; if not, they may be performed as usual.
    bool perform_blocking(CallSpan calls);

    /// The caller of @p call lost patience.
    void abandon(Call& call, asio::cancellation_type type);

    std::size_t queued() const;
    const GroupLimits& limits() const noexcept { return settings_.limits; }

  private:
    class WorkerTurn;
    class LockTurn;
    class GroupEnd;
    class Flight;
    class LoneLease;

    /// How a statement for some calls ended.
    enum class Ended {
        answered,    ///< all of them have been answered
        one_by_one,  ///< refused as a whole: only some of them may be guilty
        locked,      ///< a row was locked; nothing was changed
    };

    /// Calls that have waited this long while no group was started get a further worker.
    static constexpr std::chrono::milliseconds stuck_after{10};

    /// How long a write waits for a locked row before its group is run one by one, and when the row
    /// is tried again.
    static constexpr std::chrono::milliseconds first_lock_wait{100};
    static constexpr std::chrono::milliseconds further_lock_wait{20};

    void submit(const std::shared_ptr<Call>* calls, std::size_t count,
                asio::any_io_executor fallback);
    void start_worker();
    Serve may_serve() const noexcept;
    bool another_wanted() const noexcept;
    static asio::awaitable<void> work(std::shared_ptr<Batcher> self, WorkerTurn turn);
    Calls next_group(WorkerTurn& turn);
    bool await_more(WorkerTurn& turn);
    void be_coming(WorkerTurn& turn);
    Resume how_to_resume();
    void set_aside_locked(Calls& calls);
    asio::awaitable<Ended> run(Calls& calls, std::chrono::milliseconds lock_wait,
                               WorkerTurn* turn = nullptr);
    asio::awaitable<void> run_singly(const Calls& calls);
    asio::awaitable<bool> met_our_limit(pg::Connection& connection);
    void park(const std::shared_ptr<Call>& call);
    static asio::awaitable<void> try_locked(std::shared_ptr<Batcher> self, LockTurn turn);
    std::optional<TimePoint> next_try(LockTurn& turn);
    Calls take_locked();
    void tried(const Calls& calls, std::string_view key, Ended ended);
    void mark_sent(Calls& calls);
    void finish_all(const Calls& calls, const Failure& failure);
    void unlink(const Calls& calls, WorkerTurn* turn = nullptr);
    void set_timer();
    bool may_be_stuck() const noexcept;
    void expire();

    const std::shared_ptr<AsyncCachePool> pool_;
    const std::shared_ptr<const TableStatements> statements_;
    const Settings settings_;
    const std::shared_ptr<BatchCounters> counters_;
    const std::shared_ptr<const Observers> observers_;

    mutable std::mutex mutex_;
    asio::any_io_executor home_;
    std::optional<asio::steady_timer> timer_;
    TimePoint timer_at_ = TimePoint::max();
    CallQueue queue_;
    DeadlineList unanswered_;
    std::size_t workers_ = 0;
    std::size_t coming_ = 0;                   // of them, those that are about to look for a group
    std::size_t writing_ = 0;                  // of them, those that have a group of writes
    TimePoint last_start_ = TimePoint::min();  // when a worker last looked for a group
    std::thread::id runner_;                   // of the event loop, as long as it is only one
    bool many_runners_ = false;
    std::array<Flight*, GroupLimits::most_workers + 1>
        flights_{};  // one of them is for a locked key
    LockedKeys locked_;
    bool trying_locked_ = false;  // a coroutine looks after them
    bool lending_ = false;        // where there is one connection at a time; of its one thread
};

}  // namespace psycache
