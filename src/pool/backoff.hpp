#pragma once

#include <chrono>
#include <random>

namespace psycache {

/// How long to wait before the next attempt to connect: grows from 50 ms to 1 s, the last half of
/// it at random, so that many processes do not come back at the same moment. Pure but for the dice.
class Backoff {
  public:
    using Clock = std::chrono::steady_clock;

    static constexpr std::chrono::milliseconds shortest{50};
    static constexpr std::chrono::milliseconds longest{1000};

    explicit Backoff(unsigned seed) : dice_(seed) {}

    void succeeded() noexcept { failures_ = 0; }
    /// @param now when the attempt failed.
    void failed(Clock::time_point now);
    /// @returns the earliest moment for the next attempt; in the past if there is nothing to wait
    /// for.
    Clock::time_point next_attempt() const noexcept { return next_; }

  private:
    unsigned failures_ = 0;
    Clock::time_point next_ = Clock::time_point::min();
    std::minstd_rand dice_;
};

}  // namespace psycache
