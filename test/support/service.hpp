#pragma once

/// @file
/// A server of a test's own that is gone when the test is, however that ended.

#include <string>
#include <vector>

namespace psycache::test {

/// A program that runs in a folder of its own until it is told to stop. It is not run as root: as
/// user postgres instead.
class Service {
  public:
    /// Makes the folder, short enough for a Unix socket; starts nothing yet.
    Service();
    Service(const Service&) = delete;
    Service& operator=(const Service&) = delete;
    /// Stops the program and removes the folder.
    ~Service();

    const std::string& folder() const { return folder_; }

    /// Stores a file in the folder.
    void write(const std::string& name, const std::string& text) const;
    /// @returns a file of the folder; "" if there is none.
    std::string read(const std::string& name) const;

    /// Starts the program; its words go to the file "output". The command is that of the first
    /// start.
    void start(const std::vector<std::string>& command);
    /// Ends the program by SIGTERM and waits until it has.
    void stop();

  private:
    void spawn(const std::vector<std::string>& command);
    void tell(const std::string& word);

    std::string folder_;
    int keeper_ = -1;
    int words_ = -1;    // to the keeper
    int answers_ = -1;  // from the keeper
};

}  // namespace psycache::test
