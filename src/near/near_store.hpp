#pragma once

#include <atomic>
#include <boost/json/value.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <typeinfo>

#include "core/clock.hpp"

namespace psycache::detail {

/// The entries that a process keeps in its own memory, as many as fit. Safe for several threads;
/// readers do not wait for each other.
///
/// SIEVE decides what makes room for new entries: a reader only marks what it has found, so that it
/// changes nothing that readers share, and what is read once does not drive out what is read often.
class NearStore {
  public:
    /// It uses the default memory resource, and make_shared made it: its memory is reckoned so.
    using Value = std::shared_ptr<const boost::json::value>;

    /// What an application has made of a value, to be kept beside it.
    struct Object {
        std::shared_ptr<const void> object;  ///< null: none
        const std::type_info* type;          ///< whose address stays as it is
        std::size_t size;                    ///< that of the type itself
    };

    /// With neither a value nor an object it is a miss.
    struct Found {
        Value value;
        std::shared_ptr<const void>
            object;         ///< of the type that was wanted; then there is no value
        TimePoint expires;  ///< when its row ends at the latest; max() for none
    };

    /// What a look-up must have before it is sent: it forbids storing an answer older than a
    /// change.
    struct Mark {
        std::uint64_t hash;
        std::uint64_t generation;
        std::uint64_t changes;
    };

    struct Statistics {
        std::uint64_t hits;
        std::uint64_t misses;
        std::uint64_t evictions;      ///< entries that made room
        std::uint64_t invalidations;  ///< entries that were forgotten
        std::size_t bytes;            ///< of the heap, for all entries and their index
        std::size_t entries;          ///< also those that have expired and were not yet replaced
    };

    /// @param max_bytes for what Statistics::bytes counts. Some KiB per shard come on top.
    explicit NearStore(std::size_t max_bytes);
    NearStore(const NearStore&) = delete;
    NearStore& operator=(const NearStore&) = delete;
    ~NearStore();

    /// Counts a hit or a miss. Does not find what has passed its `expires` or `usable_until`.
    /// @param wanted the type of the object that would do instead of the value; may be null.
    Found find(std::string_view key, TimePoint now,
               const std::type_info* wanted = nullptr) noexcept;

    Mark mark(std::string_view key) const noexcept;

    /// Stores a value, in place of the one that the key has.
    /// @param value  not null.
    /// @param object reckoned to take as much as the value does.
    /// @returns whether it was stored. It is not if the key was forgotten since the mark (or
    /// another one with which it shares a counter), or if it takes more than half of its shard;
    /// then the value that it was to replace is dropped.
    /// @throws std::bad_alloc; then nothing has changed.
    bool fill(const Mark& mark, std::string_view key, Value value, TimePoint expires,
              TimePoint usable_until, Object object = {});

    /// Keeps an object beside a value that was found, in place of the one that is there, if the
    /// entry still has that value and there is room.
    void keep_object(std::string_view key, const Value& value, Object object) noexcept;

    /// Drops the entry of a key with this hash and voids its marks.
    void forget(std::uint64_t hash) noexcept;

    /// Drops everything and voids all marks.
    void forget_all() noexcept;

    Statistics statistics() const noexcept;

  private:
    struct Node;
    struct Garbage;
    class Shard;

    Shard& shard_of(std::uint64_t hash) const noexcept;

    const std::size_t shard_count_;  // a power of two
    const std::unique_ptr<Shard[]> shards_;
    std::atomic<std::uint64_t> generation_{0};
};

}  // namespace psycache::detail
