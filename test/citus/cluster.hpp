#pragma once

/// @file
/// The cluster of Citus that tests are given, and what can be done to it by SQL.

#include <cstdint>
#include <string>
#include <vector>

#include "support/both.hpp"

namespace psycache::test {

class Cluster {
  public:
    /// Ends sessions with this application_name on all nodes, and those that nodes have with each
    /// other.
    void end_sessions(const std::string& application_name) {
        everywhere(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> "
            "pg_backend_pid() AND (application_name = " +
            quote_literal(application_name) + " OR application_name LIKE 'citus_internal%')");
    }
    /// How many sessions with this application_name there are, on each node that has some.
    std::vector<std::int64_t> sessions(const std::string& application_name) {
        std::vector<std::int64_t> counts;
        for (const auto& row :
             everywhere("SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND "
                        "application_name = " +
                        quote_literal(application_name))) {
            if (row[0] != "0") {
                counts.push_back(std::stoll(row[0]));
            }
        }
        return counts;
    }
    std::int64_t workers() {
        return sql_.number(
            "SELECT count(*) FROM pg_dist_node WHERE shouldhaveshards AND noderole = 'primary'");
    }
    /// Moves some shards of a table, each to the next node.
    void move_shards(const std::string& table, int count) {
        for (int i = 0; i < count; ++i) {
            const Rows move = sql_.exec(
                "SELECT s.shardid, n.nodename, n.nodeport, o.nodename, o.nodeport FROM "
                "pg_dist_shard s JOIN pg_dist_placement p USING (shardid) JOIN pg_dist_node n "
                "USING "
                "(groupid) JOIN LATERAL (SELECT * FROM pg_dist_node o WHERE o.shouldhaveshards AND "
                "o.nodeid <> n.nodeid AND o.noderole = 'primary' ORDER BY o.nodeid > n.nodeid "
                "DESC, "
                "o.nodeid LIMIT 1) AS o ON true WHERE s.logicalrelid = " +
                quote_literal(table) + "::regclass ORDER BY s.shardid LIMIT 1 OFFSET " +
                std::to_string(i));
            sql_.exec("SELECT citus_move_shard_placement(" + move[0][0] + ", " +
                      quote_literal(move[0][1]) + ", " + move[0][2] + ", " +
                      quote_literal(move[0][3]) + ", " + move[0][4] +
                      ", shard_transfer_mode := 'block_writes')");
        }
    }
    Psql& sql() { return sql_; }

  private:
    Rows everywhere(const std::string& command) {
        return sql_.exec("SELECT result FROM run_command_on_all_nodes(" + quote_literal(command) +
                         ") WHERE success");
    }

    Psql sql_;
};

/// Waits until the schema's own session has found out which of its connections to nodes are gone.
inline void settle(TestSchema& schema) {
    CHECK(eventually([&] {
        try {
            schema.rows();
            return true;
        } catch (const SqlError&) {
            return false;
        }
    }));
}

}  // namespace psycache::test
