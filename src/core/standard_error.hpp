#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <mutex>
#include <string_view>

#include <psycache/options.hpp>

namespace psycache::detail {

/// Lets the same line pass once a minute, and no more than so many different ones: a failure that
/// repeats for ever is heard of without flooding what it is written to.
class LineLimiter {
  public:
    using TimePoint = std::chrono::steady_clock::time_point;

    static constexpr std::chrono::minutes pause{1};
    static constexpr std::size_t most_lines = 64;

    /// @returns whether the line may be written now.
    bool admit(std::string_view line, TimePoint now) noexcept;

  private:
    struct Written {
        std::size_t hash = 0;
        TimePoint again = TimePoint::min();
    };

    std::mutex mutex_;
    std::array<Written, most_lines> written_;
};

/// The log of who has named none: warnings and errors on standard error, limited for the process as
/// a whole.
void log_to_standard_error(LogLevel level, std::string_view line);

}  // namespace psycache::detail
