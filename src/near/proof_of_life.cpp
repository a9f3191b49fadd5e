#include "near/proof_of_life.hpp"

#include <charconv>

namespace psycache::detail {

Changes read_changes(std::string_view payload) {
    constexpr std::size_t longest = 16;
    Changes changes;
    while (!payload.empty()) {
        const std::string_view word = payload.substr(0, payload.find(' '));
        std::uint64_t hash = 0;
        const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), hash, 16);
        if (word.size() > longest || error != std::errc() || end != word.data() + word.size()) {
            changes.hashes.clear();
            break;
        }
        changes.hashes.push_back(hash);
        payload.remove_prefix(std::min(payload.size(), word.size() + 1));
    }
    changes.all = changes.hashes.empty();
    return changes;
}

std::string ProofOfLife::begin(TimePoint now) {
    sent_at_ = now;
    outstanding_ = true;
    return std::to_string(++number_);
}

std::optional<TimePoint> ProofOfLife::heard(std::string_view payload) {
    if (!outstanding_ || payload != std::to_string(number_)) {
        return std::nullopt;
    }
    outstanding_ = false;
    return sent_at_ + max_staleness_;
}

}  // namespace psycache::detail
