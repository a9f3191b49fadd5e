#pragma once

#include <cstddef>

#include "batching/call.hpp"
#include "pg/connection.hpp"

namespace psycache {

/// What is done about a statement that failed.
enum class Verdict {
    retry,            ///< at once, on another connection
    retry_later,      ///< after a short pause
    one_by_one,       ///< its calls are sent singly, so that only the guilty fail
    fail,             ///< its calls get the failure
    fail_as_unknown,  ///< its calls get outcome_unknown
};

/// Decides about a failed statement and counts it in @p tries. Pure: no I/O, no clock.
Verdict judge(const pg::StatementFailure& failure, CallKind kind, std::size_t calls,
              bool replay_writes, Tries& tries);

}  // namespace psycache
