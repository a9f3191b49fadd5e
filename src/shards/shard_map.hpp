#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace psycache::detail {

/// @returns the hash by which Citus finds the shard of a key: PostgreSQL's `hashtext`.
std::int32_t shard_hash(std::string_view key) noexcept;

/// Which keys of a distributed table lie together, and on which server. No I/O.
class ShardMap {
  public:
    /// Where a server listens, as the cluster calls it.
    struct Address {
        std::string host;
        std::string port;

        bool operator==(const Address&) const = default;
    };
    struct Shard {
        std::int32_t first = 0;  ///< of the hashes of its keys
        std::int32_t last = 0;
        std::optional<std::size_t> server;  ///< none: it has copies, or is where no call may go

        bool operator==(const Shard&) const = default;
    };

    /// Adds a shard. @param address none if calls must not go to where it is.
    void add(std::int32_t first, std::int32_t last, const std::optional<Address>& address);
    /// All have been added. Shards that overlap are none, as no key can be told to be in one.
    void seal();

    /// @returns the number of a key's shard; none if no shard has it.
    std::optional<std::size_t> find(std::string_view key) const noexcept;
    /// @returns a key of a server: any that lies there.
    std::optional<std::string> key_on(std::size_t server) const;

    const std::vector<Shard>& shards() const noexcept { return shards_; }
    const std::vector<Address>& servers() const noexcept { return servers_; }

    bool operator==(const ShardMap&) const = default;

  private:
    std::vector<Shard> shards_;  // by first
    std::vector<Address> servers_;
};

}  // namespace psycache::detail
