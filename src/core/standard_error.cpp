#include "core/standard_error.hpp"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>

namespace psycache::detail {

bool LineLimiter::admit(std::string_view line, TimePoint now) noexcept {
    const std::size_t hash = std::hash<std::string_view>()(line);
    const std::lock_guard guard(mutex_);
    const auto same = std::find_if(written_.begin(), written_.end(), [&](const Written& other) {
        return other.hash == hash && other.again > now;
    });
    const auto free = std::find_if(written_.begin(), written_.end(),
                                   [&](const Written& other) { return other.again <= now; });
    if (same != written_.end() || free == written_.end()) {
        return false;
    }
    *free = Written{hash, now + pause};
    return true;
}

void log_to_standard_error(LogLevel level, std::string_view line) {
    // A thread may log while the process ends: it is never destroyed.
    static auto& limiter = *new LineLimiter;
    if (level < LogLevel::warning || !limiter.admit(line, std::chrono::steady_clock::now())) {
        return;
    }
    std::string text = level == LogLevel::warning ? "psycache: warning: " : "psycache: error: ";
    text.append(line).append("\n");
    // At once, lest lines of several threads get mixed.
    std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace psycache::detail
