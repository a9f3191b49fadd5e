#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>

namespace psycache::detail {

/// How many keys of a call a span shows: enough to tell what is asked for, and little beside what
/// else is sent.
inline constexpr std::size_t most_shown_keys = 20;

/// The keys of a call that its span shows.
struct ShownKeys {
    std::span<const std::string_view> keys;
    std::size_t more = 0;  ///< how many are not shown, though keys are wanted
};

/// @param wanted whether any key may be shown.
inline ShownKeys shown_keys(std::span<const std::string_view> keys, bool wanted) noexcept {
    if (!wanted) {
        return {};
    }
    const std::size_t shown = std::min(keys.size(), most_shown_keys);
    return {keys.first(shown), keys.size() - shown};
}

}  // namespace psycache::detail
