#pragma once

#include <boost/asio/awaitable.hpp>

#include <psycache/cache_pool.hpp>

#include "core/failure.hpp"
#include "core/observers.hpp"

namespace psycache::detail {

/// Borrows a connection from any pool, its own or an application's, and tells the observers how
/// long that took.
/// @returns the lease, which holds a connection, or why there is none.
asio::awaitable<Result<ConnectionLease>> borrow(AsyncCachePool& pool, const Observers& observers);

/// The same without waiting. @returns an empty lease where borrow() has to be asked.
ConnectionLease borrow_idle(AsyncCachePool& pool, const Observers& observers) noexcept;

/// The same for a thread that may be held up for as long as the pool likes.
/// @returns an empty lease where borrow() has to be asked, or why there is none.
Result<ConnectionLease> borrow_here(AsyncCachePool& pool, const Observers& observers);

}  // namespace psycache::detail
