#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <memory>

#include "cache/table_job.hpp"

namespace psycache::detail {

/// A part of a cleanup: deletes live entries until the table is as large as CacheOptions allow, by
/// the server's estimates.
/// @param patience for each statement.
/// @returns how many were deleted.
asio::awaitable<Result<std::uint64_t>> evict_excess(const CacheCore& core,
                                                    std::shared_ptr<TableJob> job,
                                                    Duration patience);

}  // namespace psycache::detail
