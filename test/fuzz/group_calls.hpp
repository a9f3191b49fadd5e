#pragma once

/// @file
/// Calls that share a statement, as a fuzzer's bytes name them, and the answers they get.

#include <string>
#include <vector>

#include "batching/group_statement.hpp"
#include "fuzz/fuzz.hpp"

namespace psycache::fuzz {

/// A key out of few, so that several calls have the same one.
inline std::string key_of(Input& input) {
    return std::string(1, static_cast<char>('a' + input.below(4)));
}

/// One to eight calls of one kind.
inline Calls calls_of(Input& input) {
    const auto kind = static_cast<CallKind>(input.below(3));
    Calls calls(1 + input.below(8));
    for (auto& call : calls) {
        call = std::make_shared<Call>(kind, key_of(input), TimePoint());
        call->as_text = kind == CallKind::get && input.flag();
        call->jsonb = "\x01{}";
    }
    return calls;
}

/// Lets the statement answer its calls. @returns the answers; each call must have got one.
inline std::vector<Result<CallAnswer>> answers_of(const GroupStatement& group, const pg::Rows& rows,
                                                  std::size_t calls) {
    std::vector<Result<CallAnswer>> answers(calls, Failure(Errc::protocol_error, "none"));
    std::vector<int> delivered(calls);
    group.answer(rows, [&](std::size_t place, Result<CallAnswer>&& answer) {
        require(place < calls, "an answer is for a call that there is");
        ++delivered[place];
        answers[place] = std::move(answer);
    });
    for (const int times : delivered) {
        require(times == 1, "each call is answered once");
    }
    return answers;
}

}  // namespace psycache::fuzz
