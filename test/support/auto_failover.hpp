#pragma once

/// @file
/// Two servers of a test's own, and pg_auto_failover to choose which of them is the primary.

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "run_coro.hpp"
#include "server.hpp"

namespace psycache::test {

/// A monitor and two nodes, 0 and 1, on ports of 127.0.0.1. While both nodes are there, what is
/// committed is on both.
///
/// It takes seconds to find out that a node is dead, where its defaults take half a minute. Each of
/// the three has a process beside the test that removes it, however the test ends.
class AutoFailoverCluster {
  public:
    /// @returns whether there is a pg_auto_failover for the server of the tests; says if not.
    static bool available();

    /// Returns when node 0 is the primary and node 1 its standby.
    AutoFailoverCluster();
    AutoFailoverCluster(const AutoFailoverCluster&) = delete;
    AutoFailoverCluster& operator=(const AutoFailoverCluster&) = delete;
    ~AutoFailoverCluster();

    /// How to connect to whichever node takes writes, @p first being asked first.
    std::string dsn(std::size_t first, const Settings& changes = {}) const;
    /// How to connect to one node.
    std::string node_dsn(std::size_t node, const Settings& changes = {}) const;
    const std::string& port(std::size_t node) const;

    /// Asks for the other node to become the primary; it is not yet when this returns.
    void switch_over();
    /// Kills a node at once, server and keeper, as a loss of power would.
    void kill(std::size_t node);
    /// Lets the keeper of a node that was killed run again.
    void run(std::size_t node);
    /// Stops every process of a node from running, so that nothing answers.
    void freeze(std::size_t node);
    void thaw(std::size_t node);
    /// Starts the server of a node that was killed without a keeper, so that it believes to be what
    /// it was. @returns when it takes connections.
    void start_unfenced(std::size_t node);
    void stop_unfenced(std::size_t node);

    /// Waits until the node takes writes. @throws std::runtime_error if that takes too long, with
    /// the logs.
    void wait_for_writes(std::size_t node);
    /// Waits until that node is the primary, and the other one its standby.
    void wait_until_whole(std::size_t primary);

  private:
    class Machine;

    /// @returns what the monitor knows of the nodes.
    std::string states();
    Machine& monitor() const { return *machines_[2]; }
    std::string logs() const;
    template <class Condition>
    void wait(const std::string& what, const Condition& condition);

    std::array<std::unique_ptr<Machine>, 3> machines_;
};

}  // namespace psycache::test
