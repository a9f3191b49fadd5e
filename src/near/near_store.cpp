#include "near/near_store.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include "core/key_hash.hpp"
#include "near/reader_slot.hpp"
#include "values/json_memory.hpp"

namespace psycache::detail {

namespace {

constexpr std::size_t max_shards = 16;
constexpr std::size_t min_shard_bytes = std::size_t{256} << 10;

std::size_t shards_for(std::size_t max_bytes) noexcept {
    return std::bit_floor(std::clamp<std::size_t>(max_bytes / min_shard_bytes, 1, max_shards));
}

// The index of a shard places an entry by the highest bits of its hash and tells it apart by the
// lowest eight, so shards and stripes go by others.
std::size_t bits_for_shard(std::uint64_t hash) noexcept {
    return static_cast<std::size_t>(hash >> 8);
}

/// Counts of changes: keys that share a stripe void each other's marks.
constexpr std::size_t stripes = 64;
std::size_t stripe_of(std::uint64_t hash) noexcept {
    return static_cast<std::size_t>(hash >> 12) % stripes;
}

struct IdentityHash {
    using is_avalanching = void;
    std::size_t operator()(std::uint64_t hash) const noexcept {
        return static_cast<std::size_t>(hash);
    }
};

}  // namespace

/// An entry. Its key follows it in the same block of memory.
struct NearStore::Node {
    std::uint64_t hash;
    std::size_t bytes;
    Node* older = nullptr;
    Node* newer = nullptr;
    // What readers look at lies side by side, as the key does.
    TimePoint ends;
    TimePoint expires;
    Value value;
    Object object;
    std::size_t key_size;
    std::atomic<bool> visited{false};

    struct Delete {
        void operator()(Node* node) const noexcept {
            node->~Node();
            ::operator delete(node);
        }
    };
    using Owner = std::unique_ptr<Node, Delete>;

    static Owner make(std::uint64_t hash, std::string_view key, Value value, Object object,
                      TimePoint expires, TimePoint usable_until, std::size_t bytes) {
        void* memory = ::operator new(sizeof(Node) + key.size());
        auto* node = new (memory) Node{.hash = hash,
                                       .bytes = bytes,
                                       .ends = std::min(expires, usable_until),
                                       .expires = expires,
                                       .value = std::move(value),
                                       .object = std::move(object),
                                       .key_size = key.size()};
        key.copy(node->key_bytes(), key.size());
        return Owner(node);
    }

    static std::size_t bytes_for(std::string_view key, const boost::json::value& value,
                                 const Object& object) noexcept {
        constexpr std::size_t counted = 2 * sizeof(void*);
        const std::size_t heap = heap_bytes(value);
        const std::size_t made = object.object ? malloc_bytes(object.size + counted) + heap : 0;
        return malloc_bytes(sizeof(Node) + key.size()) + malloc_bytes(sizeof(value) + counted) +
               heap + made;
    }

    char* key_bytes() noexcept { return static_cast<char*>(static_cast<void*>(this + 1)); }
    std::string_view key() noexcept { return {key_bytes(), key_size}; }
};

/// Entries that were taken out, by their `newer`, and are destroyed when no lock is held.
struct NearStore::Garbage {
    Node* first = nullptr;

    Garbage() = default;
    Garbage(const Garbage&) = delete;
    Garbage& operator=(const Garbage&) = delete;
    ~Garbage() {
        while (first != nullptr) {
            Node::Delete()(std::exchange(first, first->newer));
        }
    }

    void add(Node* node) noexcept {
        node->newer = first;
        first = node;
    }
};

/// A part of the entries. Writers take its mutex; what readers see they change while they hold all
/// of the readers' slots too, which is kept short: they choose what to evict, and make a larger
/// index, beside the readers.
class NearStore::Shard {
  public:
    void set_budget(std::size_t bytes) noexcept { budget_ = bytes; }
    bool fits(std::size_t bytes) const noexcept { return bytes <= budget_ / 2; }

