// How the connections of a pool are divided among the servers of a cluster.

#include "pool/node_pools.hpp"

#include <catch2/catch.hpp>

using psycache::detail::NodePools;

TEST_CASE("The connections of a pool are divided among nodes, and never become more") {
    struct Row {
        std::size_t connections;
        std::size_t nodes;
        NodePools::Share share;
    };
    for (const Row& row : {
             Row{4, 0, {0, 0, 4}},    // no cluster
             Row{1, 3, {0, 0, 1}},    // one connection: all calls take it
             Row{2, 3, {1, 1, 1}},    // some nodes get none
             Row{4, 3, {1, 3, 1}},    //
             Row{4, 4, {1, 3, 1}},    //
             Row{16, 4, {3, 4, 4}},   // what does not divide stays with the pool
             Row{17, 4, {4, 4, 1}},   //
             Row{100, 1, {99, 1, 1}}  // it always keeps one for what concerns the whole table
         }) {
        CAPTURE(row.connections, row.nodes);
        const auto share = NodePools::share(row.connections, row.nodes);
        CHECK(share.each == row.share.each);
        CHECK(share.nodes == row.share.nodes);
        CHECK(share.own == row.share.own);
        CHECK(share.own + share.nodes * share.each == row.connections);
    }
}
