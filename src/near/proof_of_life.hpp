#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.hpp"

namespace psycache::detail {

/// What one notification of the table's triggers says.
struct Changes {
    bool all = false;                   ///< any entry may have been changed
    std::vector<std::uint64_t> hashes;  ///< else of which keys: see key_hash()
};

/// @param payload hashes in hexadecimal, with a space between each two; "*" for all. Whatever it is
/// not, may mean anything: all.
Changes read_changes(std::string_view payload);

/// Whether a connection that listens still hears. It sends a notification to itself: the server
/// delivers notifications in the order in which their transactions were committed, so one that
/// comes back proves that every change from before it was sent has been heard of.
class ProofOfLife {
  public:
    explicit ProofOfLife(std::chrono::steady_clock::duration max_staleness) noexcept
        : max_staleness_(max_staleness) {}

    /// One is about to be sent. @returns what it is to say.
    std::string begin(TimePoint now);
    /// A notification came back. @returns until when what is in memory may be served; nothing if it
    /// was none that was waited for.
    std::optional<TimePoint> heard(std::string_view payload);

    /// @returns when the next one is to be sent.
    TimePoint next() const noexcept { return sent_at_ + max_staleness_ / 4; }
    /// @returns when the last one has been waited for in vain.
    TimePoint too_late() const noexcept { return sent_at_ + max_staleness_; }
    bool outstanding() const noexcept { return outstanding_; }

  private:
    const std::chrono::steady_clock::duration max_staleness_;
    std::uint64_t number_ = 0;
    TimePoint sent_at_ = TimePoint::min();
    bool outstanding_ = false;
};

}  // namespace psycache::detail