    Found find(std::uint64_t hash, std::string_view key, TimePoint now,
               const std::type_info* wanted) noexcept {
        Found found{};
        ReaderSlot& slot = slots_[slot_of_this_thread()];
        const std::lock_guard lock(slot);
        const auto place = index_.find(hash);
        if (place != index_.end()) {
            Node& node = *place->second;
            if (node.ends > now && node.key() == key) {
                // Most are marked already, and then their cache line stays shared.
                if (!node.visited.load(std::memory_order_relaxed)) {
                    node.visited.store(true, std::memory_order_relaxed);
                }
                if (wanted != nullptr && node.object.type != nullptr &&
                    *node.object.type == *wanted) {
                    found.object = node.object.object;
                } else {
                    found.value = node.value;
                }
                found.expires = node.expires;
                increment(slot.hits);
                return found;
            }
        }
        increment(slot.misses);
        return found;
    }

    std::uint64_t changes(std::uint64_t hash) const noexcept {
        return changes_[stripe_of(hash)].load(std::memory_order_acquire);
    }

    bool fill(const Mark& mark, const std::atomic<std::uint64_t>& generation, Node::Owner node) {
        Garbage garbage;
        Index replaced;
        const std::lock_guard lock(mutex_);
        // forget_all() counts before it comes to this shard: what it does not void, it drops.
        if (generation.load(std::memory_order_acquire) != mark.generation ||
            changes(mark.hash) != mark.changes) {
            return false;
        }
        if (!node) {
            drop(mark.hash, garbage);
            return false;
        }
        store(node, replaced, garbage);
        return true;
    }

    /// @param bytes what the entry takes with the object.
    void keep_object(std::uint64_t hash, const Value& value, Object object,
                     std::size_t bytes) noexcept {
        Garbage garbage;
        Garbage evicted;
        const std::lock_guard lock(mutex_);
        const auto place = index_.find(hash);
        if (place == index_.end() || place->second->value != value || !fits(bytes)) {
            return;
        }
        Node* const node = place->second;
        bytes_ = bytes_ - node->bytes + bytes;
        node->bytes = bytes;
        make_room(node, index_bytes(index_), evicted);
        const AllReaders readers(*this);
        std::swap(node->object, object);
        erase(evicted, index_);
    }

    void forget(std::uint64_t hash) noexcept {
        Garbage garbage;
        const std::lock_guard lock(mutex_);
        changes_[stripe_of(hash)].fetch_add(1, std::memory_order_release);
        if (drop(hash, garbage)) {
            ++invalidations_;
        }
    }

    void forget_all() noexcept {
        Garbage garbage;
        Index forgotten;
        const std::lock_guard lock(mutex_);
        {
            const AllReaders readers(*this);
            index_.swap(forgotten);
        }
        invalidations_ += forgotten.size();
        garbage.first = std::exchange(oldest_, nullptr);
        newest_ = nullptr;
        hand_ = nullptr;
        bytes_ = 0;
    }

    void add_to(Statistics& sum) const noexcept {
        for (const ReaderSlot& slot : slots_) {
            sum.hits += slot.hits.load(std::memory_order_relaxed);
            sum.misses += slot.misses.load(std::memory_order_relaxed);
        }
        const std::lock_guard lock(mutex_);
        sum.evictions += evictions_;
        sum.invalidations += invalidations_;
        sum.bytes += bytes_ + index_bytes(index_);
        sum.entries += index_.size();
    }

    Shard() = default;
    Shard(const Shard&) = delete;
    Shard& operator=(const Shard&) = delete;
    ~Shard() {
        Garbage garbage;
        garbage.first = oldest_;
    }

  private:
    using Index = boost::unordered_flat_map<std::uint64_t, Node*, IdentityHash>;

    class AllReaders {
      public:
        explicit AllReaders(Shard& shard) noexcept : shard_(shard) {
            for (ReaderSlot& slot : shard_.slots_) {
                slot.lock();
            }
        }
        AllReaders(const AllReaders&) = delete;
        AllReaders& operator=(const AllReaders&) = delete;
        ~AllReaders() {
            for (ReaderSlot& slot : shard_.slots_) {
                slot.unlock();
            }
        }

