#pragma once

#include <boost/intrusive/set.hpp>
#include <memory>
#include <vector>

#include "batching/call.hpp"
#include "pg/connection.hpp"

namespace psycache::detail {

/// A statement on its way, which ends at its deadline.
struct StatementInFlight {
    pg::Connection& connection;
    TimePoint deadline;
};

/// When calls and statements time out. No I/O, no lock, no clock.
class Deadlines {
  public:
    void add(Call& call) noexcept { calls_.insert(calls_.end(), call); }
    /// Does nothing for a call that is not among them.
    void remove(Call& call) noexcept {
        if (call.by_deadline.is_linked()) {
            calls_.erase(calls_.iterator_to(call));
        }
    }
    void add(StatementInFlight& statement) { statements_.push_back(&statement); }
    void remove(const StatementInFlight& statement) noexcept {
        std::erase(statements_, &statement);
    }

    /// @returns the first deadline; TimePoint::max() where there is none.
    TimePoint next() const noexcept;

    /// Takes out the calls whose deadline has come.
    Calls expired_calls(TimePoint now);
    /// @returns the statements whose deadline has come; each is returned once.
    std::vector<StatementInFlight*> expired_statements(TimePoint now);

  private:
    struct Earlier {
        bool operator()(const Call& a, const Call& b) const noexcept {
            return a.deadline < b.deadline;
        }
    };

    // Most calls have the same time-out and come in order: their place is found at once.
    boost::intrusive::multiset<
        Call, boost::intrusive::member_hook<Call, Call::DeadlineHook, &Call::by_deadline>,
        boost::intrusive::compare<Earlier>>
        calls_;
    std::vector<StatementInFlight*> statements_;  // few
};

}  // namespace psycache::detail
