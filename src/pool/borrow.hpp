#pragma once

#include <boost/asio/awaitable.hpp>

#include <psycache/cache_pool.hpp>

#include "failure.hpp"
#include "observers.hpp"

namespace psycache::detail {

/// Borrows a connection from any pool, its own or an application's, and tells the observers how
/// long that took.
/// @returns the lease, which holds a connection, or why there is none.
asio::awaitable<Result<ConnectionLease>> borrow(AsyncCachePool& pool, const Observers& observers);

/// The same without waiting. @returns an empty lease where borrow() has to be asked.
ConnectionLease borrow_idle(AsyncCachePool& pool, const Observers& observers) noexcept;

}  // namespace psycache::detail
