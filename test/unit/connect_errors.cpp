// What is told of several hosts of which none could be connected to.

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "pg/connect_errors.hpp"

using psycache::Errc;
using psycache::detail::pg::ConnectErrors;

TEST_CASE("A failure to connect names the reason of every host, in no words of the server") {
    struct Row {
        std::string message;
        std::string cause;
        boost::system::error_code code;
        std::string sqlstate;
    };
    const std::string refused_a =
        "connection to server at \"10.0.0.1\", port 5432 failed: "
        "Connection refused";
    const std::string refused_b =
        "connection to server at \"10.0.0.2\", port 5433 failed: "
        "Connection refused";
    const std::string no_password =
        "connection to server at \"10.0.0.2\", port 5432 failed: FATAL:  28P01: password "
        "authentication failed for user \"secret\"";
    const std::string read_only =
        "connection to server on socket \"/run/.s.PGSQL.5432\" failed: "
        "session is read-only";
    for (const Row& row : std::vector<Row>{
             {"", "it did not answer in time (connect_timeout)", Errc::connect_failed, ""},
             {refused_a + "\n\tIs the server running on that host?\n", refused_a,
              Errc::connect_failed, ""},
             {refused_a + "\n\tIs it?\nconnection to server at \"10.0.0.2\", port 5432 failed: ",
              refused_a, Errc::connect_failed, ""},
             {"invalid sslmode value: \"x\"\n", "invalid sslmode value: \"x\"",
              Errc::connect_failed, ""},
             {refused_a + "\n\tIs it?\n" + refused_b + "\n\tIs it?\n", refused_a + "; " + refused_b,
              Errc::connect_failed, ""},
             {read_only + "\n" + refused_b, read_only + "; " + refused_b, Errc::connect_failed, ""},
             {no_password + "\nDETAIL:  secret\n", "password authentication failed",
              Errc::authentication_failed, "28P01"},
             {no_password + "\n" + no_password + "\n", "password authentication failed",
              Errc::authentication_failed, "28P01"},
             {refused_a + "\n\tIs it?\n" + no_password + "\nDETAIL:  secret\n",
              refused_a + "; connection to server at \"10.0.0.2\", port 5432 failed: "
                          "password authentication failed",
              Errc::authentication_failed, "28P01"},
             {no_password + "\n" + refused_a + "\n",
              "connection to server at \"10.0.0.2\", port 5432 failed: password authentication "
              "failed",
              Errc::connect_failed, ""},
         }) {
        CAPTURE(row.message);
        ConnectErrors errors;
        errors.add(row.message);
        const auto failure = errors.failure();
        CHECK(failure.code == row.code);
        CHECK(failure.sqlstate == row.sqlstate);
        CHECK_THAT(failure.cause, Catch::StartsWith("cannot connect to the server: " + row.cause));
        CHECK_THAT(failure.cause, !Catch::Contains("secret") && !Catch::Contains("Is it"));
        if (!row.sqlstate.empty()) {
            CHECK(failure.server_message == row.message);
        }
    }

    ConnectErrors errors;
    errors.add(refused_a);
    errors.add("host \"b\" port 5432", "it did not answer in time");
    CHECK(errors.failure().cause == "cannot connect to the server: " + refused_a +
                                        "; host \"b\" port 5432: it did not answer in time");
    CHECK(errors.failure().code == Errc::connect_failed);
}
