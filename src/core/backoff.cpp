#include "core/backoff.hpp"

#include <algorithm>

namespace psycache::detail {

void Backoff::failed(Clock::time_point now, std::chrono::milliseconds longest) {
    const unsigned doublings = std::min(failures_, 10u);
    ++failures_;
    const auto whole = std::min(shortest_ * (1u << doublings), longest);
    std::uniform_int_distribution<std::chrono::milliseconds::rep> half(0, whole.count() / 2);
    next_ = now + whole / 2 + std::chrono::milliseconds(half(dice_));
}

}  // namespace psycache::detail
