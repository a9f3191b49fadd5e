#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <vector>

#include "batching/call.hpp"
#include "batching/lock_retry.hpp"
#include "batching/operation.hpp"
#include "batching/write_order.hpp"

namespace psycache::detail {

/// How much one statement may carry, and how many statements calls are divided among: with several
/// on their way neither client nor server has to wait for the other one, and each further one costs
/// both. Measured with 1 to 256 callers on one core and on two.
struct GroupLimits {
    std::size_t calls = 128;  ///< of one caller that asks for many keys
    std::size_t shared = 64;  ///< of different callers
    std::size_t bytes = 256 * 1024;
    std::size_t alone = 64 * 1024;  ///< a call with more bytes than this shares with no other

    /// How many groups may be on their way at once.
    std::size_t most = 8;
    /// How many of them may be writes, so that gets find a connection even when all writes wait for
    /// locks.
    std::size_t most_writing = 3;
    /// How many groups are on their way while fewer calls wait than fill one more.
    std::size_t workers = 3;
    /// So many calls are worth a group of their own.
    std::size_t each = 10;
    /// Whether two calls are divided between two groups if nothing else is on its way.
    bool spread = true;

    /// @param busy how many groups are on their way.
    /// @returns how many groups are made of so many calls that wait.
    std::size_t parts(std::size_t waiting, std::size_t busy) const noexcept;
    /// @returns whether so many calls that wait are worth one more worker.
    bool worth_another(std::size_t waiting, std::size_t busy) const noexcept;
};

/// @param processors  that this process may use, 0 if that is not known. One processor gains
///                    nothing from waiting less.
/// @param connections that there may be, 0 if that is not known.
GroupLimits group_limits(std::size_t processors, std::size_t connections) noexcept;

/// The same where threads wait and run the groups themselves.
/// @param connections that there may be, 0 where the pool decides how many threads run at once.
GroupLimits thread_limits(std::size_t connections) noexcept;

/// A worker takes groups out of the queue and runs them, one after the other.
struct Worker {
    bool coming = true;    ///< it is about to look for its next group
    bool writing = false;  ///< its group is one of writes
};

/// Which calls go next, and with how many workers. No I/O, no lock, no clock.
///
/// The call that has waited longest decides the operation of the next group, and further calls of
/// that operation join in order. A worker that is about to look takes along what comes until then,
/// so that none is added meanwhile.
class Scheduler {
  public:
    Scheduler(GroupLimits limits, std::size_t capacity) : limits_(limits), capacity_(capacity) {}

    // --- The queue.

    /// The calls of one owner that come in a row count as one: all of them have room, or none.
    /// @param elsewhere how many calls wait outside of the queue and count as well.
    /// @returns false when the queue is full even after calls that were settled are gone.
    bool add(std::shared_ptr<Call> call, std::size_t elsewhere = 0);
    /// Adds calls that were in the queue before, whatever it holds: ahead of all that wait.
    void add_first(const Calls& calls);
    std::size_t queued() const noexcept { return queued_; }
    /// Takes everything out.
    Calls take_all();
    /// @returns the first thread for which @p accepts returns true, of those whose calls wait for a
    /// worker; none if there is none.
    template <class Accepts>
    std::shared_ptr<WaitingThread> first_thread(const Accepts& accepts) const;

    // --- Workers. Each is counted from the moment it is called.