      private:
        Shard& shard_;
    };

    /// Of its one array: a byte for each place besides what is in it, and some for alignment.
    static std::size_t index_bytes(const Index& index) noexcept {
        return index.bucket_count() * (sizeof(Index::value_type) + 2);
    }

    /// Whether another entry needs a new index. It takes fewer entries with the time, as places
    /// that were once full do not count as free; and one that had many small entries is in the way
    /// of large ones.
    bool wants_new_index(bool one_more) const noexcept {
        return (one_more && index_.size() >= index_.max_load()) ||
               (index_.size() + 1) * 5 < index_.bucket_count();
    }

    /// @param owner keeps the node if this throws: it is not destroyed under the lock.
    void store(Node::Owner& owner, Index& other, Garbage& garbage) {
        Node* node = owner.get();
        const auto place = index_.find(node->hash);
        Node* old = place == index_.end() ? nullptr : place->second;
        const bool renews_index = wants_new_index(old == nullptr);
        if (renews_index) {
            // The last thing that throws. Room to spare, so that the next one is not needed soon.
            const std::size_t entries = index_.size() + 1;
            other.reserve(entries + entries / 8);
        }
        owner.release();

        Garbage evicted;
        bytes_ += node->bytes;
        if (old != nullptr) {
            replace(old, node);
            node->visited.store(true, std::memory_order_relaxed);
        }
        make_room(node, index_bytes(renews_index ? other : index_), evicted);
        if (old == nullptr) {
            append(node);
        }

        // What is new goes first: erasing takes from the room that there is without allocating.
        const auto change = [&](Index& index) {
            index[node->hash] = node;
            erase(evicted, index);
        };
        if (renews_index) {
            other.insert(index_.begin(), index_.end());
            change(other);
            const AllReaders readers(*this);
            index_.swap(other);
        } else {
            const AllReaders readers(*this);
            change(index_);
        }
        if (old != nullptr) {
            garbage.add(old);
        }
        while (evicted.first != nullptr) {
            garbage.add(std::exchange(evicted.first, evicted.first->newer));
        }
    }

    bool drop(std::uint64_t hash, Garbage& garbage) noexcept {
        const auto place = index_.find(hash);
        if (place == index_.end()) {
            return false;
        }
        Node* node = place->second;
        {
            const AllReaders readers(*this);
            index_.erase(place);
        }
        unlink(node);
        garbage.add(node);
        return true;
    }

    /// Takes entries from the list until the others fit.
    void make_room(const Node* spared, std::size_t index_bytes, Garbage& evicted) noexcept {
        while (bytes_ + index_bytes > budget_) {
            Node* const victim = evict(spared);
            if (victim == nullptr) {
                return;
            }
            evicted.add(victim);
        }
    }

    static void erase(const Garbage& evicted, Index& index) noexcept {
        for (const Node* victim = evicted.first; victim != nullptr; victim = victim->newer) {
            index.erase(victim->hash);
        }
    }

    /// Takes the next entry by SIEVE from the list. @returns null where @p spared is the only one.
    Node* evict(const Node* spared) noexcept {
        // Readers go on marking meanwhile, which must not keep this one busy.
        std::size_t patience = 2 * index_.size() + 2;
        Node* node = hand_;
        for (; patience > 0; --patience) {
            if (node == nullptr) {
                node = oldest_;
            }
            if (node == nullptr) {
                return nullptr;
            }
            if (node != spared && !node->visited.load(std::memory_order_relaxed)) {
                break;
            }
            node->visited.store(false, std::memory_order_relaxed);
            node = node->newer;
        }
        if (node == nullptr) {
            node = oldest_;
        }
        if (node == spared) {
            node = node->newer != nullptr ? node->newer : oldest_;
        }
        if (node == spared) {
            return nullptr;
        }
        hand_ = node;
        unlink(node);
        ++evictions_;
        return node;
    }

