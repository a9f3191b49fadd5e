#include "pool/borrow.hpp"

#include <exception>

namespace psycache::detail {

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
        failure = to_failure(refused, Errc::connect_failed);
    } else if (!lease) {
        failure =
            Failure(Errc::connect_failed, "cannot connect to the server: the pool lent nothing");
    }
    if (!observers.empty()) {
        ConnectionWait wait;
        wait.waited = stopwatch.elapsed();
        wait.error = failure.code;
        observers.tell(
            [&](CacheInstrumentation& provider) { provider.record_connection_wait(wait); });
    }
    if (failure.code) {
        co_return failure;
    }
    co_return lease;
}

}  // namespace psycache::detail
