#pragma once

/// @file
/// Every test of a coroutine goes through here, so that none can hang: run_coro, Threads, start.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <chrono>
#include <concepts>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <psycache/duration.hpp>
#include <psycache/error.hpp>

#include "slowness.hpp"

namespace psycache::test {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using Milliseconds = std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

/// How long a test waits for what must happen; it is never waited for in full when it does.
inline constexpr Milliseconds patience = 20s * slowness;

/// A test waited longer than it is willing to.
class OutOfPatience : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

namespace detail {

template <class T>
using Stored = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

/// What an operation ended with.
template <class T>
struct Ending {
    bool done = false;
    std::exception_ptr error;
    std::optional<Stored<T>> value;

    T get() {
        if (error) {
            std::rethrow_exception(error);
        }
        if constexpr (!std::is_void_v<T>) {
            return std::move(*value);
        }
    }
};

/// The completion handler of co_spawn that keeps the ending in a shared state.
template <class T, class State>
auto keep(std::shared_ptr<State> state) {
    if constexpr (std::is_void_v<T>) {
        return [state](std::exception_ptr error) {
            state->error = error;
            state->value.emplace();
            state->done = true;
            state->on_done();
        };
    } else {
        return [state](std::exception_ptr error, T value) {
            state->error = error;
            state->value.emplace(std::move(value));
            state->done = true;
            state->on_done();
        };
    }
}

template <class T>
struct PlainEnding : Ending<T> {
    void on_done() noexcept {}
};

template <class F>
struct Result {
    using type = typename std::invoke_result_t<F&>::value_type;
};
template <class T>
struct Result<asio::awaitable<T>> {
    using type = T;
};

}  // namespace detail

/// What a coroutine, or a function that makes one, ends with.
template <class F>
using CoroResult = typename detail::Result<F>::type;

/// Runs the context until @p coro (an awaitable, or a function that returns one) has ended.
///
/// @returns or throws what the coroutine does; OutOfPatience when it does not end in time.
template <class F>
CoroResult<F> run_coro(asio::io_context& context, F coro, Milliseconds timeout = patience) {
    using T = CoroResult<F>;
    auto ending = std::make_shared<detail::PlainEnding<T>>();
    context.restart();
    asio::co_spawn(context, std::move(coro), detail::keep<T>(ending));
    const auto deadline = Clock::now() + timeout;
    while (!ending->done && context.run_one_until(deadline) != 0) {
    }
    if (!ending->done) {
        throw OutOfPatience(Clock::now() >= deadline ? "the coroutine did not end in time"
                                                     : "the coroutine has nothing to wait for");
    }
    context.poll();  // what ends with the operation: leases that go back
    return ending->get();
}

/// The same on a context of its own.
template <class F>
CoroResult<F> run_coro(F coro, Milliseconds timeout = patience) {
    asio::io_context context;
    return run_coro(context, std::move(coro), timeout);
}

/// Runs a context until it is out of work.
///
/// @returns whether that happened in time.
inline bool run_out(asio::io_context& context, Milliseconds timeout = patience) {
    context.restart();
    context.run_for(timeout);
    const bool ran_out = context.stopped();
    context.restart();
    return ran_out;
}

/// A context that several threads run.
class Threads {
  public:
    explicit Threads(unsigned count) : guard_(context_.get_executor()) {
        for (unsigned i = 0; i < count; ++i) {
            auto ended = std::make_shared<std::promise<void>>();
            ended_.push_back(ended->get_future());
            threads_.emplace_back([this, ended] {
                context_.run();
                ended->set_value();
            });
        }
    }
    Threads(const Threads&) = delete;
    Threads& operator=(const Threads&) = delete;
    ~Threads() { finish(); }

    asio::io_context& context() { return context_; }

    /// Starts a coroutine on a strand of its own.
    template <class F>
    std::future<CoroResult<F>> spawn(F coro) {
        auto strand = asio::make_strand(context_);
        return asio::co_spawn(strand, std::move(coro), asio::use_future);
    }

    /// Runs a coroutine on a strand of its own, while the calling thread waits.
    template <class F>
    CoroResult<F> run(F coro, Milliseconds timeout = patience) {
        auto future = spawn(std::move(coro));
        if (future.wait_for(timeout) != std::future_status::ready) {
            throw OutOfPatience("the coroutine did not end in time");
        }
        return future.get();
    }

    /// Lets the threads end when there is no work left. @returns whether they did in time.
    bool finish(Milliseconds timeout = patience) {
        guard_.reset();
        const auto deadline = Clock::now() + timeout;
        bool in_time = true;
        for (auto& ended : ended_) {
            in_time = ended.wait_until(deadline) == std::future_status::ready && in_time;
        }
        if (!in_time) {
            context_.stop();
        }
        for (auto& thread : threads_) {
            if (thread.joinable()) {
                thread.join();
            }
        }
        return in_time;
    }

