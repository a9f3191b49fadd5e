#include "batching/retry_decision.hpp"

namespace psycache::detail {

namespace {

// Every connection of a usual pool may be dead after a failover, and each is found out once.
constexpr unsigned most_unsent = 5;
constexpr unsigned most_unanswered = 1;
constexpr unsigned most_conflicts = 3;

}  // namespace

RetryDecision decide_retry(const pg::StatementFailure& failure, const RetryRules& rules,
                           Tries& tries) {
    if (failure.failure.code == Errc::timed_out) {
        return RetryDecision::fail;
    }
    if (failure.connection_lost && failure.effect == pg::Effect::none) {
        return tries.unsent++ < most_unsent ? RetryDecision::retry : RetryDecision::fail;
    }
    if (failure.connection_lost) {
        if (!rules.writes || rules.replay_writes) {
            if (tries.unanswered++ < most_unanswered) {
                return RetryDecision::retry;
            }
        }
        return rules.writes ? RetryDecision::fail_as_unknown : RetryDecision::fail;
    }
    const std::string& sqlstate = failure.failure.sqlstate;
    const bool conflict = sqlstate == "40P01" || sqlstate == "40001";
    if (conflict || sqlstate == "26000") {
        if (tries.conflicts++ < most_conflicts) {
            return RetryDecision::retry_later;
        }
        if (conflict && rules.calls == 1) {
            return RetryDecision::stand_aside;
        }
    }
    if (failure.failure.code == Errc::table_missing) {
        return RetryDecision::fail;
    }
    if (failure.failure.code == Errc::permission_denied && !rules.writes) {
        return RetryDecision::fail;
    }
    // A write may be refused by a policy, which is about its row.
    return rules.calls > 1 ? RetryDecision::one_by_one : RetryDecision::fail;
}

}  // namespace psycache::detail
