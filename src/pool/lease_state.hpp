#pragma once

#include <memory>

#include <psycache/cache_pool.hpp>

#include "pg/connection.hpp"

namespace psycache::detail {

/// What stands behind a ConnectionLease; destroying it gives the connection back.
class LeaseState {
  public:
    explicit LeaseState(std::unique_ptr<pg::Connection> connection)
        : connection_(std::move(connection)) {}
    LeaseState(const LeaseState&) = delete;
    LeaseState& operator=(const LeaseState&) = delete;
    virtual ~LeaseState() = default;

    pg::Connection& connection() const noexcept { return *connection_; }

  protected:
    std::unique_ptr<pg::Connection> connection_;
};

}  // namespace psycache::detail
