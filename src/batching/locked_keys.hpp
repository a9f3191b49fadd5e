#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <string_view>

#include "batching/call.hpp"

namespace psycache {

/// Writes of rows that somebody else has locked. They wait here, by key and without a connection,
/// and are tried again one key after the other. No I/O, no lock.
class LockedKeys {
  public:
    /// Pauses between two tries of a key.
    static constexpr std::chrono::milliseconds shortest_pause{10};
    static constexpr std::chrono::milliseconds longest_pause{160};

    bool empty() const noexcept { return keys_.empty(); }
    /// @returns how many calls wait.
    std::size_t size() const noexcept { return calls_; }
    /// @returns whether calls of this key wait, or are being tried.
    bool holds(std::string_view key) const noexcept;

    /// Adds a call: behind the others of its key, or as the first of a new one.
    void add(std::shared_ptr<Call> call, TimePoint now);

    /// @returns when the next key is to be tried. There must be one.
    TimePoint due() const noexcept;
    /// Takes out the calls that are to be tried: those of the key that is due first, as far as they
    /// are of one kind and somebody waits for them. Empty when nobody does; then the key is gone.
    Calls take_due();
    /// The calls that were taken met the lock again.
    void still_locked(const Calls& calls, TimePoint now);
    /// The key is free. @returns the calls that came meanwhile.
    Calls freed(std::string_view key);

    /// Takes everything out.
    Calls take_all();

  private:
    struct Key {
        std::deque<std::shared_ptr<Call>> calls;
        std::string name;
        TimePoint due;
        std::chrono::milliseconds pause;
    };

    std::deque<Key>::iterator find(std::string_view key) noexcept;

    std::deque<Key> keys_;  // few
    std::size_t calls_ = 0;
};

}  // namespace psycache
