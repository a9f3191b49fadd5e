#pragma once

#include <memory>

#include "core/backoff.hpp"
#include "core/clock.hpp"
#include "core/failure.hpp"

namespace psycache::detail {

/// What is known of a server from the attempts to connect to it: whether the last one failed, and
/// when the next one may be made. Not safe for several threads; no clock.
class Attempts {
  public:
    explicit Attempts(unsigned seed);

    void succeeded() noexcept;
    /// @param began when the attempt began: of several that failed side by side only one makes the
    ///              pause longer.
    void failed(TimePoint began, const Failure& failure, TimePoint now);

    /// @returns why the last attempt failed; nothing if it did not.
    const std::shared_ptr<const Failure>& failure() const noexcept { return failure_; }
    /// @returns the earliest moment for the next attempt; in the past if there is nothing to wait
    /// for.
    TimePoint next() const noexcept { return backoff_.next_attempt(); }
    /// @returns whether the last attempt failed so that waiting for the next one is in vain: the
    /// set-up has to change first, and the server is not asked before the pause is over.
    bool waiting_is_in_vain(TimePoint now) const noexcept;

  private:
    Backoff backoff_;
    std::shared_ptr<const Failure> failure_;
    TimePoint failed_at_ = TimePoint::min();
    bool wrong_setup_ = false;
};

}  // namespace psycache::detail
