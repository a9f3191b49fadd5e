#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>

#include "batching/call.hpp"

namespace psycache {

/// How much one statement may carry.
struct GroupLimits {
    std::size_t calls = 128;
    std::size_t bytes = 256 * 1024;
    std::size_t alone = 64 * 1024;  ///< a call with more bytes than this shares with nobody
};

/// The calls that wait, and the rule by which they become groups: whoever has waited longest
/// decides the kind, and further calls of that kind join in order. No I/O, no lock.
class CallQueue {
  public:
    CallQueue(GroupLimits limits, std::size_t capacity) : limits_(limits), capacity_(capacity) {}

    /// @returns false when the queue is full even after calls that nobody waits for any more are
    /// gone.
    bool push(std::shared_ptr<Call> call);

    /// @returns the next group; empty when nothing waits. Calls that were settled are left out.
    Calls next_group();

    std::size_t size() const noexcept;
    bool empty() const noexcept { return size() == 0; }

    /// Takes everything out.
    Calls take_all();

  private:
    struct Entry {
        std::shared_ptr<Call> call;
        std::uint64_t ticket;
    };

    void drop_settled();

    const GroupLimits limits_;
    const std::size_t capacity_;
    std::uint64_t tickets_ = 0;
    std::array<std::deque<Entry>, 3> lines_;  // by CallKind
};

/// Calls that have not been answered, by deadline. Most have the same time-out, so that they come
/// in order and finding the place takes one step. No lock of its own.
class DeadlineList {
  public:
    void insert(Call& call) noexcept;
    void remove(Call& call) noexcept;
    bool empty() const noexcept { return first_ == nullptr; }
    Call* first() const noexcept { return first_; }

  private:
    Call* first_ = nullptr;
    Call* last_ = nullptr;
};

}  // namespace psycache
