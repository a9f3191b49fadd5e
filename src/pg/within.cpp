// Statements of a transaction that the application has open on its own connection.

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <mutex>
#include <thread>

#include "pg/connection.hpp"
#include "pg/exchange.hpp"

namespace psycache::detail::pg {

namespace {

/// After so long a server that has not ended the statement is asked once more: a request that
/// overtakes its statement hits nothing.
constexpr std::chrono::milliseconds ask_again{100};
constexpr std::chrono::milliseconds look_again{1};

Failure unusable_failure(std::string why) {
    return {make_error_code(Errc::connection_unusable), std::move(why)};
}

}  // namespace

/// Has a statement cancelled at its deadline, or sooner when the caller leaves, and breaks the
/// connection off when that leads to nothing. May be told things from any thread.
class Connection::Patience {
  public:
    Patience(const asio::any_io_executor& executor, TimePoint deadline, Connection& connection)
        : state_(std::make_shared<State>(connection)), timer_(executor) {
        state_->patience = this;
        const std::lock_guard lock(state_->mutex);
        wait_until(deadline);
    }
    Patience(const Patience&) = delete;
    Patience& operator=(const Patience&) = delete;
    ~Patience() { end(); }

    /// The caller leaves. @returns what tells it, and may outlive this.
    auto leaver() {
        return [state = std::weak_ptr<State>(state_)](asio::cancellation_type type) {
            const auto held = state.lock();
            if (!held || type == asio::cancellation_type::none) {
                return;
            }
            const std::lock_guard lock(held->mutex);
            if (held->patience != nullptr && held->cut == CutShort::no) {
                held->patience->cut_short(CutShort::by_caller);
            }
        };
    }

    /// The statement has ended. @returns whether it was asked to, and why.
    CutShort end() noexcept {
        const std::lock_guard lock(state_->mutex);
        if (state_->patience != nullptr) {
            state_->patience = nullptr;
            timer_.cancel();
        }
        return state_->cut;
    }

  private:
    struct State {
        explicit State(Connection& its) : connection(its) {}
        std::mutex mutex;
        Patience* patience = nullptr;  // null once the statement has ended
        Connection& connection;
        CutShort cut = CutShort::no;
        TimePoint last = TimePoint::max();
    };

    // All of these under the lock.

    void wait_until(TimePoint when) {
        timer_.expires_at(when);
        timer_.async_wait([state = state_](const boost::system::error_code& error) {
            const std::lock_guard lock(state->mutex);
            if (!error && state->patience != nullptr) {
                state->patience->due();
            }
        });
    }

    void due() {
        if (state_->cut == CutShort::no) {
            cut_short(CutShort::by_deadline);
        } else if (Clock::now() >= state_->last) {
            state_->connection.overrun();
        } else {
            ask();
        }
    }

    void cut_short(CutShort why) {
        state_->cut = why;
        state_->last = Clock::now() + grace;
        ask();
    }

    void ask() {
        if (!state_->connection.cancel_->under_way()) {
            state_->connection.cancel_running();
        }
        wait_until(std::min(Clock::now() + ask_again, state_->last));
    }

    const std::shared_ptr<State> state_;
    asio::steady_timer timer_;
};

/// Looks whether a request to cancel is still on its way, which could hit what the application runs
/// next. @returns whether that is over; else it breaks the connection off once @p until has come.
bool Connection::settle_cancelling(TimePoint until) noexcept {
    if (broken_ || !cancel_->under_way()) {
        return true;
    }
    if (Clock::now() >= until) {
        break_off();
        return true;
    }
    return false;
}

/// @returns the answer in the terms of who cut its statement short.
Answer Connection::end_within(Answer answer, CutShort cut) {
    if (cut == CutShort::no) {
        return answer;
    }
    const bool lost = broken_ || (!answer && answer.error().connection_lost);
    if (!lost && (answer || answer.error().failure.sqlstate != "57014")) {
        return answer;
    }
    StatementFailure failed;
    failed.connection_lost = lost;
    failed.failure = cut == CutShort::by_caller ? cancelled_failure() : Failure(Errc::timed_out);
    failed.failure.cause +=
        lost ? "; the server did not end the statement when asked to, so that the connection was "
               "closed, and the transaction with it"
             : "; the server cancelled the statement, which aborted the transaction: roll it back, "
               "or to a savepoint";
    if (!lost) {
        failed.failure.sqlstate = "57014";
    }
    return failed;
}

Answer Connection::execute_within_blocking(const Statement& statement, const Parameters& parameters,
                                           TimePoint deadline) {
    Exchange exchange(*this, statement, parameters);
    Want next = exchange.run_blocking(exchange.begin(), deadline);
    if (next == Want::nothing) {
        return end_within(exchange.take(), CutShort::no);
    }
    const TimePoint last = Clock::now() + grace;
    for (TimePoint now = Clock::now(); next != Want::nothing && now < last; now = Clock::now()) {
        if (!cancel_->under_way()) {
            cancel_running();
        }
        next = exchange.run_blocking(next, std::min(now + ask_again, last));
    }
    if (next != Want::nothing) {
        exchange.run_to_the_end(next, Clock::now());
    }
    while (!settle_cancelling(last)) {
        std::this_thread::sleep_for(look_again);
    }
    return end_within(exchange.take(), CutShort::by_deadline);
}

asio::awaitable<Answer> Connection::execute_within(const Statement& statement,
                                                   const Parameters& parameters, TimePoint deadline,
                                                   asio::any_io_executor io) {
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    const bool throws = co_await asio::this_coro::throw_if_cancelled();
    asio::cancellation_state cancellation = co_await asio::this_coro::cancellation_state;
    if (throws && cancellation.cancelled() != asio::cancellation_type::none) {
        co_return StatementFailure(cancelled_failure(), Effect::none, false);
    }
    if (!attach(io)) {
        co_return StatementFailure(
            unusable_failure("the process has no file descriptor left to wait with"), Effect::none,
            false);
    }
    // What follows has to be awaited to its end: to be thrown out of it would leave libpq in the
    // middle of an answer.
    co_await asio::this_coro::throw_if_cancelled(false);
    Patience patience(io, deadline, *this);
    auto slot = cancellation.slot();
    if (slot.is_connected()) {
        slot.assign(patience.leaver());
    }
    Exchange exchange(*this, statement, parameters);
    auto running = exchange.run(exchange.begin());
    co_await std::move(running);
    if (slot.is_connected()) {
        slot.clear();
    }
    const CutShort cut = patience.end();
    if (cut != CutShort::no) {
        const TimePoint last = Clock::now() + grace;
        asio::steady_timer timer(executor);
        while (!settle_cancelling(last)) {
            timer.expires_after(look_again);
            auto look = timer.async_wait(asio::as_tuple(asio::deferred));
            co_await std::move(look);
        }
    }
    co_await asio::this_coro::throw_if_cancelled(throws);
    co_return end_within(exchange.take(), cut);
}

}  // namespace psycache::detail::pg
