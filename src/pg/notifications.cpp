// What a connection that listens is told.

#include <libpq-fe.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>

#include "pg/connection.hpp"
#include "pg/watch.hpp"

namespace psycache::detail::pg {

int Connection::session() const noexcept {
    return PQbackendPID(connection_);
}

asio::awaitable<bool> Connection::wait_for_input(TimePoint until) {
    const asio::any_io_executor strand = co_await asio::this_coro::executor;
    if (!descriptor_) {
        co_return false;  // the process had no file descriptor left
    }
    {
        Watch watch(strand);
        watch.arm(until, strand);
        const Watch::Guard<Descriptor> guard(watch, *descriptor_);
        co_await descriptor_->async_wait(Descriptor::wait_read,
                                         asio::as_tuple(asio::use_awaitable));
    }
    co_return PQconsumeInput(connection_) != 0 && reusable();
}

std::vector<Notification> Connection::take_notifications() {
    struct Free {
        void operator()(PGnotify* notification) const noexcept { PQfreemem(notification); }
    };
    std::vector<Notification> all;
    while (const std::unique_ptr<PGnotify, Free> next{PQnotifies(connection_)}) {
        all.push_back(Notification{next->relname, next->extra});
    }
    return all;
}

}  // namespace psycache::detail::pg
