#include "cli/outcome.hpp"

#include <exception>
#include <iostream>

#include <psycache/error.hpp>

namespace psycache::cli {

namespace {

/// Whether an error is one of access, whose words name hosts, roles and relations, but no data.
bool of_access(const Error& error) {
    const auto code = error.code();
    return code == Errc::connect_failed || code == Errc::authentication_failed ||
           code == Errc::permission_denied || code == Errc::table_missing;
}

}  // namespace

int print(std::string_view command, std::string_view text) {
    std::cout << text << std::flush;
    if (!std::cout) {
        std::cerr << "psycache: " << command << " failed: cannot write to standard output\n";
        return exit_failure;
    }
    return exit_good;
}

int run(std::string_view command, ServerWords shown, const std::function<int()>& body) {
    try {
        return body();
    } catch (const Error& error) {
        std::cerr << "psycache: " << command << " failed: " << error.cause();
        if (!error.sqlstate().empty()) {
            std::cerr << " [" << error.sqlstate() << ']';
        }
        std::cerr << '\n';
        const std::string_view words = error.server_message();
        if (!words.empty() && (shown == ServerWords::all || of_access(error))) {
            std::cerr << "psycache: the server said: " << words.substr(0, words.find('\n')) << '\n';
        }
    } catch (const std::exception& error) {
        std::cerr << "psycache: " << command << " failed: " << error.what() << '\n';
    }
    return exit_failure;
}

}  // namespace psycache::cli
