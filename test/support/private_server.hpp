#pragma once

/// @file
/// A PostgreSQL server that one test has for itself, to be stopped, killed and frozen.

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server.hpp"

namespace psycache::test {

/// A cluster of the test's own, on a Unix socket and a port of 127.0.0.1, in a folder of its own.
///
/// A process beside the test removes it, however the test ends.
class PrivateServer {
  public:
    /// Whether there are programs to start one with; warns when there are none.
    static bool available();

    /// Starts a server.
    ///
    /// @param configuration lines of postgresql.conf; they override the server's own
    /// @param hba           lines of pg_hba.conf; they come first, and the first that fits counts
    explicit PrivateServer(const std::vector<std::string>& configuration = {},
                           const std::vector<std::string>& hba = {});
    /// Starts a standby that follows @p primary, which takes such connections by default.
    static std::unique_ptr<PrivateServer> standby_of(
        const PrivateServer& primary, const std::vector<std::string>& configuration = {});
    PrivateServer(const PrivateServer&) = delete;
    PrivateServer& operator=(const PrivateServer&) = delete;
    ~PrivateServer();

    /// How to connect as a superuser, through the Unix socket.
    std::string dsn(const Settings& changes = {}) const;
    /// How to connect as a superuser, through 127.0.0.1.
    std::string tcp_dsn(const Settings& changes = {}) const;
    const std::string& port() const { return port_; }
    /// Holds the socket, the log and the data; the server's user may write to it.
    const std::string& folder() const { return folder_; }
    const std::string& data() const { return data_; }
    /// What the server wrote to its log so far.
    std::string log() const;

    /// Ends all sessions and stops; returns when it has stopped.
    void stop();
    /// Kills every process at once, as a loss of power would.
    void crash();
    /// Starts what was stopped or has crashed, on the same port; returns when it takes connections.
    void start();
    void restart();
    /// A standby becomes a primary; returns when it is one.
    void promote();

    /// Stops every process from running, so that nothing answers.
    void freeze();
    void thaw();
    static void freeze(pid_t process);
    static void thaw(pid_t process);

    /// Adds a line to postgresql.conf; new sessions see it when this returns, running ones soon.
    void configure(const std::string& line);

    /// Its processes, the one that the others come from first.
    std::vector<pid_t> processes() const;

    /// Ends what works in @p folder and the cluster in there, and removes the folder.
    static void remove(const std::string& folder);

  private:
    struct Empty {};
    explicit PrivateServer(Empty);

    void write_configuration(const std::vector<std::string>& configuration,
                             const std::vector<std::string>& hba) const;
    void start_on_some_port();
    /// @returns whether it came up; if not, why is in the log.
    bool try_start() const;

    std::string folder_;
    std::string data_;
    std::string port_;
    std::optional<Child> remover_;
};

}  // namespace psycache::test
