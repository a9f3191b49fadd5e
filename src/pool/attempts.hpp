#pragma once

#include <chrono>
#include <memory>

#include "failure.hpp"
#include "pool/backoff.hpp"

namespace psycache::detail {

/// What is known of a server from the attempts to connect to it: whether the last one failed, and
/// when the next one may be made. Not safe for several threads.
class Attempts {
  public:
    using Clock = Backoff::Clock;

    explicit Attempts(unsigned seed);

    void succeeded() noexcept;
    /// @param began when the attempt began: of several that failed side by side only one makes the
    ///              pause longer.
    void failed(Clock::time_point began, const Failure& failure);

    /// @returns why the last attempt failed; nothing if it did not.
    const std::shared_ptr<const Failure>& failure() const noexcept { return failure_; }
    /// @returns the earliest moment for the next attempt; in the past if there is nothing to wait
    /// for.
    Clock::time_point next() const noexcept { return backoff_.next_attempt(); }
    /// @returns whether the last attempt failed so that waiting for the next one is in vain: the
    /// set-up has to change first, and nobody asks for it before the pause is over.
    bool hopeless() const noexcept;

  private:
    Backoff backoff_;
    std::shared_ptr<const Failure> failure_;
    Clock::time_point failed_at_ = Clock::time_point::min();
    bool hopeless_ = false;
};

}  // namespace psycache::detail