    /// @returns whether one more worker is wanted; then it is counted, as one that is coming.
    bool call_worker() noexcept;
    /// The same for calls that have waited for so long that all workers must be held up: a row
    /// that is locked must not hold up those who want other rows.
    bool call_worker_if_stuck(TimePoint now) noexcept;
    /// @param callers     how many threads are inside of a call.
    /// @returns whether a call may go alone, ahead of those that come: nothing waits, and few
    /// enough are on their way; then its worker is counted, as one that has its group: a Worker
    /// that is not coming, and is writing if @p writes.
    bool call_lone_worker(std::size_t callers, bool writes) noexcept;
    /// @returns the worker's next group. Empty when there is none: the worker has ended. Writes of
    /// keys that are locked, or on their way already, join those in @p locked and @p order.
    Calls next_group(Worker& worker, LockRetry& locked, WriteOrder& order, TimePoint now);
    /// The worker is done with its group, and about to look for the next one.
    void coming(Worker& worker) noexcept;
    /// The worker will not look again.
    void ended(const Worker& worker) noexcept;
    // --- Maintenance, which counts as a write: gets find a connection whatever it waits for.

    /// @param waits whether it has asked in vain before; from then on it comes before writes.
    /// @returns whether it may go on; then it is counted until maintenance_ended().
    bool begin_maintenance(bool waits) noexcept;
    void maintenance_ended() noexcept { --writing_; }
    /// It no longer waits for its turn.
    void maintenance_gave_up() noexcept { --maintenance_waiting_; }

    /// @returns whether no worker is busy or coming.
    bool idle() const noexcept { return workers_ == 0; }

    /// @returns when call_worker_if_stuck() is to be asked; TimePoint::max() for never, as things
    /// are.
    TimePoint stuck_at() const noexcept;
    /// A statement has started outside of next_group().
    void started(TimePoint now) noexcept { last_start_ = now; }

    const GroupLimits& limits() const noexcept { return limits_; }
    /// Other limits from now on.
    void set_limits(const GroupLimits& limits) noexcept { limits_ = limits; }

    /// Calls that have waited this long while no group was started get a further worker.
    static constexpr std::chrono::milliseconds stuck_after{10};

  private:
    struct Entry {
        std::shared_ptr<Call> call;
        std::int64_t ticket;
        bool counts;  // against the capacity
    };
    /// The calls of one operation and one route.
    struct Line {
        const Operation* operation;
        std::shared_ptr<const Route> route;
        std::deque<Entry> entries;
    };

    Line& line_of(const Call& call);
    bool follows_its_own(const Call& call);
    void drop_empty_routes();
    Line* oldest(bool reads_only) noexcept;
    void pop(Line& line) noexcept;
    void drop_settled();
    bool writes_allowed() const noexcept {
        return writing_ + maintenance_waiting_ < limits_.most_writing;
    }
    std::size_t servable() const noexcept;
    bool another_wanted() const noexcept;
    Calls cut(Line& line, std::size_t parts);
    bool belongs(const Call& call, const Call& last, std::size_t size) const noexcept;

    GroupLimits limits_;
    const std::size_t capacity_;
    std::int64_t tickets_ = 0;
    std::int64_t first_tickets_ = 0;
    std::list<Line> lines_;         // few; those of routes go when they are empty
    std::size_t queued_ = 0;        // of all lines
    std::size_t queued_reads_ = 0;  // of them
    std::size_t counted_ = 0;       // of them, against the capacity
    std::size_t workers_ = 0;
    std::size_t coming_ = 0;   // of them
    std::size_t writing_ = 0;  // of them, and maintenance
    std::size_t maintenance_waiting_ = 0;
    TimePoint last_start_ = TimePoint::min();
};

template <class Accepts>
std::shared_ptr<WaitingThread> Scheduler::first_thread(const Accepts& accepts) const {
    std::shared_ptr<WaitingThread> first;
    std::int64_t ticket = tickets_;
    for (const Line& line : lines_) {
        if (line.operation->writes && !writes_allowed()) {
            continue;
        }
        for (const Entry& entry : line.entries) {
            if (entry.ticket >= ticket) {
                break;
            }
            const Call& call = *entry.call;
            if (!call.settled() && call.thread && accepts(*call.thread)) {
                first = call.thread;
                ticket = entry.ticket;
                break;
            }
        }
    }
    return first;
}

}  // namespace psycache::detail
