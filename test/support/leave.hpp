#pragma once

/// @file
/// Callers that lose patience, in every way that Asio has for it: leave.

#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/post.hpp>
#include <memory>
#include <random>
#include <utility>

#include "run_coro.hpp"

namespace psycache::test {

/// Lets all types of cancellation through to @p operation: a spawned coroutine lets only `terminal`
/// through.
template <class T>
asio::awaitable<T> listening(asio::awaitable<T> operation) {
    co_await asio::this_coro::reset_cancellation_state(asio::enable_total_cancellation());
    co_return co_await std::move(operation);
}

/// How and when a caller leaves its call.
struct Departure {
    enum class Manner {
        none,     ///< it stays to the end
        slot,     ///< it emits its cancellation signal
        nagging,  ///< it emits `total` first, and its own type a little later
        either,   ///< operator || with a timer
        group     ///< make_parallel_group with a timer
    };

    Departure() = default;
    /// @param leaves false for one that may stay, true for one that certainly leaves.
    explicit Departure(std::mt19937& random, bool leaves = false) {
        static constexpr Manner manners[] = {Manner::none,   Manner::none, Manner::none,
                                             Manner::slot,   Manner::slot, Manner::nagging,
                                             Manner::either, Manner::group};
        manner = manners[(leaves ? 3 + random() % 5 : random() % 8)];
        static constexpr asio::cancellation_type types[] = {
            asio::cancellation_type::total, asio::cancellation_type::partial,
            asio::cancellation_type::terminal, asio::cancellation_type::all};
        type = manner == Manner::either ? asio::cancellation_type::terminal : types[random() % 4];
        turns = random() % 2 == 0 ? static_cast<int>(random() % 12) : -1;
        after = Duration(random() % 2000);
    }

    bool leaves() const { return manner != Manner::none; }
    /// Whether a call that ends with operation_aborted has had no effect.
    bool asks_for_no_effect() const {
        return manner != Manner::none && type == asio::cancellation_type::total;
    }

    Manner manner = Manner::none;
    asio::cancellation_type type = asio::cancellation_type::none;
    int turns = -1;     ///< of the event loop, before it leaves; negative to leave by time
    Duration after{0};  ///< how long before it leaves
};

/// What became of a call that was left.
struct Attempt {
    Failure failure;
    int begun = 0;
    int ended = 0;
};

namespace detail {

inline asio::awaitable<void> attempt(asio::awaitable<void> call, std::shared_ptr<Attempt> result) {
    ++result->begun;
    result->failure = co_await failure_of(listening(std::move(call)));
    ++result->ended;
}

inline asio::awaitable<void> wait_to_leave(Departure departure) {
    if (departure.turns < 0) {
        co_await pause(departure.after);
    }
    for (int turn = 0; turn < departure.turns; ++turn) {
        auto next = asio::post(co_await asio::this_coro::executor, asio::deferred);
        co_await std::move(next);
    }
}

}  // namespace detail

/// Performs @p call and leaves it as @p departure says. @returns what became of it.
inline asio::awaitable<Attempt> leave(asio::awaitable<void> call, Departure departure) {
    using namespace asio::experimental::awaitable_operators;
    using Manner = Departure::Manner;
    const auto executor = co_await asio::this_coro::executor;
    auto result = std::make_shared<Attempt>();
    auto attempt = detail::attempt(std::move(call), result);
    switch (departure.manner) {
        case Manner::none:
            co_await std::move(attempt);
            break;
        case Manner::slot:
        case Manner::nagging: {
            auto running = start(executor, listening(std::move(attempt)));
            co_await detail::wait_to_leave(departure);
            if (departure.manner == Manner::nagging) {
                running.cancel(asio::cancellation_type::total);
                co_await detail::wait_to_leave(departure);
            }
            running.cancel(departure.type);
            co_await running.failure();
            break;
        }
        case Manner::either: {
            auto race = std::move(attempt) || detail::wait_to_leave(departure);
            co_await std::move(race);
            break;
        }
        case Manner::group: {
            auto race =
                asio::experimental::make_parallel_group(
                    asio::co_spawn(executor, listening(std::move(attempt)), asio::deferred),
                    asio::co_spawn(executor, detail::wait_to_leave(departure), asio::deferred))
                    .async_wait(asio::experimental::wait_for_one(departure.type), asio::deferred);
            co_await std::move(race);
            break;
        }
    }
    co_return *result;
}

}  // namespace psycache::test
