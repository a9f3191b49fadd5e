#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

#include "core/at_end.hpp"
#include "core/clock.hpp"

namespace psycache::detail {

namespace asio = boost::asio;

/// Waits for a coroutine of the application, to a deadline at most: then it is cancelled, and left
/// to itself. It runs where the caller does, which is a strand.
/// @returns what it returns, or throws what it throws; nothing if it took too long.
template <class T>
asio::awaitable<std::optional<T>> within(TimePoint deadline, asio::awaitable<T> job) {
    struct Ending {
        std::optional<T> value;
        std::exception_ptr thrown;
        bool came = false;
        asio::steady_timer* sleeper = nullptr;
        asio::cancellation_signal stop;
    };
    const asio::any_io_executor strand = co_await asio::this_coro::executor;
    asio::steady_timer sleeper(strand, deadline);
    const auto ending = std::make_shared<Ending>();
    ending->sleeper = &sleeper;
    const AtEnd leave([ending] { ending->sleeper = nullptr; });
    auto ended = [ending](std::exception_ptr thrown, T value) {
        ending->thrown = std::move(thrown);
        ending->value.emplace(std::move(value));
        ending->came = true;
        if (ending->sleeper != nullptr) {
            ending->sleeper->cancel();
        }
    };
    asio::co_spawn(strand, std::move(job),
                   asio::bind_cancellation_slot(ending->stop.slot(), std::move(ended)));
    if (!ending->came) {
        co_await sleeper.async_wait(asio::as_tuple(asio::use_awaitable));
    }
    if (!ending->came) {
        ending->stop.emit(asio::cancellation_type::terminal);
        co_return std::nullopt;
    }
    if (ending->thrown) {
        std::rethrow_exception(ending->thrown);
    }
    co_return std::move(ending->value);
}

}  // namespace psycache::detail
