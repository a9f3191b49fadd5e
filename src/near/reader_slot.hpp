#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>

namespace psycache::detail {

/// A count that one thread at a time changes, and others look at meanwhile.
using Count = std::atomic<std::uint64_t>;
inline void increment(Count& count) noexcept {
    count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

inline constexpr std::size_t reader_slots = 16;

/// The lock of the readers that share a slot, in a cache line of its own, with what they count.
struct alignas(64) ReaderSlot {
    std::atomic<bool> taken{false};
    Count hits{0};
    Count misses{0};

    void lock() noexcept {
        for (unsigned tries = 0; taken.exchange(true, std::memory_order_acquire); ++tries) {
            while (taken.load(std::memory_order_relaxed)) {
                // Who holds it may wait for this processor.
                if (++tries > 100) {
                    std::this_thread::yield();
                }
            }
        }
    }
    void unlock() noexcept { taken.store(false, std::memory_order_release); }
};

/// @returns which of so many slots is this thread's.
inline std::size_t slot_of_this_thread() noexcept {
    static std::atomic<unsigned> threads{0};
    // Not initialised by a call: that would be checked for each time.
    constinit static thread_local unsigned number = 0;
    if (number == 0) {
        number = threads.fetch_add(1, std::memory_order_relaxed) % reader_slots + 1;
    }
    return number - 1;
}

}  // namespace psycache::detail
