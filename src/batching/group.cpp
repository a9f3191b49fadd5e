#include "batching/group.hpp"

#include <algorithm>
#include <numeric>

namespace psycache::detail {

Group::Group(CallSpan calls, bool one_server) : calls_(calls), one_server_(one_server) {
    if (lone()) {
        order_.push_back(0);
        runs_.push_back(Run{0, 1});
        return;
    }
    order_.resize(calls_.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::stable_sort(order_.begin(), order_.end(),
                     [&](std::size_t a, std::size_t b) { return calls_[a]->key < calls_[b]->key; });
    for (std::size_t i = 0; i < order_.size(); ++i) {
        if (i == 0 || at(i).key != at(i - 1).key) {
            runs_.push_back(Run{i, i});
        }
        runs_.back().end = i + 1;
    }
}

std::optional<std::size_t> Group::find(std::string_view key) const noexcept {
    const auto run = std::lower_bound(
        runs_.begin(), runs_.end(), key,
        [&](const Run& r, std::string_view k) { return std::string_view(at(r.begin).key) < k; });
    if (run == runs_.end() || at(run->begin).key != key) {
        return std::nullopt;
    }
    return static_cast<std::size_t>(run - runs_.begin());
}

}  // namespace psycache::detail
