#include "batching/deadlines.hpp"

#include <algorithm>

namespace psycache::detail {

TimePoint Deadlines::next() const noexcept {
    TimePoint first = calls_.empty() ? TimePoint::max() : calls_.begin()->deadline;
    for (const StatementInFlight* statement : statements_) {
        first = std::min(first, statement->deadline);
    }
    return first;
}

Calls Deadlines::expired_calls(TimePoint now) {
    Calls expired;
    while (!calls_.empty() && calls_.begin()->deadline <= now) {
        Call& call = *calls_.begin();
        calls_.erase(calls_.begin());
        // One that is being destroyed is not waited for.
        if (auto alive = std::static_pointer_cast<Call>(call.weak_from_this().lock())) {
            expired.push_back(std::move(alive));
        }
    }
    return expired;
}

std::vector<StatementInFlight*> Deadlines::expired_statements(TimePoint now) {
    std::vector<StatementInFlight*> expired;
    for (StatementInFlight* statement : statements_) {
        if (statement->deadline <= now) {
            statement->deadline = TimePoint::max();
            expired.push_back(statement);
        }
    }
    return expired;
}

}  // namespace psycache::detail
