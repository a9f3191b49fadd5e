#pragma once

#include <chrono>
#include <random>

namespace psycache::detail {

/// How long to wait before the next attempt at something that failed: doubles from a shortest to a
/// longest pause, the last half of it at random, so that many processes do not come back at the
/// same moment. Pure but for the dice.
class Backoff {
  public:
    using Clock = std::chrono::steady_clock;

    Backoff(unsigned seed, std::chrono::milliseconds shortest) : shortest_(shortest), dice_(seed) {}

    void succeeded() noexcept { failures_ = 0; }
    /// @param now     when the attempt failed.
    /// @param longest the longest pause after such a failure.
    void failed(Clock::time_point now, std::chrono::milliseconds longest);
    /// @returns the earliest moment for the next attempt; in the past if there is nothing to wait
    /// for.
    Clock::time_point next_attempt() const noexcept { return next_; }

  private:
    const std::chrono::milliseconds shortest_;
    unsigned failures_ = 0;
    Clock::time_point next_ = Clock::time_point::min();
    std::minstd_rand dice_;
};

}  // namespace psycache::detail
