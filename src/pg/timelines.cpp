#include "pg/timelines.hpp"

#include <charconv>

namespace psycache::detail::pg {

Origin read_origin(std::string_view system, std::string_view wal_file) noexcept {
    constexpr std::size_t digits = 8;  // of each of three numbers, the timeline first
    Origin origin;
    std::from_chars(system.data(), system.data() + system.size(), origin.system);
    if (wal_file.size() == 3 * digits) {
        const char* const end = wal_file.data() + digits;
        if (std::from_chars(wal_file.data(), end, origin.timeline, 16).ptr != end) {
            origin.timeline = 0;
        }
    }
    return origin;
}

bool Timelines::admit(const Origin& origin) {
    if (origin.system == 0 || origin.timeline == 0) {
        return true;
    }
    const std::lock_guard lock(mutex_);
    std::uint32_t& newest = newest_[origin.system];
    if (origin.timeline < newest) {
        return false;
    }
    newest = origin.timeline;
    return true;
}

bool Timelines::is_behind(const Origin& origin) const noexcept {
    return origin.timeline != 0 && origin.timeline < newest(origin.system);
}

std::uint32_t Timelines::newest(std::int64_t system) const noexcept {
    const std::lock_guard lock(mutex_);
    const auto found = newest_.find(system);
    return found == newest_.end() ? 0 : found->second;
}

}  // namespace psycache::detail::pg
