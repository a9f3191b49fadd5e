#pragma once

/// @file
/// A PgBouncer of a test's own.

#include <string>

#include "server.hpp"
#include "service.hpp"

namespace psycache::test {

/// A PgBouncer in front of a server, on a Unix socket and a port of 127.0.0.1.
class PgBouncer {
  public:
    /// @returns whether it is installed; warns if not.
    static bool installed();

    /// Starts it.
    ///
    /// @param settings those of the section [pgbouncer] that the test cares for: pool_mode ...
    /// @param server   where the server is, which runs, and the one role that may pass.
    explicit PgBouncer(const Settings& settings = {}, const std::string& server = test::dsn());

    /// The way to the server through it, by its Unix socket.
    std::string dsn(const Settings& changes = {}) const;
    /// The same by 127.0.0.1.
    std::string tcp_dsn(const Settings& changes = {}) const;

    void start();
    /// Breaks all connections at once.
    void stop();
    void restart();

    /// Changes settings while it runs.
    void configure(const Settings& changes);

    /// Runs a command of its console: PAUSE, RESUME, SHOW POOLS ...
    Rows admin(const std::string& command) const;

    /// How many connections it has on one side, the console's not counted: SHOW CLIENTS, SHOW
    /// SERVERS.
    std::size_t clients() const { return count("SHOW CLIENTS"); }
    std::size_t servers() const { return count("SHOW SERVERS"); }

  private:
    void write_configuration() const;
    bool answers() const;
    std::size_t count(const std::string& command) const;

    Service service_;
    std::string server_;
    std::string user_;
    std::string databases_;  // that section of its configuration
    Settings settings_;
    std::string port_;
};

}  // namespace psycache::test
