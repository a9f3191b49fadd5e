#pragma once

#include <chrono>

#include "batching/call.hpp"

namespace psycache::detail {

/// How long a write waits in its statement for a locked row. It has a connection meanwhile that
/// others may wait for, and calls for other rows share the statement.
inline constexpr std::chrono::milliseconds lock_wait{10};

inline constexpr const char* timed_out_sent = "the call timed out: the server did not answer";

/// @returns the text for a call whose deadline has come.
inline const char* why_timed_out(const Call& call) noexcept {
    return call.progress.locked ? "the call timed out: another transaction has the row locked"
           : call.progress.sent ? timed_out_sent
                                : "the call timed out before it could be sent: no connection was "
                                  "free";
}

}  // namespace psycache::detail
