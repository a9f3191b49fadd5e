// SQLSTATEs and error texts of the server: understood or not, and never passed on to what().

#include <string>

#include "core/failure.hpp"
#include "core/sqlstate.hpp"
#include "fuzz/fuzz.hpp"

using namespace psycache;
using namespace psycache::detail;
using psycache::fuzz::Input;
using psycache::fuzz::require;

namespace {

void check_state(std::string_view state, const std::string& message) {
    const int packed = pack_sqlstate(state);
    if (packed >= 0) {
        const auto unpacked = unpack_sqlstate(packed);
        require(std::string_view(unpacked.data(), unpacked.size()) == state,
                "a SQLSTATE survives its code");
        require(sqlstate_text(sqlstate_code(state)) == state, "and its public code");
    } else {
        require(sqlstate_code(state) == Errc::protocol_error, "what is no SQLSTATE has no code");
    }
    require(!describe_sqlstate(state).empty(), "every state is described");
    for (const auto condition : {Condition::transient, Condition::timeout, Condition::unavailable,
                                 Condition::caller_mistake, Condition::outcome_unknown}) {
        sqlstate_matches(state, condition);
    }
    ends_session_unexecuted(state);
    spoils_session(state);

    const Error error = to_error("get", server_failure(state, message));
    require(error.code().failed(), "an error has a code");
    require(error.sqlstate().empty() || pack_sqlstate(error.sqlstate()) > 0,
            "an error has the SQLSTATE of an error, or none");
    require(error.server_message() == message, "the server's words are kept");
    require(std::string_view(error.what()).find("secret") == std::string_view::npos,
            "the server's words stay out of what()");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    // The server's protocol does not bound it, nor say what it is made of.
    const std::string state(input.text());
    const std::string message = "secret" + std::string(input.rest());
    check_state(state, message);

    const std::string_view found = find_sqlstate(message);
    require(found.empty() || pack_sqlstate(found) >= 0, "what is found is a SQLSTATE");
    require(found.empty() || (found.data() >= message.data() &&
                              found.data() + found.size() <= message.data() + message.size()),
            "and a part of the text");
    check_state(found, message);
    return 0;
}
