#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include <psycache/options.hpp>

#include "core/backoff.hpp"
#include "core/failure.hpp"

namespace psycache::detail {

/// Spares callers the wait for a server that is away, where they are content with a miss
/// (`OnOutage::miss`): after some calls in a row have failed for an outage, further ones are
/// refused at once; from time to time one is let through, and its success ends the outage.
///
/// A server that takes no writes answers gets: it refuses writes only, and what it says about them
/// is counted apart.
///
/// One per cache, shared by its threads. No I/O and no timer.
class Breaker : public std::enable_shared_from_this<Breaker> {
  public:
    using TimePoint = std::chrono::steady_clock::time_point;

    /// So many calls in a row, none of them with a success since it began, make an outage; so many
    /// writes in a row, a server that takes none.
    static constexpr unsigned enough = 5;
    /// Pauses between the calls that are let through.
    static constexpr std::chrono::milliseconds shortest_pause{100};
    static constexpr std::chrono::milliseconds longest_pause{3000};

    class Pass;

    Breaker(unsigned seed, LogSink log);

    /// @returns whether the call may go on, and where it says how it ended.
    Pass admit(TimePoint now, bool writes);

    /// @returns whether calls are refused, be it only writes.
    bool open() const noexcept { return all_.open || writes_.open; }

  private:
    /// One reason to refuse calls.
    struct Circuit {
        Circuit(unsigned seed, const char* opens, const char* closes)
            : pause(seed, shortest_pause), opened(opens), closed(closes) {}

        bool refuses(TimePoint now) const noexcept {
            return open && (probing || now < pause.next_attempt());
        }

        std::atomic<bool> open{false};
        std::atomic<unsigned> failures{0};  // in a row
        bool probing = false;
        Backoff pause;
        std::optional<Failure> reason;
        const char* const opened;  // for the log
        const char* const closed;
    };

    void succeeded(Circuit& circuit, bool was_probe) noexcept;
    void failed(Circuit& circuit, const Failure& failure, bool was_probe, TimePoint now) noexcept;
    void withdrawn(Circuit& circuit, bool was_probe) noexcept;
    void log(LogLevel level, std::string_view line) const noexcept;

    const LogSink log_;
    std::atomic<std::uint64_t> successes_{0};
    std::mutex mutex_;
    Circuit all_;
    Circuit writes_;
};

/// One call's way past the breaker. It says how the call ended, or that this is not known.
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

    void withdraw() noexcept;

    std::shared_ptr<Breaker> breaker_;  // none once the end was told
    std::uint64_t successes_before_ = 0;
    bool writes_ = false;
    bool probe_ = false;        // of a server that is away
    bool probe_write_ = false;  // of one that takes no writes
    std::optional<Failure> refusal_;
};

}  // namespace psycache::detail