  private:
    asio::io_context context_;
    asio::executor_work_guard<asio::io_context::executor_type> guard_;
    std::vector<std::future<void>> ended_;
    std::vector<std::thread> threads_;
};

/// Runs a coroutine on a strand of a context that @p count threads run.
template <class F>
CoroResult<F> run_coro_on_threads(unsigned count, F coro, Milliseconds timeout = patience) {
    Threads threads(count);
    return threads.run(std::move(coro), timeout);
}

/// How an operation failed, or that it did not.
class Failure {
  public:
    Failure() = default;
    /// @param error of a failed operation; all but system errors are thrown on.
    explicit Failure(std::exception_ptr error) {
        try {
            if (error) {
                std::rethrow_exception(error);
            }
        } catch (const Error& e) {
            code_ = e.code();
            what_ = e.what();
            sqlstate_ = e.sqlstate();
            typed_ = true;
        } catch (const boost::system::system_error& e) {
            code_ = e.code();
            what_ = e.what();
        }
    }

    /// Success when nothing was thrown.
    const boost::system::error_code& code() const { return code_; }
    const std::string& what() const { return what_; }
    const std::string& sqlstate() const { return sqlstate_; }
    /// Whether it was a psycache::Error.
    bool typed() const { return typed_; }
    explicit operator bool() const { return code_.failed(); }

  private:
    boost::system::error_code code_;
    std::string what_;
    std::string sqlstate_;
    bool typed_ = false;
};

/// @returns how a blocking call failed.
template <std::invocable F>
Failure failure_of(F&& call) {
    try {
        call();
    } catch (const boost::system::system_error&) {
        return Failure(std::current_exception());
    }
    return Failure();
}

/// @returns how an awaited operation failed; its result is dropped.
template <class T>
asio::awaitable<Failure> failure_of(asio::awaitable<T> operation) {
    std::exception_ptr error;
    try {
        co_await std::move(operation);
    } catch (const boost::system::system_error&) {
        error = std::current_exception();
    }
    co_return Failure(error);
}

/// Waits on the coroutine's executor.
inline asio::awaitable<void> pause(Duration duration) {
    auto executor = co_await asio::this_coro::executor;
    asio::steady_timer timer(executor);
    timer.expires_after(duration);
    co_await timer.async_wait(asio::use_awaitable);
}

/// Waits until @p condition holds. It must outlive the operation: name it first.
///
/// @returns whether it came to hold in time.
template <class Condition>
asio::awaitable<bool> until(const Condition& condition, Milliseconds timeout = patience) {
    const auto deadline = Clock::now() + timeout;
    while (!condition()) {
        if (Clock::now() >= deadline) {
            co_return false;
        }
        co_await pause(2ms);
    }
    co_return true;
}

/// The same, blocking.
template <class Condition>
bool eventually(const Condition& condition, Milliseconds timeout = patience) {
    const auto deadline = Clock::now() + timeout;
    while (!condition()) {
        if (Clock::now() >= deadline) {
            return false;
        }
        std::this_thread::sleep_for(2ms);
    }
    return true;
}

/// An operation that runs beside the test's coroutine, on the same strand or one-threaded context.
template <class T>
class Started {
  public:
    bool done() const { return state_->done; }

    /// Waits until it has ended, then returns or throws what it did.
    asio::awaitable<T> get() {
        co_await wait();
        co_return state_->get();
    }

    /// Waits until it has ended. @returns how it failed.
    asio::awaitable<Failure> failure() {
        co_await wait();
        co_return Failure(state_->error);
    }

    void cancel(asio::cancellation_type type = asio::cancellation_type::terminal) {
        state_->signal.emit(type);
    }

  private:
    struct State : psycache::test::detail::Ending<T> {
        explicit State(const asio::any_io_executor& executor) : timer(executor) {
            timer.expires_after(patience);
        }
        void on_done() { timer.cancel(); }

        asio::steady_timer timer;
        asio::cancellation_signal signal;
    };

    asio::awaitable<void> wait() {
        auto state = state_;
        state->timer.expires_after(patience);
        if (!state->done) {
            co_await state->timer.async_wait(asio::as_tuple(asio::use_awaitable));
        }
        if (!state->done) {
            throw OutOfPatience("the started operation did not end in time");
        }
    }

    explicit Started(std::shared_ptr<State> state) : state_(std::move(state)) {}

    template <class U>
    friend Started<U> start(asio::any_io_executor executor, asio::awaitable<U> operation);

    std::shared_ptr<State> state_;
};

/// Starts an operation on @p executor, which is that of the calling coroutine.
template <class T>
Started<T> start(asio::any_io_executor executor, asio::awaitable<T> operation) {
    auto state = std::make_shared<typename Started<T>::State>(executor);
    asio::co_spawn(executor, std::move(operation),
                   asio::bind_cancellation_slot(state->signal.slot(), detail::keep<T>(state)));
    return Started<T>(std::move(state));
}

/// Waits until all have ended, and throws what one of them threw.
template <class T>
asio::awaitable<void> all(std::vector<Started<T>>& started) {
    for (auto& one : started) {
        auto end = one.get();
        co_await std::move(end);
    }
}

}  // namespace psycache::test
