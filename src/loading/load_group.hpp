#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "loading/load_progress.hpp"

namespace psycache::detail {

/// Loads that one caller has started together: one call of its loader serves all that may load at
/// the same time.
class LoadGroup {
  public:
    using Step = LoadSteps::Step;

    /// One of them. It stays where it is.
    struct Member {
        Member(const Telemetry& shown, LoadDuty its_duty, LoadOrder its_order, LoadSteps::Kind kind,
               const Sight& seen)
            : duty(std::move(its_duty)),
              order(std::move(its_order)),
              progress(shown, duty, order, kind, seen) {}

        LoadDuty duty;
        LoadOrder order;
        LoadProgress progress;
    };
    using Members = std::vector<Member*>;

    void add(const Telemetry& shown, LoadDuty duty, LoadOrder order, LoadSteps::Kind kind,
             const Sight& seen) {
        members_.push_back(
            std::make_unique<Member>(shown, std::move(duty), std::move(order), kind, seen));
    }
    bool empty() const noexcept { return members_.empty(); }
    /// @returns the options of their statements.
    CallOptions call() const;

    /// Lets callers hear the results of those that are done, which leave the group. Those that
    /// no caller waits for any more, and that do not load yet, are given up.
    void settle();
    /// @returns those whose next step is this one. Both ways to give a lease back are one.
    Members at(Step step) const;
    /// @returns those that wait for other processes, as a group of their own.
    LoadGroup waiting();

    /// @returns the requests of a step, made by @p make of each member.
    template <class Make>
    static auto requests(const Members& members, const Make& make) {
        std::vector<decltype(make(*members.front()))> all;
        all.reserve(members.size());
        for (Member* const member : members) {
            all.push_back(make(*member));
        }
        return all;
    }
    static std::vector<ClaimOne> claims(const Members& members);
    static std::vector<LookAgain> looks(const Members& members);
    static std::vector<EndOne> ends(const Members& members);
    /// Those whose values cannot be stored go on without it. @p members become those that remain.
    static std::vector<PublishOne> publications(Members& members);
    static std::vector<std::string> keys(const Members& members);
    /// @returns until when to wait.
    static TimePoint pause(const Members& members);
    static void loaded(const Members& members, const std::exception_ptr& error,
                       LoadedValues&& values);

  private:
    std::vector<std::unique_ptr<Member>> members_;
};

}  // namespace psycache::detail
