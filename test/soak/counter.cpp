#include "soak/counter.hpp"

#include <algorithm>
#include <utility>

namespace psycache::soak {

namespace {

constexpr std::size_t most_lost = 6;

}  // namespace

Counter::Counter(std::size_t slot, const Circumstances& circumstances)
    // Behind the keys of values, the first of which are locked now and then.
    : slot_("number " + std::to_string(slot) + "."), circumstances_(circumstances) {
    renew();
}

void Counter::renew() {
    key_ = slot_ + std::to_string(generation_++);
    acknowledged_ = 0;
    lost_.clear();
    counted_ = {0};
    since_ = Time::max();
}

void Counter::begin(std::int64_t by) {
    by_ = by;
    issued_ = Clock::now();
    since_ = std::min(since_, issued_);
}

std::int64_t Counter::sum(Which which) const {
    std::int64_t all = 0;
    for (std::size_t i = 0; i < lost_.size(); ++i) {
        all += (which >> i & 1U) != 0 ? lost_[i] : 0;
    }
    return all;
}

/// What was counted stays so.
bool Counter::may_follow(Which which) const {
    return std::any_of(counted_.begin(), counted_.end(),
                       [which](Which before) { return (before & ~which) == 0; });
}

std::string Counter::counted(std::int64_t count) {
    const bool emptied = circumstances_.emptied.touch(since_, Clock::now());
    bool anew = false;
    std::vector<Which> now;
    for (Which which = 0; which < Which{1} << lost_.size(); ++which) {
        const std::int64_t before = count - by_ - sum(which);
        anew = anew || (emptied && before == 0);
        if (before == acknowledged_ && may_follow(which)) {
            now.push_back(which);
        }
    }
    std::string wrong;
    if (now.empty() && !anew) {
        wrong = key_ + " is " + std::to_string(count) + " after " + std::to_string(by_) +
                " more than " + std::to_string(acknowledged_) + " that were acknowledged";
        for (const std::int64_t lost : lost_) {
            wrong += ", perhaps " + std::to_string(lost);
        }
    }
    if (now.empty() || emptied) {
        renew();
    } else {
        acknowledged_ += by_;
        counted_ = std::move(now);
        since_ = issued_;
    }
    return wrong;
}

void Counter::lost() {
    lost_.push_back(by_);
    if (lost_.size() > most_lost) {
        renew();
    }
}

}  // namespace psycache::soak
