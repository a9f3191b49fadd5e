#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include <psycache/cache_pool.hpp>

#include "batching/batch.hpp"
#include "batching/call.hpp"
#include "batching/deadlines.hpp"
#include "batching/lock_retry.hpp"
#include "batching/router.hpp"
#include "batching/scheduler.hpp"
#include "batching/statement_run.hpp"
#include "batching/waiting_thread.hpp"
#include "batching/write_order.hpp"

namespace psycache::detail {

/// Turns calls that arrive together into statements and hands the answers back: joins the
/// scheduler, the deadlines, the retries of locked rows and the statements.
///
/// A call is queued; a worker is posted to the executor, so that whatever else is queued in the
/// same turn of the event loop goes out with it. While enough groups are on their way, further
/// calls pile up and form the next one. A worker is a coroutine that ends when the queue is empty:
/// there is no permanent task, and a group belongs to the batcher, not to any caller. Callers that
/// it answers often come back at once: where one thread runs the event loop they go on inside of
/// the worker, and what they ask next is its next group; elsewhere it lets one more turn of the
/// event loop pass before it ends.
///
/// Where threads wait for the calls (blocking/), they are the workers themselves: see
/// thread_batching.cpp. The event loop then only has what has to wait for something else than its
/// own statement, and what outlives the thread that began it.
///
/// A row that another transaction has locked holds up its own callers only: a write waits for it
/// for a moment; then its calls wait without a connection, the others of its group go on, and the
/// row is looked at from time to time. Writes of one key go one after the other.
///
/// Where the table is divided among servers, calls go to the one that has their row, as far as that
/// is known and it can be reached; else through the cache's own pool: see routing.cpp.
class Batcher : public std::enable_shared_from_this<Batcher> {
  public:
    /// Where waiting threads drive the event loop.
    class Host {
      public:
        Host() = default;
        Host(const Host&) = delete;
        Host& operator=(const Host&) = delete;
        virtual ~Host() = default;
        /// There is work on the event loop now.
        virtual void loop_has_work() noexcept = 0;
    };

    struct Settings {
        Settings() = default;
        std::size_t capacity = 16384;
        Duration statement_timeout = std::chrono::seconds(10);
        bool replay_writes = false;
        GroupLimits limits;
        Host* host = nullptr;  ///< of waiting threads; outlives all calls
        /// Lending a connection blocks the thread: what has one must not wait for an event loop.
        bool pool_blocks = false;
        std::shared_ptr<Router> router;  ///< null: no call has a route
    };

    /// @param operations what owns the operations of all calls: statements may outlive the cache.
    Batcher(std::shared_ptr<AsyncCachePool> pool, Settings settings, std::shared_ptr<Counts> counts,
            std::shared_ptr<const Observers> observers, std::shared_ptr<const void> operations);
    Batcher(const Batcher&) = delete;
    Batcher& operator=(const Batcher&) = delete;
    ~Batcher();

    /// Hand what is waited for to the batcher when it is awaited.
    struct CallSubmission {
        void operator()(std::shared_ptr<Waited> call);

        std::shared_ptr<Batcher> batcher;
        asio::any_io_executor fallback;
    };
    struct BatchSubmission {
        void operator()(std::shared_ptr<Waited> batch);

        std::shared_ptr<Batcher> batcher;
        asio::any_io_executor fallback;
    };

    /// What queues a call, once it is awaited, and waits for its answer, to its deadline at most.
    /// @param fallback where statements run if the pool names no executor and this is the first
    /// call.
    static Waited::Waiting<CallSubmission> perform(std::shared_ptr<Batcher> self,
                                                   std::shared_ptr<Call> call,
                                                   asio::any_io_executor fallback);
    /// What queues the calls of a batch, once it is awaited, and waits for all their answers.
    static Waited::Waiting<BatchSubmission> perform_all(std::shared_ptr<Batcher> self,
                                                        std::shared_ptr<Batch> batch,
                                                        asio::any_io_executor fallback);

    /// Sees to it that calls end at their deadline where nothing runs the context on which their
    /// statements run: from another context, @p executor, a timer of the caller's own does it.
    /// @returns the timer, which ends with its caller; none where both contexts are the same.
    std::optional<asio::steady_timer> watch_from(const asio::any_io_executor& executor,
                                                 CallSpan calls);

    /// The caller of @p call lost patience.
    void abandon(Call& call, asio::cancellation_type type);

    std::size_t queued() const;

    /// The right to run a statement of maintenance beside the calls, until it is destroyed.
    class MaintenanceTurn {
      public:
        explicit MaintenanceTurn(std::shared_ptr<Batcher> batcher) : batcher_(std::move(batcher)) {}
        MaintenanceTurn(const MaintenanceTurn&) = delete;
        MaintenanceTurn& operator=(const MaintenanceTurn&) = delete;
        ~MaintenanceTurn();

        /// @returns whether the statement may run; otherwise it is to be asked again soon: what is
        /// free meanwhile is kept for it.
        bool begin();
        /// How soon.
        static constexpr std::chrono::milliseconds pause{2};

      private:
        const std::shared_ptr<Batcher> batcher_;
        bool waits_ = false;
        bool runs_ = false;
    };

    // --- For threads that wait; in thread_batching.cpp.

    /// Calls that are run together, and how far that has got. It may go from a thread to the event
    /// loop, and serves one group after the other.
    struct Running {
        Calls calls;
        SendAttempts attempts;
        Outcome outcome = Outcome::retry;
        std::optional<StatementRun> statement;  // whose answer has not come
        bool on_route = false;  // whether it was sent to the server of the calls' route
        pg::Want next = pg::Want::nothing;

