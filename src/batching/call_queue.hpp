#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>

#include "batching/call.hpp"

namespace psycache {

/// How much one statement may carry, and how many of them calls are divided among: with several on
/// their way neither client nor server has to wait for the other one, and each further one costs
/// both. Measured with 1 to 256 callers on one core and on two.
struct GroupLimits {
    std::size_t calls = 128;  ///< of one caller that asks for many keys
    std::size_t shared = 64;  ///< of different callers
    std::size_t bytes = 256 * 1024;
    std::size_t alone = 64 * 1024;  ///< a call with more bytes than this shares with nobody

    static constexpr std::size_t most_workers = 8;
    /// How many groups may be on their way at once.
    std::size_t most = most_workers;
    /// How many groups are on their way while fewer calls wait than fill one more.
    std::size_t workers = 3;
    /// So many calls are worth a group of their own.
    std::size_t each = 10;
    /// Whether two calls are divided between two groups if nothing else is on its way.
    bool spread = true;

    /// @param busy how many groups are on their way.
    /// @returns how many groups are made of so many calls that wait.
    std::size_t parts(std::size_t waiting, std::size_t busy) const noexcept;
    /// @returns whether so many calls that wait are worth one more worker.
    bool worth_another(std::size_t waiting, std::size_t busy) const noexcept;
};

/// For a thread that waits for whatever it asks: a second connection might never come, since the
/// first one cannot be given back meanwhile.
GroupLimits one_at_a_time() noexcept;

/// @param processors  that this process may use, 0 if nobody knows. One processor gains nothing
///                    from waiting less.
/// @param connections that there may be.
GroupLimits group_limits(std::size_t processors, std::size_t connections) noexcept;

/// How much of what waits the next group takes.
struct Take {
    std::size_t parts = 1;  ///< it takes one of so many
    bool whole = false;     ///< as many as a statement may carry, whoever they are of
};
inline constexpr Take take_all{1, true};

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

    /// @returns the next group; empty when nothing waits. Calls that were settled are left out; the
    /// calls of one owner are not parted while they fit, nor those for one key that came in a row.
    Calls next_group(Take take, Serve serve = Serve::all);

    std::size_t size() const noexcept { return size_; }
    /// @returns how many calls wait that may be served.
    std::size_t size(Serve serve) const noexcept {
        return serve == Serve::all ? size_ : lines_[static_cast<std::size_t>(CallKind::get)].size();
    }
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
    std::size_t share(std::size_t waiting, Take take) const noexcept;
    bool belongs(const Call& call, const Call& last, std::size_t size) const noexcept;

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
