#pragma once

#include <cstddef>

#include "pg/connection.hpp"

namespace psycache::detail {

/// How often a statement has failed so far, by what may be done about it.
struct Tries {
    unsigned unsent = 0;      ///< the connection broke, certainly without effect
    unsigned unanswered = 0;  ///< the connection broke after sending
    unsigned conflicts = 0;   ///< the server rolled the statement back for a conflict
};

/// What is done about a statement that failed.
enum class RetryDecision {
    retry,        ///< at once, on another connection
    retry_later,  ///< after a short pause
    one_by_one,   ///< its calls are sent singly, so that only those fail that cause the failure
    stand_aside,  ///< its call is tried again from time to time, and holds up no other meanwhile
    fail,         ///< its calls get the failure
    fail_as_unknown,  ///< its calls get outcome_unknown
};

/// What the decision depends on, beside the failure.
struct RetryRules {
    bool writes = false;         ///< whether the statement may have changed rows
    bool replay_writes = false;  ///< CacheOptions::replay_writes
    std::size_t calls = 1;       ///< how many calls share the statement
};

/// Decides about a failed statement and counts it in @p tries. Pure: no I/O, no clock.
RetryDecision decide_retry(const pg::StatementFailure& failure, const RetryRules& rules,
                           Tries& tries);

}  // namespace psycache::detail
