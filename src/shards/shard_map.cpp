#include "shards/shard_map.hpp"

#include <algorithm>

#include "core/key_hash.hpp"

namespace psycache::detail {

std::int32_t shard_hash(std::string_view key) noexcept {
    // The lower half of the extended hash is the plain one.
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(key_hash(key)));
}

void ShardMap::add(std::int32_t first, std::int32_t last, const std::optional<Address>& address) {
    Shard shard{first, last, std::nullopt};
    if (address) {
        const auto known = std::find(servers_.begin(), servers_.end(), *address);
        shard.server = static_cast<std::size_t>(known - servers_.begin());
        if (known == servers_.end()) {
            servers_.push_back(*address);
        }
    }
    shards_.push_back(shard);
}

void ShardMap::seal() {
    std::sort(shards_.begin(), shards_.end(),
              [](const Shard& a, const Shard& b) { return a.first < b.first; });
    for (std::size_t i = 0; i < shards_.size(); ++i) {
        const bool backwards = shards_[i].last < shards_[i].first;
        if (backwards || (i > 0 && shards_[i].first <= shards_[i - 1].last)) {
            shards_.clear();
            servers_.clear();
        }
    }
}

std::optional<std::size_t> ShardMap::find(std::string_view key) const noexcept {
    const std::int32_t hash = shard_hash(key);
    const auto behind =
        std::upper_bound(shards_.begin(), shards_.end(), hash,
                         [](std::int32_t its, const Shard& shard) { return its < shard.first; });
    if (behind == shards_.begin() || std::prev(behind)->last < hash) {
        return std::nullopt;
    }
    return static_cast<std::size_t>(std::prev(behind) - shards_.begin());
}

std::optional<std::string> ShardMap::key_on(std::size_t server) const {
    // With a share of one in a thousand of the hashes, one of so many keys is as good as certain.
    constexpr int most = 20'000;
    for (int i = 0; i < most; ++i) {
        std::string key = std::to_string(i);
        const auto shard = find(key);
        if (shard && shards_[*shard].server == server) {
            return key;
        }
    }
    return std::nullopt;
}

}  // namespace psycache::detail