    void append(Node* node) noexcept {
        node->older = newest_;
        (newest_ != nullptr ? newest_->newer : oldest_) = node;
        newest_ = node;
    }

    void unlink(Node* node) noexcept {
        (node->older != nullptr ? node->older->newer : oldest_) = node->newer;
        (node->newer != nullptr ? node->newer->older : newest_) = node->older;
        if (hand_ == node) {
            hand_ = node->newer;
        }
        bytes_ -= node->bytes;
    }

    void replace(Node* old, Node* node) noexcept {
        node->older = old->older;
        node->newer = old->newer;
        (node->older != nullptr ? node->older->newer : oldest_) = node;
        (node->newer != nullptr ? node->newer->older : newest_) = node;
        if (hand_ == old) {
            hand_ = node;
        }
        bytes_ -= old->bytes;
    }

    // What readers see.
    Index index_;
    std::array<ReaderSlot, reader_slots> slots_;

    mutable std::mutex mutex_;
    std::array<Count, stripes> changes_{};
    std::size_t budget_ = 0;
    std::size_t bytes_ = 0;  // of the entries, without the index
    std::uint64_t evictions_ = 0;
    std::uint64_t invalidations_ = 0;
    Node* oldest_ = nullptr;
    Node* newest_ = nullptr;
    Node* hand_ = nullptr;  // null: at the oldest
};

NearStore::NearStore(std::size_t max_bytes)
    : shard_count_(shards_for(max_bytes)), shards_(std::make_unique<Shard[]>(shard_count_)) {
    for (std::size_t i = 0; i < shard_count_; ++i) {
        shards_[i].set_budget(max_bytes / shard_count_);
    }
}

NearStore::~NearStore() = default;

NearStore::Shard& NearStore::shard_of(std::uint64_t hash) const noexcept {
    return shards_[bits_for_shard(hash) & (shard_count_ - 1)];
}

NearStore::Found NearStore::find(std::string_view key, TimePoint now,
                                 const std::type_info* wanted) noexcept {
    const std::uint64_t hash = key_hash(key);
    return shard_of(hash).find(hash, key, now, wanted);
}

NearStore::Mark NearStore::mark(std::string_view key) const noexcept {
    const std::uint64_t hash = key_hash(key);
    return {hash, generation_.load(std::memory_order_acquire), shard_of(hash).changes(hash)};
}

bool NearStore::fill(const Mark& mark, std::string_view key, Value value, TimePoint expires,
                     TimePoint usable_until, Object object) {
    Shard& shard = shard_of(mark.hash);
    std::size_t bytes = Node::bytes_for(key, *value, object);
    if (!shard.fits(bytes)) {
        object = Object();
        bytes = Node::bytes_for(key, *value, object);
    }
    Node::Owner node;
    if (shard.fits(bytes)) {
        node = Node::make(mark.hash, key, std::move(value), std::move(object), expires,
                          usable_until, bytes);
    }
    return shard.fill(mark, generation_, std::move(node));
}

void NearStore::keep_object(std::string_view key, const Value& value, Object object) noexcept {
    const std::uint64_t hash = key_hash(key);
    const std::size_t bytes = Node::bytes_for(key, *value, object);
    shard_of(hash).keep_object(hash, value, std::move(object), bytes);
}

void NearStore::forget(std::uint64_t hash) noexcept {
    shard_of(hash).forget(hash);
}

void NearStore::forget_all() noexcept {
    generation_.fetch_add(1, std::memory_order_acq_rel);
    for (std::size_t i = 0; i < shard_count_; ++i) {
        shards_[i].forget_all();
    }
}

NearStore::Statistics NearStore::statistics() const noexcept {
    Statistics sum{};
    for (std::size_t i = 0; i < shard_count_; ++i) {
        shards_[i].add_to(sum);
    }
    return sum;
}

}  // namespace psycache::detail
