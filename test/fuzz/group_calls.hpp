#pragma once

/// @file
/// Calls that share a statement, as a fuzzer's bytes name them, and the answers they get.

#include <string>
#include <vector>

#include "batching/group.hpp"
#include "fuzz/fuzz.hpp"
#include "operations/operations.hpp"

namespace psycache::fuzz {

using namespace psycache::detail;

/// A key out of few, so that several calls have the same one.
inline std::string key_of(Input& input) {
    return std::string(1, static_cast<char>('a' + input.below(4)));
}

/// One to eight calls of one operation.
inline Calls calls_of(Input& input, const Operations& operations) {
    const auto kind = input.below(3);
    Calls calls(1 + input.below(8));
    for (auto& call : calls) {
        const std::string key = key_of(input);
        switch (kind) {
            case 0:
                call = std::make_shared<GetCall>(operations.get, key, TimePoint(),
                                                 input.flag() ? Wanted::text : Wanted::object);
                break;
            case 1:
                call = std::make_shared<PutCall>(operations.put, key, TimePoint(), "\x01{}",
                                                 std::chrono::seconds(1));
                break;
            default:
                call = std::make_shared<RemoveCall>(operations.remove, key, TimePoint());
        }
    }
    return calls;
}

/// Answers the calls with the rows; each must be settled by that.
inline void answer(const Calls& calls, const pg::Rows& rows) {
    const Group group(calls);
    group.operation().answer(group, rows, Resume::posted);
    for (const auto& call : calls) {
        require(call->settled(), "each call is answered");
    }
}

}  // namespace psycache::fuzz
