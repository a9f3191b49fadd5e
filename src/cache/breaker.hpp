#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include <psycache/options.hpp>

#include "failure.hpp"
#include "pool/backoff.hpp"

namespace psycache {

/// Spares callers the wait for a server that is away, where they are content with a miss
/// (`OnOutage::miss`): after some calls in a row have failed for an outage, further ones are
/// refused at once; from time to time one is let through, and its success ends the outage.
///
/// One per cache, shared by its threads. No I/O and no timer.
class Breaker : public std::enable_shared_from_this<Breaker> {
  public:
    using TimePoint = std::chrono::steady_clock::time_point;

    /// So many calls in a row, none of them with a success since it began, make an outage.
    static constexpr unsigned enough = 5;
    /// Pauses between the calls that are let through.
    static constexpr std::chrono::milliseconds shortest_pause{100};
    static constexpr std::chrono::milliseconds longest_pause{3000};

    class Pass;

    Breaker(unsigned seed, LogSink log);

    /// @returns whether the call may go on, and where it says how it ended.
    Pass admit(TimePoint now);

    /// @returns whether calls are refused.
    bool open() const noexcept { return open_.load(std::memory_order_relaxed); }

  private:
    void succeeded(bool was_probe) noexcept;
    void failed(const Failure& failure, std::uint64_t successes_before, bool was_probe,
                TimePoint now) noexcept;
    void probe_withdrawn() noexcept;
    void close() noexcept;
    void log(LogLevel level, std::string_view line) const noexcept;

    const LogSink log_;
    std::atomic<bool> open_{false};
    std::atomic<std::uint64_t> successes_{0};
    std::atomic<unsigned> failures_{0};  // in a row
    std::mutex mutex_;
    bool probing_ = false;
    Backoff pause_;
    std::optional<Failure> reason_;
};

/// One call's way past the breaker. It says how the call ended, or that nobody knows.
class Breaker::Pass {
  public:
    /// For a cache that has no breaker.
    Pass() = default;
    Pass(Pass&&) noexcept = default;
    Pass& operator=(Pass&&) = delete;
    ~Pass();

    /// @returns why the call must not go on, if it must not.
    const std::optional<Failure>& refusal() const noexcept { return refusal_; }
    void succeeded() noexcept;
    void failed(const Failure& failure) noexcept;

  private:
    friend class Breaker;

    std::shared_ptr<Breaker> breaker_;  // none once the end was told
    std::uint64_t successes_before_ = 0;
    bool probe_ = false;
    std::optional<Failure> refusal_;
};

}  // namespace psycache
