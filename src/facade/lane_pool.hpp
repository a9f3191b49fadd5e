#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/cache_core.hpp"
#include "facade/cleanup_thread.hpp"
#include "pool/attempts.hpp"

namespace psycache::detail {

/// The lanes of a PostgresCache: each an io_context with a connection of its own, on which one
/// blocking call at a time runs in its caller's thread.
///
/// A call gets a lane that has its connection, or opens one itself where there is room. Once an
/// attempt to open one has failed, the next one is made after a pause and by one thread; meanwhile
/// calls wait for the lanes that are there. Where there are none, the failure is that of all who
/// wait.
class LanePool {
  public:
    /// @param most    how many lanes there may be.
    /// @param options checked already.
    LanePool(PoolFactory make_pool, std::size_t most, CacheOptions options);

    /// Runs one operation of the cache on a lane.
    /// @param open  opens the call's spans, from the observers; waiting for a lane is part of the
    ///              call.
    /// @param start makes the operation's coroutine, from the lane's core and what has begun.
    template <class T, class Span, class Open, class Start>
    T call(std::string_view operation, Open open, Start start);

    /// Runs an operation on one key, which takes an event loop only if it has to wait for a
    /// connection.
    /// @param open  as above.
    /// @param begin makes the LoneCall, from the lane's core and what has begun.
    /// @param end   makes the result of it, or throws.
    template <class T, class Span, class Open, class Begin, class End>
    T call_lone(std::string_view operation, Open open, Begin begin, End end);

    std::shared_ptr<CleanupThread> start_cleanup(Duration interval);
    CacheStatistics statistics() const;
    /// @returns how many threads wait for a lane.
    std::size_t waiting() const;

  private:
    struct Lane {
        explicit Lane(const LanePool& lanes);
        /// Opens the connection, if it is to be kept. @returns no code, or why there is none.
        Failure open(TimePoint until);
        /// @returns whether a connection is open, as far as can be told.
        bool connected() const { return !own || own->statistics().open > 0; }

        asio::io_context context{1};
        const std::shared_ptr<AsyncCachePool> pool;
        const ConnectionPool* const own;  // the pool, unless it is an application's
        const std::shared_ptr<CacheCore> core;
    };

    /// One use of a lane; gives it back, or throws it away when work was left on it.
    class Turn;
    /// Marks the thread as being inside a call, and refuses a second one.
    class Inside;
    /// What has become of a thread that needs a lane: it got one, or the right to open one, or the
    /// reason why there is none; or nothing yet. Lanes and rights are counted already.
    struct Place {
        bool decided() const noexcept { return lane || may_open || failure; }

        std::unique_ptr<Lane> lane;
        bool may_open = false;
        std::shared_ptr<const Failure> failure;
    };
    /// A thread that waits for a lane.
    struct Waiting {
        std::condition_variable called;
        Place place;
    };
    enum class Stand { first, last };
    using Lock = std::unique_lock<std::mutex>;

    template <class Span, class Open>
    CacheCore::Begun<Span> begin(std::string_view operation, Turn& turn, TimePoint until,
                                 Open& open);
    Failure enter(TimePoint until, std::unique_ptr<Lane>& lane);
    Failure get_lane(Lock& lock, TimePoint until, Place place, std::unique_ptr<Lane>& lane);
    Place find_place() noexcept;
    Place wait_in_line(Lock& lock, TimePoint until, Stand stand);
    void serve_line() noexcept;
    void wake_first() noexcept;
    Failure open_lane(Lock& lock, TimePoint until, std::unique_ptr<Lane>& lane);
    bool keeps_line_waiting(const Failure& failure) const noexcept;
    std::shared_ptr<const Failure> too_late() const;
    void leave(std::unique_ptr<Lane> lane, bool failed) noexcept;
    std::unique_ptr<Lane> outside_lane();
    void leave_outside(std::unique_ptr<Lane> lane) noexcept;
    void show_waiting(std::ptrdiff_t more) const noexcept;

    const unsigned forks_ = pg::forks();
    const PoolFactory make_pool_;
    const std::size_t most_;
    const CacheOptions options_;
    const std::shared_ptr<Telemetry> telemetry_;
    const std::shared_ptr<Breaker> breaker_;

