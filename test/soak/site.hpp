#pragma once

/// @file
/// The server of a soak, and what the caches under test need of it.

#include <string>

#include <psycache/table.hpp>

#include "support/private_server.hpp"
#include "support/server.hpp"

namespace psycache::soak {

/// A server with a role and a schema for the caches.
class Site {
  public:
    Site();

    test::PrivateServer& server() { return server_; }
    const test::PrivateServer& server() const { return server_; }

    /// How the caches connect, by Unix socket.
    std::string dsn(const std::string& application) const;
    /// The same by a port of 127.0.0.1.
    std::string dsn(const std::string& application, const std::string& port) const;

    /// A superuser's connection; waits until the server takes it.
    test::Psql admin() const;
    void make_tables() const;

    static constexpr const char* role = "soaker";
    static constexpr const char* schema = "soak";
    static constexpr const char* table = "soak.psycache";
    static constexpr const char* tags = "soak.psycache_tags";
    static constexpr const char* tables = "soak.psycache, soak.psycache_tags";

  private:
    test::PrivateServer server_;
};

}  // namespace psycache::soak
