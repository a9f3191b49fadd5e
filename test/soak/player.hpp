#pragma once

/// @file
/// Who decides what a caller calls, and judges what it gets.

#include <atomic>
#include <boost/asio/cancellation_type.hpp>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "soak/call.hpp"
#include "soak/pacer.hpp"
#include "soak/report.hpp"
#include "soak/subject.hpp"

namespace psycache::soak {

/// What all players share.
struct Field {
    Keys& keys;
    const Circumstances& circumstances;
    Report& report;
    const Pacer& pacer;
    Duration mean_pause;
};

/// A player makes one call at a time. It alone writes the keys of its slots, and reads any.
class Player {
  public:
    /// @param slots whose keys it writes; a player without any only reads.
    Player(Field& field, Subject& subject, std::uint32_t seed, std::vector<std::size_t> slots);

    /// A call to be made now.
    std::shared_ptr<Call> plan();
    /// The call has ended. @param cancelled whether the caller has cancelled it.
    void conclude(Call& call, const std::exception_ptr& error, bool cancelled);

    /// How long to wait before the next call.
    Duration pause();
    /// After what time to cancel the next call, if at all.
    std::optional<Duration> patience();
    asio::cancellation_type way_to_cancel();

    /// To be called now and then by a thread that watches: reports a call that does not end.
    void watch();

  private:
    struct Verdict {
        std::string name = "ok";
        Ending ending = Ending::acknowledged;
    };

    std::size_t random(std::size_t below);
    Duration random_time(Duration below);
    bool chance(unsigned percent) { return random(100) < percent; }
    Kind random_kind(std::size_t among);
    void plan_keys(Call& call);
    void plan_write(Call& call, KeyModel& key);
    void plan_put(Call& call, KeyModel& key);
    void plan_comparison(Call& call, const KeyModel& key);
    void plan_increments(Call& call);
    std::shared_ptr<KeyModel> any_key();
    Duration some_ttl(Duration usual);
    std::size_t some_size();
    std::string tag() const;

    Verdict judge(const Call& call, const std::exception_ptr& error, bool cancelled);
    bool may_fail(const Call& call, const boost::system::error_code& code, bool cancelled) const;
    bool overdue(Time begun, Clock::duration more) const;
    void judge_time(const Call& call, Clock::duration took);
    void judge_values(const Call& call, bool outage);
    void judge_number(const Call& call);
    void judge_each(const Call& call);
    void judge_comparison(const Call& call);
    Ending ending(const Call& call, std::size_t place) const;
    void end_writes(const Call& call, Ending all, bool answered);
    void end_increments(const Call& call, Ending all, bool answered);
    void violation(const Call& call, const std::string& what, const KeyModel* key = nullptr);

    Field& field_;
    Subject& subject_;
    std::mt19937 random_;
    const std::vector<std::size_t> slots_;
    const bool tags_;  // whether it gives some entries its tag
    unsigned tag_generation_ = 0;
    std::vector<Counter> counters_;
    std::vector<std::shared_ptr<KeyModel>> retired_;  // keys to be removed from the table
    std::atomic<Clock::rep> busy_since_ = 0;
    std::atomic<bool> reported_ = false;
};

}  // namespace psycache::soak