    mutable std::mutex mutex_;
    std::vector<std::unique_ptr<Lane>> idle_;     // has room for all lanes there are
    std::vector<std::unique_ptr<Lane>> outside_;  // never connected: for calls that fail at once
    std::size_t busy_ = 0;                        // lanes with a connection that calls have
    std::size_t opening_ = 0;                     // lanes whose connection is being opened
    Attempts attempts_;
    std::deque<Waiting*> line_;
};

class LanePool::Inside {
  public:
    Inside(const LanePool& pool, std::string_view operation);
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
    ~Inside();

  private:
    const LanePool& pool_;
    const Inside* const outer_;
};

class LanePool::Turn {
  public:
    explicit Turn(LanePool& pool) : pool_(pool) {}
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    /// What an unfinished call left running would hold up the next one: its lane goes, with its
    /// connection.
    ~Turn();

    /// @returns no code when a lane is there, else why there is none.
    Failure enter(TimePoint until) {
        Failure failure = pool_.enter(until, lane_);
        entered_ = !failure.code;
        return failure;
    }
    /// Takes a lane for a call that needs no connection; it is not one of those that are counted.
    void stay_outside() { lane_ = pool_.outside_lane(); }

    const CacheCore::Self& core() const { return lane_->core; }
    /// @returns the lane's context, to start something on it.
    asio::io_context& context();
    /// Runs the lane until @p done says so.
    template <class Done>
    void run(const Done& done);
    /// The call has ended well. Otherwise its lane may have no connection any more.
    void succeeded() noexcept { failed_ = false; }

  private:
    bool finished() noexcept;

    LanePool& pool_;
    std::unique_ptr<Lane> lane_;
    bool entered_ = false;
    bool used_ = false;  // the context, by this call
    bool failed_ = true;
};

template <class Span, class Open>
CacheCore::Begun<Span> LanePool::begin(std::string_view operation, Turn& turn, TimePoint until,
                                       Open& open) {
    if (forks_ != pg::forks()) {
        throw to_error(operation, forked_failure());
    }
    CacheCore::Begun<Span> begun(
        until, open(telemetry_->observers),
        breaker_ ? breaker_->admit(std::chrono::steady_clock::now()) : Breaker::Pass());
    // A call that is refused needs no connection: it does not wait for one.
    begun.obstacle = begun.pass->refusal();
    if (!begun.obstacle) {
        if (Failure failure = turn.enter(until); failure.code) {
            begun.obstacle = std::move(failure);
        }
    }
    if (begun.obstacle) {
        turn.stay_outside();
    }
    return begun;
}

template <class Done>
void LanePool::Turn::run(const Done& done) {
    // Only until the caller has its answer: a statement that hangs must not keep it.
    while (!done() && lane_->context.run_one() != 0) {
    }
}

template <class T, class Span, class Open, class Start>
T LanePool::call(std::string_view operation, Open open, Start start) {
    const TimePoint until = std::chrono::steady_clock::now() + options_.timeout;
    const Inside inside(*this, operation);
    // Before the turn: what is left on the lane may still run when the turn ends.
    std::exception_ptr thrown;
    std::optional<T> value;
    bool done = false;
    Turn turn(*this);
    CacheCore::Begun<Span> begun = begin<Span>(operation, turn, until, open);
    asio::co_spawn(turn.context(), start(turn.core(), std::move(begun)),
                   [&](std::exception_ptr error, T result) {
                       done = true;
                       if (error) {
                           thrown = error;
                       } else {
                           value = std::move(result);
                       }
                   });
    turn.run([&] { return done; });
    if (thrown) {
        std::rethrow_exception(thrown);
    }
    if (!value) {
        throw to_error(operation, Failure(Errc::protocol_error));
    }
    turn.succeeded();
    return std::move(*value);
}

template <class T, class Span, class Open, class Begin, class End>
T LanePool::call_lone(std::string_view operation, Open open, Begin begin_it, End end_it) {
    const TimePoint until = std::chrono::steady_clock::now() + options_.timeout;
    const Inside inside(*this, operation);
    Turn turn(*this);
    CacheCore::Begun<Span> begun = begin<Span>(operation, turn, until, open);
    const CacheCore::Self& core = turn.core();
    LoneCall<Span> lone = begin_it(*core, std::move(begun));
    if (lone.call && !core->answered_blocking(lone.call)) {
        asio::co_spawn(turn.context(), CacheCore::answer(core, lone.call), asio::detached);
        turn.run([&] { return lone.call->settled(); });
    }
    T result = end_it(*core, lone);
    turn.succeeded();
    return result;
}

}  // namespace psycache::detail
