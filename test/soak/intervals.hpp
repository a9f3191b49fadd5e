#pragma once

/// @file
/// When something was so.

#include <chrono>
#include <mutex>
#include <utility>
#include <vector>

#include "support/run_coro.hpp"

namespace psycache::soak {

using test::Clock;
using Time = Clock::time_point;

inline double seconds(Clock::duration duration) {
    return std::chrono::duration<double>(duration).count();
}

/// Spans of time in which something holds; one begins after the other has ended. Safe for threads.
class Intervals {
  public:
    void begin() {
        const std::lock_guard lock(mutex_);
        spans_.emplace_back(Clock::now(), Time::max());
    }
    void end() {
        const std::lock_guard lock(mutex_);
        spans_.back().second = Clock::now();
    }
    /// Whether it held at any moment of a span.
    bool touch(Time from, Time until) const {
        const std::lock_guard lock(mutex_);
        for (auto span = spans_.rbegin(); span != spans_.rend() && span->second >= from; ++span) {
            if (span->first <= until) {
                return true;
            }
        }
        return false;
    }

  private:
    mutable std::mutex mutex_;
    std::vector<std::pair<Time, Time>> spans_;
};

/// Holds from its birth to its death.
class During {
  public:
    explicit During(Intervals& intervals) : intervals_(intervals) { intervals_.begin(); }
    During(const During&) = delete;
    During& operator=(const During&) = delete;
    ~During() { intervals_.end(); }

  private:
    Intervals& intervals_;
};

/// What the faults do to everybody, so that its traces can be told from errors.
struct Circumstances {
    Intervals emptied;  ///< the table may have lost its rows
    Intervals missing;  ///< the table may be away
    Intervals denied;   ///< the role may lack privileges
};

}  // namespace psycache::soak
