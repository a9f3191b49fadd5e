#include "batching/verdict.hpp"

namespace psycache {

namespace {

// Every connection of a usual pool may be dead after a failover, and each is found out once.
constexpr unsigned most_unsent = 5;
constexpr unsigned most_unanswered = 1;
constexpr unsigned most_conflicts = 3;

}  // namespace

Verdict judge(const pg::StatementFailure& failure, CallKind kind, std::size_t calls,
              bool replay_writes, Tries& tries) {
    if (failure.failure.code == Errc::timed_out) {
        return Verdict::fail;
    }
    if (failure.connection_lost && failure.effect == pg::Effect::none) {
        return tries.unsent++ < most_unsent ? Verdict::retry : Verdict::fail;
    }
    if (failure.connection_lost) {
        if (kind == CallKind::get || replay_writes) {
            if (tries.unanswered++ < most_unanswered) {
                return Verdict::retry;
            }
        }
        return kind == CallKind::get ? Verdict::fail : Verdict::fail_as_unknown;
    }
    const std::string& sqlstate = failure.failure.sqlstate;
    if (sqlstate == "40P01" || sqlstate == "40001" || sqlstate == "26000") {
        return tries.conflicts++ < most_conflicts ? Verdict::retry_later : Verdict::fail;
    }
    if (failure.failure.code == Errc::table_missing ||
        failure.failure.code == Errc::permission_denied) {
        return Verdict::fail;
    }
    return calls > 1 ? Verdict::one_by_one : Verdict::fail;
}

}  // namespace psycache
