#include "cli/outcome.hpp"

#include <exception>
#include <iostream>

#include <psycache/error.hpp>

namespace psycache::cli {

int print(std::string_view command, std::string_view text) {
    std::cout << text << std::flush;
    if (!std::cout) {
        std::cerr << "psycache: " << command << " failed: cannot write to standard output\n";
        return exit_failure;
    }
    return exit_good;
}

int run(std::string_view command, const std::function<int()>& body) {
    try {
        return body();
    } catch (const Error& error) {
        std::cerr << "psycache: " << command << " failed: " << error.cause();
        if (!error.sqlstate().empty()) {
            std::cerr << " [" << error.sqlstate() << ']';
        }
        std::cerr << '\n';
        // A library keeps the server's words to itself, as they can hold users' data. Here they are
        // about a table and a role only, and the person who typed the command needs them.
        const std::string_view words = error.server_message();
        if (!words.empty()) {
            std::cerr << "psycache: the server said: " << words.substr(0, words.find('\n')) << '\n';
        }
    } catch (const std::exception& error) {
        std::cerr << "psycache: " << command << " failed: " << error.what() << '\n';
    }
    return exit_failure;
}

}  // namespace psycache::cli
