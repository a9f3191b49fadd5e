// Other programs: finding them and running them.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "throughput/contender.hpp"

namespace bench {

/// Where the PATH has a program; nullopt when it has none.
std::optional<std::string> find_program(const std::string& name);

struct ChildResult {
    std::string output;  // standard output
    double cpu = 0;      // seconds, user and system, of the child alone
};

/// Runs a program to its end. Throws with the end of its standard error when it fails, or takes
/// longer than the limit; then it is killed.
ChildResult run_child(const std::vector<std::string>& command, Seconds limit);

/// A folder of its own, removed with all that is in it.
class TempDir {
  public:
    TempDir();
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    ~TempDir();

    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

}  // namespace bench
