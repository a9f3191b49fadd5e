#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "batching/call.hpp"

namespace psycache::detail {

/// What a look at the rows of some keys has shown.
struct LockSight {
    /// A row that another transaction has locked.
    struct Held {
        std::string key;
        std::string holder;  ///< a mark that is another one when the lock has changed hands
    };

    std::vector<Held> held;
    std::optional<LockLimit> limit;  ///< of the role
};

/// Writes of rows that another transaction has locked. They wait here, by key and without a
/// connection. No I/O, no lock of its own, no clock.
///
/// From time to time the rows are looked at, many with one statement that waits for none of them.
/// A call goes back to the queue once its row is free. What a look cannot show is tried: a row that
/// changes hands so fast that it is never free when it is looked at, and one that another
/// transaction has made but not yet committed. Such calls are sent alone, one key at a time and
/// with pauses, since they wait in their statement for a moment.
class LockRetry {
  public:
    /// Pauses between two looks at a row, or two tries of a key.
    static constexpr std::chrono::milliseconds shortest_pause{10};
    static constexpr std::chrono::milliseconds longest_pause{80};
    /// How many rows are looked at by one statement.
    static constexpr std::size_t most_at_once = 64;

    bool empty() const noexcept { return keys_.empty(); }
    /// @returns how many calls wait.
    std::size_t size() const noexcept { return calls_; }
    /// @returns whether calls of this key wait, or are being tried.
    bool holds(const std::string& key) const { return !keys_.empty() && keys_.contains(key); }

    /// Adds a call whose row is locked: as the first of a new key, or behind the others of its key.
    /// @param holder as a look has shown it; "" if no look has shown the lock.
    void add(std::shared_ptr<Call> call, std::string holder, std::optional<LockLimit> limit,
             TimePoint now);
    /// Adds a call that is to be tried again for another reason than a lock.
    void add_conflicting(std::shared_ptr<Call> call, TimePoint now);
    /// @returns whether the call has to wait; then it is kept here, behind those of its key.
    bool add_behind(const std::shared_ptr<Call>& call, TimePoint now);

    /// @returns when take_due() has something next; TimePoint::max() for never.
    TimePoint due() const noexcept;

    /// What is to be done now. At most one of @ref looks and @ref tries is not empty.
    struct Due {
        std::vector<std::string>
            looks;  ///< the keys whose rows are to be looked at: seen() is next
        const Operation* operation = nullptr;  ///< of one of their calls
        Calls tries;                           ///< to be sent: tried() is next
        Calls limited;                         ///< they wait no longer: the role's limit has come
    };
    /// Takes out what is due. Calls that are settled are forgotten.
    Due take_due(TimePoint now);
    /// Rows were looked at. @returns the calls that may go.
    Calls seen(const std::vector<std::string>& looks, const LockSight& sight, TimePoint now);
    /// The same where the look came to nothing.
    Calls not_seen(const std::vector<std::string>& looks, TimePoint now);
    /// Calls were tried. @param in_vain whether they met the lock again, or another conflict.
    /// @returns the calls that may go.
    Calls tried(const std::string& key, const Calls& calls, bool in_vain, TimePoint now);

    /// Takes everything out.
    Calls take_all();

  private:
    struct Key {
        std::deque<std::shared_ptr<Call>> calls;
        TimePoint due;
        std::chrono::milliseconds pause = shortest_pause;
        std::string holder;
        bool hidden = false;     // locked, though a look did not show it
        bool conflicts = false;  // it waits for another reason than a lock
        std::optional<LockLimit> limit;
    };
    using Keys = std::unordered_map<std::string, Key>;
    // The names are those in keys_, which stay where they are.
    using ByDue = std::set<std::pair<TimePoint, const std::string*>>;

    Key& key_of(const std::string& name);
    void schedule(Keys::value_type& key, ByDue& line, TimePoint due);
    void pause(Keys::value_type& key, TimePoint now);
    bool drop(Keys::iterator key, TimePoint now, Calls& limited);
    void release(Keys::iterator key, Calls& freed);
    Calls next_tries(TimePoint now, Calls& limited);

    Keys keys_;
    ByDue looks_;
    ByDue tries_;
    TimePoint next_try_ = TimePoint::min();
    std::size_t calls_ = 0;
};

}  // namespace psycache::detail
