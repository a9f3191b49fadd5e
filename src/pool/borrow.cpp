#include "pool/borrow.hpp"

#include <exception>

namespace psycache::detail {

namespace {

void tell_wait(const Observers& observers, const Stopwatch& stopwatch,
               const boost::system::error_code& error) {
    if (observers.empty()) {
        return;
    }
    ConnectionWait wait;
    wait.waited = stopwatch.elapsed();
    wait.error = error;
    observers.tell([&](CacheInstrumentation& provider) { provider.record_connection_wait(wait); });
}

}  // namespace

asio::awaitable<Result<ConnectionLease>> borrow(AsyncCachePool& pool, const Observers& observers) {
    const Stopwatch stopwatch(observers);
    ConnectionLease lease;
    std::exception_ptr refused;
    try {
        lease = co_await pool.connect();
    } catch (...) {
        refused = std::current_exception();
    }
    Failure failure;
    if (refused) {
        failure = lending_failure(refused);
    } else if (!lease) {
        failure =
            Failure(Errc::connect_failed, "cannot connect to the server: the pool lent nothing");
    }
    tell_wait(observers, stopwatch, failure.code);
    if (failure.code) {
        co_return failure;
    }
    co_return lease;
}

ConnectionLease borrow_idle(AsyncCachePool& pool, const Observers& observers) noexcept {
    const Stopwatch stopwatch(observers);
    ConnectionLease lease;
    try {
        lease = pool.try_connect();
    } catch (...) {
        // connect() will say why.
    }
    if (lease) {
        tell_wait(observers, stopwatch, boost::system::error_code());
    }
    return lease;
}

Result<ConnectionLease> borrow_here(AsyncCachePool& pool, const Observers& observers) {
    const Stopwatch stopwatch(observers);
    try {
        ConnectionLease lease = pool.try_connect();
        if (lease) {
            tell_wait(observers, stopwatch, boost::system::error_code());
        }
        return lease;
    } catch (...) {
        Failure failure = lending_failure(std::current_exception());
        tell_wait(observers, stopwatch, failure.code);
        return failure;
    }
}

}  // namespace psycache::detail