        void begin(Calls next_calls) {
            calls = std::move(next_calls);
            attempts = SendAttempts();
            outcome = Outcome::retry;
        }
    };
    /// What is left to be done for a call that was not settled.
    struct Rest {
        std::unique_ptr<Running> group;  // none: it is to be queued
        std::optional<WorkerTurn> turn;
    };

    /// Runs a call in the calling thread, if that takes no waiting for a connection, and no other
    /// call waits for one.
    /// @param callers how many threads are inside of a call.
    /// @returns nothing if the call has been settled; otherwise what enqueue() is to go on with.
    std::optional<Rest> perform_alone(const std::shared_ptr<Call>& call, std::size_t callers);
    /// Queues calls of one operation that @p thread waits for, or goes on with them.
    /// @returns a turn to work, if a worker is wanted.
    std::optional<WorkerTurn> enqueue(CallSpan calls, const std::shared_ptr<WaitingThread>& thread,
                                      Rest rest = {});
    /// Runs groups in the calling thread until @p thread is answered, then hands the turn on.
    /// @param until the thread's own deadline.
    void work_in_thread(WorkerTurn turn, WaitingThread& thread, TimePoint until);
    /// Hands a turn on to a thread whose calls wait; where none does, the worker has ended.
    void hand_on(WorkerTurn turn);
    /// @returns a turn, if calls have waited for so long that one more worker is wanted.
    std::optional<WorkerTurn> turn_if_stuck();
    /// The deadline of a call has come, which its caller has watched itself.
    void time_out(Call& call);
    /// No thread waits any longer: statements that are left on the event loop are given up, and
    /// their connections with them.
    void give_up_statements();

  private:
    friend class WorkerTurn;
    friend class MaintenanceTurn;
    class InFlight;

    void submit(CallSpan calls, asio::any_io_executor fallback);
    void settle_in(asio::any_io_executor executor);
    bool put_first(const Calls& calls);
    std::size_t waiting() const noexcept;
    std::size_t add_to_queue(CallSpan calls, bool with_deadlines);
    void refuse(CallSpan calls) const;
    void start_worker();
    static asio::awaitable<void> work(std::shared_ptr<Batcher> self, WorkerTurn turn,
                                      std::unique_ptr<Running> group);
    asio::awaitable<void> run(Running& group, WorkerTurn* turn);
    asio::awaitable<void> run_parted(Running& group, WorkerTurn& turn);
    asio::awaitable<void> run_singly(Calls calls);
    static asio::awaitable<void> pause_before_retry();
    Calls next_group(WorkerTurn& turn);
    bool await_more(WorkerTurn& turn);
    Resume how_to_resume();
    void settle(const StatementRun& statement, const Calls& calls, WorkerTurn* turn);
    void mark_sent(Calls& calls);
    void fail_all(const Calls& calls, const Failure& failure);
    void orphan(const Calls& calls);
    void fail_unconnected(const Calls& calls, const SendAttempts& attempts, const Failure& why);
    void unlink(CallSpan calls, WorkerTurn* turn = nullptr);
    TimePoint statement_deadline(const Calls& calls) const;
    void turn_lost(const Worker& worker);
    void set_timer();
    void expire();

    // Of locked rows; in locked_calls.cpp.
    asio::awaitable<Result<LockSight>> look_for_locks(const Operation& operation, std::string keys);
    asio::awaitable<bool> lay_locked_aside(Calls& calls, Duration waited);
    void lay_conflicting_aside(const std::shared_ptr<Call>& call);
    void follow(Call& call, TimePoint now);
    bool joins_locked(const std::shared_ptr<Call>& call);
    void start_retries();
    template <class End>
    static asio::awaitable<void> retry_locked(std::shared_ptr<Batcher> self, End end);
    std::optional<TimePoint> next_lock_try();
    asio::awaitable<void> look_again(const LockRetry::Due& due);
    asio::awaitable<void> try_again(Calls calls);
    template <class Release>
    void go_again(const Release& release);

    // Of routes; in routing.cpp.
    struct RoutedLease {
        Result<ConnectionLease> lease{ConnectionLease()};  // empty: borrow through the own pool
        bool wait = false;                                 // or wait for one of the route's
    };
    RoutedLease borrow_on_route(const Calls& calls) const;
    asio::awaitable<Result<ConnectionLease>> lease_for(Running& group);
    std::optional<Router::Question> question_for(const Calls& calls) const;
    asio::awaitable<void> look_for_routes(const ConnectionLease& lease, Router::Question question);
    void look_for_routes_blocking(const ConnectionLease& lease, Router::Question question,
                                  TimePoint deadline);
    void serve_routes();
    bool leave_route(Running& group) const;

    // Of threads; in thread_batching.cpp.
    bool run_in_thread(Running& group, WorkerTurn& turn, TimePoint until);
    void hand_over(std::unique_ptr<Running> group, WorkerTurn turn);

    const std::shared_ptr<AsyncCachePool> pool_;
    const Settings settings_;
    const std::shared_ptr<const Observers> observers_;
    const std::shared_ptr<const void> operations_;
    const StatementContext context_;

    mutable std::mutex mutex_;
    asio::any_io_executor home_;
    const bool pool_names_home_;
    std::atomic<const asio::execution_context*> home_context_{nullptr};
    std::weak_ptr<asio::steady_timer>
        timer_;  // its handler keeps it, so that it ends with its context
    TimePoint timer_at_ = TimePoint::max();
    Scheduler scheduler_;
    Deadlines deadlines_;
    LockRetry locked_;
    WriteOrder order_;
    bool retrying_locked_ = false;  // a coroutine looks after them
    std::thread::id runner_;        // of the event loop, as long as it is only one
    bool many_runners_ = false;
};

}  // namespace psycache::detail
