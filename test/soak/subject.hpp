#pragma once

/// @file
/// A cache under test.

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include <psycache/async_postgres_cache.hpp>

#include "soak/intervals.hpp"

namespace psycache::soak {

/// What is known of a cache, whatever its type is. Safe for threads once it is set up.
class Subject {
  public:
    Subject(std::string its_name, Duration its_timeout, OnOutage its_on_outage = OnOutage::raise)
        : name(std::move(its_name)), timeout(its_timeout), on_outage(its_on_outage) {}

    const std::string name;
    const Duration timeout;
    const OnOutage on_outage;
    std::function<CacheStatistics()> statistics;
    std::function<PoolStatistics()> pool_statistics;
    /// Puts a value under a key and gets it again. @returns why it did not come back, "" if it did.
    std::function<std::string(const std::string&)> put_and_get;

    /// How many calls were answered without the server so far.
    std::uint64_t outages() const {
        if (on_outage == OnOutage::raise) {
            return 0;
        }
        const CacheStatistics now = statistics();
        return now.outage_misses + now.dropped_writes;
    }

    /// A call that began then has succeeded.
    void worked(Time begun) {
        auto last = last_good_.load();
        const auto one = begun.time_since_epoch().count();
        while (last < one && !last_good_.compare_exchange_weak(last, one)) {
        }
    }
    /// Whether a call has succeeded that began later than then.
    bool worked_since(Time then) const { return last_good_ > then.time_since_epoch().count(); }

  private:
    std::atomic<Clock::rep> last_good_ = 0;
};

}  // namespace psycache::soak
