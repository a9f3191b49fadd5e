#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>

#include <psycache/cache_pool.hpp>

#include "batching/call.hpp"
#include "batching/group.hpp"
#include "batching/operation.hpp"
#include "batching/retry_decision.hpp"
#include "batching/router.hpp"
#include "core/counts.hpp"
#include "core/observers.hpp"
#include "pg/exchange.hpp"

namespace psycache::detail {

/// What every statement of a batcher has to do with.
struct StatementContext {
    std::shared_ptr<Counts> counts;
    std::shared_ptr<const Observers> observers;
    bool replay_writes = false;
    std::shared_ptr<Router> router;  ///< as Batcher::Settings has it
};

/// The attempts to run a statement for the same calls, so far.
struct SendAttempts {
    Tries tries;
    Failure lost;        // why it was sent before, if it was
    Duration waited{};   // how long the last one took, where it met a lock
    bool again = false;  // whether a further one repeats it
};

/// What has become of calls whose statement has ended.
enum class Outcome {
    settled,      ///< each of them
    retry,        ///< to be sent again on another connection
    retry_later,  ///< the same, after a short pause
    one_by_one,   ///< refused as a whole: only some of them may be the cause
    locked,       ///< a row was locked; nothing was changed
    conflicting,  ///< a lone call that met others again and again; nothing was changed
    elsewhere,    ///< refused by the server of their route: to be sent through the cache's own pool
};

/// One statement for calls of one operation, from the lease to the answers. How it waits is for
/// the one who runs its exchange to say.
class StatementRun {
  public:
    /// @param calls of one operation; the caller keeps them alive and in their order.
    /// @param on_route whether the lease leads to the server of their route.
    StatementRun(const StatementContext& context, ConnectionLease lease, CallSpan calls,
                 const SendAttempts& attempts, bool on_route = false);
    StatementRun(const StatementRun&) = delete;
    StatementRun& operator=(const StatementRun&) = delete;

    pg::Connection& connection() const;
    pg::Exchange& exchange() noexcept { return exchange_; }
    /// Sends the first message. @returns what has to come next; nothing if the connection is dead.
    pg::Want begin();

    /// Runs the exchange in the calling thread. It ends with timed_out, and the connection with it,
    /// when @p until has come.
    void run_blocking(pg::Want next, TimePoint until);

    /// The exchange has ended: tells the observers, and reads the answer.
    /// @returns settled if settle() has answers or a failure that is final; otherwise what is to be
    /// done. The lease is given back.
    Outcome conclude(SendAttempts& attempts);

    /// Settles the calls with their answers, or with the failure.
    void settle(Resume how) const;

  private:
    const StatementContext& context_;
    const CallSpan calls_;
    const Group group_;
    ConnectionLease lease_;
    pg::Parameters parameters_;
    const pg::Statement& statement_;
    pg::Exchange exchange_;
    StatementWatch watch_;
    const TimePoint sent_at_ = Clock::now();
    bool alive_ = false;
    pg::Answer answer_;
    Failure failure_;
};

}  // namespace psycache::detail
