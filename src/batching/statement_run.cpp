#include "batching/statement_run.hpp"

#include <algorithm>
#include <iterator>
#include <string>

#include "batching/limits.hpp"
#include "pool/lease_state.hpp"

namespace psycache::detail {

namespace {

constexpr std::string_view lock_not_available = "55P03";
constexpr std::string_view not_supported = "0A000";

const pg::Statement& bind(const Group& group, pg::Parameters& parameters) {
    const Operation& operation = group.operation();
    const pg::Statement& statement = operation.bind(group, parameters);
    if (operation.writes) {
        parameters.own(std::to_string(lock_wait.count()));
    }
    return statement;
}

/// @returns whether a refusal may be that of one server alone: its session is set differently, or
/// its table is gone. Bad data, a conflict, a lock or a limit of time is about the call, wherever
/// it is sent.
bool leaves_route(const pg::StatementFailure& failed) {
    static constexpr std::string_view about_calls[] = {"22", "23", "26000", "40", "55P03", "57014"};
    return !failed.connection_lost && failed.effect == pg::Effect::none &&
           failed.failure.code != Errc::timed_out &&
           std::none_of(std::begin(about_calls), std::end(about_calls),
                        [&](auto state) { return failed.failure.sqlstate.starts_with(state); });
}

}  // namespace

StatementRun::StatementRun(const StatementContext& context, ConnectionLease lease, CallSpan calls,
                           const SendAttempts& attempts, bool on_route)
    : context_(context),
      calls_(calls),
      group_(calls, on_route),
      lease_(std::move(lease)),
      statement_(bind(group_, parameters_)),
      exchange_(connection(), statement_, parameters_),
      watch_(*context.observers, group_.operation().name, calls.size(), attempts.again),
      answer_(pg::Rows()) {
    ++context_.counts->statements;
    context_.counts->retries += attempts.again ? 1 : 0;
}

pg::Connection& StatementRun::connection() const {
    return lease_.state().connection();
}

pg::Want StatementRun::begin() {
    alive_ = connection().reusable();
    return alive_ ? exchange_.begin() : pg::Want::nothing;
}

void StatementRun::run_blocking(pg::Want next, TimePoint until) {
    if (next != pg::Want::nothing) {
        exchange_.run_to_the_end(next, until);
    }
}

Outcome StatementRun::conclude(SendAttempts& attempts) {
    answer_ = alive_ ? exchange_.take() : connection().lost(pg::Effect::none);
    watch_.ended(answer_ ? boost::system::error_code() : answer_.error().failure.code);
    // Back before any caller is answered: its next call finds it idle.
    lease_ = ConnectionLease();
    if (answer_ && group_.operation().wants_other_form(group_, statement_, *answer_)) {
        return group_.lone() ? Outcome::retry : Outcome::one_by_one;
    }
    if (answer_) {
        return Outcome::settled;
    }
    const pg::StatementFailure failed = answer_.error();
    const Operation& operation = group_.operation();
    attempts.again = true;
    if (operation.writes && !failed.connection_lost &&
        failed.failure.sqlstate == lock_not_available) {
        attempts.waited = std::chrono::duration_cast<Duration>(Clock::now() - sent_at_);
        return Outcome::locked;
    }
    const bool takes_form = failed.failure.sqlstate != not_supported || !operation.writes ||
                            !context_.router || context_.router->used();
    if (!takes_form && context_.router->suspect(Clock::now())) {
        return group_.lone() ? Outcome::retry : Outcome::one_by_one;
    }
    if (group_.one_server() && leaves_route(failed)) {
        return Outcome::elsewhere;
    }
    const RetryRules rules{operation.writes, context_.replay_writes && operation.traits.replayable,
                           calls_.size()};
    switch (decide_retry(failed, rules, attempts.tries)) {
        case RetryDecision::retry:
            attempts.lost = failed.failure;
            return Outcome::retry;
        case RetryDecision::retry_later:
            return Outcome::retry_later;
        case RetryDecision::one_by_one:
            return Outcome::one_by_one;
        case RetryDecision::stand_aside:
            return Outcome::conflicting;
        case RetryDecision::fail:
            failure_ = failed.failure.code == Errc::timed_out
                           ? Failure(Errc::timed_out, timed_out_sent)
                           : operation.explain(failed.failure);
            break;
        case RetryDecision::fail_as_unknown:
            failure_ = Failure(Errc::outcome_unknown);
            break;
    }
    return Outcome::settled;
}

void StatementRun::settle(Resume how) const {
    if (answer_) {
        group_.operation().answer(group_, *answer_, how);
        return;
    }
    for (const auto& call : calls_) {
        call->fail(failure_, how);
    }
}

}  // namespace psycache::detail
