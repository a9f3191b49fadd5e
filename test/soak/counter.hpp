#pragma once

/// @file
/// What a counter may be, by what its only caller was told.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "soak/intervals.hpp"

namespace psycache::soak {

/// A counter, increments of which nobody knows whether they were counted, and which of those may
/// have been counted so far. When nothing much is known of it, it goes on with a fresh key. Its
/// caller waits for the end of each increment.
class Counter {
  public:
    Counter(std::size_t slot, const Circumstances& circumstances);

    const std::string& key() const { return key_; }

    void begin(std::int64_t by);
    /// The increment has ended with this count. @returns what is wrong with it, "" when it is
    /// right.
    std::string counted(std::int64_t count);
    /// It was counted, will be counted at any later time, or never.
    void lost();

  private:
    using Which = unsigned;  // a bit for each increment that was lost

    std::int64_t sum(Which which) const;
    bool may_follow(Which which) const;
    void renew();

    const std::string slot_;
    const Circumstances& circumstances_;
    unsigned generation_ = 0;
    std::string key_;
    std::int64_t acknowledged_ = 0;
    std::vector<std::int64_t> lost_;
    std::vector<Which> counted_;  // one of these was counted so far
    Time since_;                  // it was there, if anything was acknowledged
    std::int64_t by_ = 0;
    Time issued_;
};

}  // namespace psycache::soak
