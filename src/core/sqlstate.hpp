#pragma once

#include <array>
#include <string>
#include <string_view>

#include <psycache/error.hpp>

/// Pure knowledge about SQLSTATEs: no I/O, no libpq.
namespace psycache::detail {

/// @returns the five characters as a number in base 36, or -1 if they are no SQLSTATE.
int pack_sqlstate(std::string_view sqlstate) noexcept;

/// @returns the five characters of a packed SQLSTATE.
std::array<char, 5> unpack_sqlstate(int packed) noexcept;

/// @returns what a SQLSTATE means, for the states that a cache meets, else what its class means.
std::string describe_sqlstate(std::string_view sqlstate);

/// @returns whether a SQLSTATE belongs to a condition.
bool sqlstate_matches(std::string_view sqlstate, Condition condition) noexcept;

/// @returns the code that callers see for a SQLSTATE: an Errc where there is one to act on.
boost::system::error_code code_of_sqlstate(std::string_view sqlstate) noexcept;

/// @returns whether the server ends the session with this state before it runs a statement, so that
/// the statement has certainly changed nothing.
bool ends_session_unexecuted(std::string_view sqlstate) noexcept;

/// @returns whether the server refuses writes with this state, and only those: it can be read.
bool refuses_writes(std::string_view sqlstate) noexcept;

/// @returns whether a session that reported this state must not be used again, although the server
/// kept it open.
bool spoils_session(std::string_view sqlstate) noexcept;

/// Finds the SQLSTATE in a connect error that libpq wrote with PQERRORS_VERBOSE, its only trace.
///
/// @returns the five characters, "" if there are none.
std::string_view find_sqlstate(std::string_view message) noexcept;

}  // namespace psycache::detail
