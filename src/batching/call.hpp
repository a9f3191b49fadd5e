#pragma once

#include <boost/intrusive/set_hook.hpp>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/clock.hpp"
#include "core/failure.hpp"
#include "core/waiting.hpp"

namespace psycache::detail {

class Batcher;
struct Route;
class Operation;
class WaitingThread;

/// A limit that the server has set for the role: how long one of its statements waits for a lock.
struct LockLimit {
    std::chrono::milliseconds after;
    const char* sqlstate;  ///< what a statement that waited for so long ends with; a literal
};

/// Waits for several calls at once.
class CallOwner {
  public:
    CallOwner() = default;
    CallOwner(const CallOwner&) = delete;
    CallOwner& operator=(const CallOwner&) = delete;
    virtual ~CallOwner() = default;
    /// One of its calls has been settled; called where that happened.
    virtual void call_done() = 0;
};

/// One call of an operation for one key on its way: queued, then part of a group, then settled.
///
/// Each operation derives its own, with the arguments that its statement needs and with the answer.
class Call : public Waited {
  public:
    /// @param its_operation outlives the call.
    /// @param payload       how many bytes it sends beside its key.
    Call(const Operation& its_operation, std::string its_key, TimePoint until,
         std::size_t payload = 0)
        : operation(its_operation),
          key(std::move(its_key)),
          deadline(until),
          bytes(key.size() + payload) {}

    /// Answers the call. @param fill stores the answer; it is called if nothing came before it.
    template <class Fill>
    bool answer(const Fill& fill, Resume how = Resume::posted) {
        return settle_with(fill, how);
    }
    bool fail(Failure why, Resume how = Resume::posted) {
        return settle_with([&] { failure_ = std::move(why); }, how);
    }
    /// @returns why it failed, once it is settled; no code if it was answered.
    const Failure& failure() const noexcept { return failure_; }

    const Operation& operation;
    const std::string key;
    const TimePoint deadline;
    const std::size_t bytes;

    std::shared_ptr<CallOwner> owner;  // of a call that is not awaited alone; dropped at the end
    // The same owner as a mark of calls that belong together: it stays, and is never looked into.
    const CallOwner* together = nullptr;
    std::shared_ptr<WaitingThread> thread;  // that waits for it; none where a coroutine does
    std::shared_ptr<const Route> route;     // of its key, when it was queued; null: none
    unsigned step = 0;  // of an operation that takes several statements, the one that is next

    /// Where it is; the batcher's, under its lock.
    struct Progress {
        bool sent = false;
        bool left = false;                        // its caller is being told that it has ended
        bool locked = false;                      // another transaction had its row locked
        bool ordered = false;                     // the writes of its key wait for it
        TimePoint lock_limit = TimePoint::max();  // when the role's limit for locks has come
        const char* limit_sqlstate = nullptr;
    };
    Progress progress;

    /// Its place among the deadlines.
    using DeadlineHook = boost::intrusive::set_member_hook<>;
    DeadlineHook by_deadline;

  private:
    friend class Batcher;

    void cancelled(asio::cancellation_type type) override;
    void delivered() override {
        if (const auto its = std::move(owner)) {
            its->call_done();
        }
    }

    Failure failure_;
    std::weak_ptr<Batcher> batcher_;  // set when it is submitted
};

using Calls = std::vector<std::shared_ptr<Call>>;
using CallSpan = std::span<const std::shared_ptr<Call>>;

}  // namespace psycache::detail
