#pragma once

/// @file
/// What `psycache doctor` asks a server. Nothing of it reads the table, but for the first entry of
/// an index; nothing waits for a lock longer than a second.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <psycache/duration.hpp>

#include "cli/place.hpp"
#include "cli/table_facts.hpp"

namespace psycache::cli {

struct ServerFacts {
    int version = 0;  ///< as server_version_num
    std::string version_text;
    bool in_recovery = false;
    bool autovacuum = true;
    bool track_counts = true;
};

struct PoolerFacts {
    bool between = false;  ///< the process that answers is not the one that was announced
    bool moves = false;    ///< transactions of one connection go to different processes
};

/// A limit of connections, and what is used of it.
struct ConnectionFacts {
    std::int64_t max_connections = 0;
    std::int64_t reserved = 0;  ///< of them, for superusers and the like
    std::int64_t clients = 0;
    std::int64_t psycache = 0;
    std::int64_t role_limit = -1;  ///< -1: none, as for the database
    std::int64_t of_role = 0;
    std::int64_t database_limit = -1;
    std::int64_t of_database = 0;
};

struct ClockFacts {
    Duration ahead{};  ///< this machine's clock, of the server's
    Duration error{};  ///< by how much that may be off
};

/// What sessions of the role have at their start.
struct TimeoutFacts {
    std::string name;
    Duration value{};  ///< 0: none
};

/// What is empty could not be looked at.
struct DoctorFacts {
    // What remedies are made of; all of them quoted.
    std::string schema;  ///< "" if there is none
    std::string role;
    std::string database;
    std::string create_table;  ///< SQL
    std::string create_tags;
    std::string create_triggers;

    // What calls need, by default.
    Duration call_timeout{};
    Duration maintenance_timeout{};
    Duration pool_idle_timeout{};
    std::int64_t pool_size = 0;

    std::optional<ServerFacts> server;
    bool table_looked_for = false;
    std::optional<TableFacts> table;
    std::optional<TableFacts> tags;
    std::optional<Duration> oldest_expired;  ///< for how long the entry that expired first has
    bool expired_looked_for = false;
    std::optional<Duration> oldest_transaction;  ///< that keeps VACUUM from removing dead rows
    bool transactions_looked_for = false;
    std::optional<PoolerFacts> pooler;
    std::optional<ConnectionFacts> connections;
    std::optional<ClockFacts> clock;
    std::optional<double> notify_queue;  ///< 0 to 1
    std::vector<TimeoutFacts> timeouts;
    std::vector<Unseen> unseen;
};

/// @throws psycache::Error where no connection can be opened, or breaks.
DoctorFacts gather_doctor_facts(const Place& place);

}  // namespace psycache::cli
