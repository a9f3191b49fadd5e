#pragma once

/// @file
/// How a command ends: what it prints, what it says when it failed, and its exit code.

#include <functional>
#include <string>
#include <string_view>

namespace psycache::cli {

inline constexpr int exit_good = 0;
inline constexpr int exit_failure = 1;
inline constexpr int exit_usage = 2;

/// Writes what the command has to say; a full disk or a closed pipe is a failure, too.
/// @returns the exit code.
int print(std::string_view command, std::string_view text);

/// What is repeated of the server's words about an error. A library keeps them to itself, as they
/// can hold users' data; the person who typed a command needs them.
enum class ServerWords {
    all,        ///< for a command that sends no keys and no values
    of_access,  ///< about the server, the role, its privileges and a missing table only
};

/// Runs a command, and says why it failed if it did. @returns the exit code.
int run(std::string_view command, ServerWords words, const std::function<int()>& body);

}  // namespace psycache::cli
