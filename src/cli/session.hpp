#pragma once

/// @file
/// A connection that asks a server questions, for commands that report.

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/place.hpp"

namespace psycache::cli {

/// Blocking, and every wait ends: ten seconds for each host to connect, five for a statement, one
/// for a lock. It never writes and leaves no setting behind, so that it does no harm to sessions
/// that a pooler shares.
class Session {
  public:
    using Row = std::vector<std::optional<std::string>>;

    /// @param place where to; its schema is only checked. @param name what the server calls the
    ///              session.
    /// @throws std::invalid_argument for what a cache would refuse, too; psycache::Error:
    /// Errc::connect_failed, Errc::authentication_failed.
    Session(const Place& place, const std::string& name);
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    ~Session();

    /// Runs one SELECT, in a transaction of its own or in that of begin().
    /// @throws psycache::Error of the SQLSTATE, or Errc::connection_lost, Errc::timed_out.
    std::vector<Row> query(const std::string& sql);

    /// Opens a transaction, so that a pooler lends a session of the server until end().
    void begin();
    void end();

    /// Listens for notifications on a channel, whose name needs no quotes.
    void listen(const std::string& channel);

    /// @returns what was sent with the next notification; nothing if none comes in time.
    /// @throws psycache::Error: Errc::connection_lost.
    std::optional<std::string> next_notification(std::chrono::milliseconds time);

    /// @returns text as a constant of SQL.
    std::string literal(std::string_view text) const;

    /// @returns the number of the server's process that the connection was told when it was opened:
    /// a pooler tells one of its own.
    int told_process() const;

    /// @returns whether further questions can be asked.
    bool open() const;

  private:
    struct Native;

    std::vector<Row> run(const std::string& sql);

    std::unique_ptr<Native> native_;
};

}  // namespace psycache::cli
