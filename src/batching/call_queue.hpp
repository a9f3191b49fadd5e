#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>

#include "batching/call.hpp"

namespace psycache {

/// How much one statement may carry. Measured with up to 256 callers on two cores, where client and
/// server take turns: smaller groups leave one of them idle for shorter, larger ones cost less.
struct GroupLimits {
    std::size_t calls = 128;  ///< of one caller that asks for many keys
    std::size_t shared = 64;  ///< of different callers
    std::size_t bytes = 256 * 1024;
    std::size_t alone = 64 * 1024;  ///< a call with more bytes than this shares with nobody
    /// From so many on, half of the calls are left to a worker that has nothing to do. Writes gain
    /// from it sooner: they keep the server busy for longer.
    std::size_t gets_for_two = 32;
    std::size_t writes_for_two = 16;
};

/// Which of the calls that wait the next group takes.
enum class Take {
    all,   ///< as many as a statement may carry
    most,  ///< all that different callers may share
    half,  ///< no more than half of many, since another worker takes the rest at once
};

/// Which kinds the next group may be of.
enum class Serve {
    all,
    gets,  ///< writes have to wait
};

/// The calls that wait, and the rule by which they become groups: whoever has waited longest
/// decides the kind, and further calls of that kind join in order. No I/O, no lock.
class CallQueue {
  public:
    CallQueue(GroupLimits limits, std::size_t capacity) : limits_(limits), capacity_(capacity) {}

    /// @param others how many calls wait elsewhere and count as well.
    /// @returns false when the queue is full even after calls that nobody waits for any more are
    /// gone.
    bool push(std::shared_ptr<Call> call, std::size_t others = 0);
    /// Puts a call in that was in here before, whatever the queue holds.
    void push_back(std::shared_ptr<Call> call);

    /// @returns the next group; empty when nothing waits. Calls that were settled are left out, and
    /// the calls of one owner are not parted while they fit.
    Calls next_group(Take take, Serve serve = Serve::all);

    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }

    /// Takes everything out.
    Calls take_all();

  private:
    struct Entry {
        std::shared_ptr<Call> call;
        std::uint64_t ticket;
    };

    void pop(std::deque<Entry>& line) noexcept;
    void drop_settled();
    std::size_t share(std::size_t waiting, CallKind kind, Take take) const noexcept;

    const GroupLimits limits_;
    const std::size_t capacity_;
    std::uint64_t tickets_ = 0;
    std::array<std::deque<Entry>, 3> lines_;  // by CallKind
    std::size_t size_ = 0;                    // of all lines
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
