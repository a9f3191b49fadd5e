#pragma once

/// @file
/// The programs of PostgreSQL that tests run as the server's user, and the processes they leave.

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace psycache::test {

using Command = std::vector<std::string>;

/// The folder of the server's programs, "" if there is none.
const std::string& server_programs();

/// Runs a command as the server's user. @returns whether it went well; what it says is in @p log.
bool succeeds_as_server(Command command, const std::string& folder, const std::string& log);
/// The same for what must go well. @throws std::runtime_error
void run_as_server(const Command& command, const std::string& folder);

void give_to_server(const std::string& path);
/// Makes a folder for a server, which is not its user's yet.
std::string make_server_folder();
/// Makes the data of a new cluster. Copying one is far cheaper than initdb: the first of the tests
/// on one server of with_postgres leaves one in its folder, which goes with that server.
void make_data(const std::string& data, const std::string& folder);

std::string text_of_file(const std::string& path);
void append_to(const std::string& path, const std::string& text);
/// The first number of a file, 0 if there is none.
pid_t number_in(const std::string& path);

/// The server's processes all work in the folder of its data, also those that lost their parent.
bool works_in(const std::filesystem::path& process, const std::string& data);
/// The processes that work in a folder, the one first that all others of a server come from.
std::vector<pid_t> processes_in(const std::string& data);
bool is_stopped(pid_t process);
void signal_all(const std::string& data, int signal);
/// Kills the server whose data are in @p folder, and clears away what it had no time for.
void kill_server(const std::string& folder);

}  // namespace psycache::test
