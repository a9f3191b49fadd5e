#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <psycache/connection_pool.hpp>

#include "cache/cache_core.hpp"
#include "pool/borrow.hpp"

namespace psycache::detail {

Failure drained_failure() {
    return {Errc::pool_closed, "the cache has been drained and takes no more calls"};
}

asio::awaitable<void> warm_up(CacheCore::Self core) {
    if (core->near) {
        core->near->listen();
    }
    if (core->own_pool) {
        auto warming = core->own_pool->warm_up();
        co_await std::move(warming);
        co_return;
    }
    auto borrowing = borrow(*core->pool, *core->observers);
    const Result<ConnectionLease> lease = co_await std::move(borrowing);
    if (!lease) {
        throw to_error("warm_up", lease.error());
    }
}

asio::awaitable<bool> drain(CacheCore::Self core, Duration patience) {
    constexpr std::chrono::milliseconds between_looks{2};
    const TimePoint until = Clock::now() + patience;
    asio::steady_timer pause(co_await asio::this_coro::executor);
    bool ended = core->drain();
    if (core->near) {
        core->near->stop();
    }
    while (!ended && Clock::now() < until) {
        pause.expires_after(between_looks);
        co_await pause.async_wait(asio::use_awaitable);
        ended = core->drain();
    }
    if (core->own_pool) {
        core->own_pool->close();
    }
    co_return ended;
}

}  // namespace psycache::detail
