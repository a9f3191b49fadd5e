#include "core/sqlstate.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace psycache;
using namespace psycache::detail;

TEST_CASE("a SQLSTATE survives packing", "[sqlstate]") {
    for (const char* text : {"00000", "42P01", "57P01", "XX000", "ZZZZZ", "0A000"}) {
        const int packed = pack_sqlstate(text);
        REQUIRE(packed >= 0);
        const auto unpacked = unpack_sqlstate(packed);
        CHECK(std::string(unpacked.data(), unpacked.size()) == text);
    }
}

TEST_CASE("what is no SQLSTATE is not packed", "[sqlstate]") {
    for (const char* text : {"", "4", "42p01", "42P0", "42P011", "42 01"}) {
        CHECK(pack_sqlstate(text) == -1);
    }
}

TEST_CASE("SQLSTATEs with an action of their own become an Errc", "[sqlstate]") {
    CHECK(code_of_sqlstate("42P01") == Errc::table_missing);
    CHECK(code_of_sqlstate("42501") == Errc::permission_denied);
    CHECK(code_of_sqlstate("28P01") == Errc::authentication_failed);
    CHECK(code_of_sqlstate("28000") == Errc::authentication_failed);
    CHECK(code_of_sqlstate("22P05") == sqlstate_code("22P05"));
}

TEST_CASE("every SQLSTATE belongs to the conditions that a caller asks for", "[sqlstate]") {
    struct Row {
        const char* sqlstate;
        bool transient;
        bool timeout;
        bool unavailable;
        bool mistake;
    };
    const Row rows[] = {
        {"40P01", true, false, false, false}, {"40001", true, false, false, false},
        {"57P01", true, false, true, false},  {"57P03", true, false, true, false},
        {"53300", true, false, true, false},  {"53100", true, false, false, false},
        {"57014", true, true, false, false},  {"55P03", true, true, false, false},
        {"22P05", false, false, false, true}, {"3D000", false, false, false, true},
        {"42703", false, false, false, true}, {"25006", true, false, true, false},
        {"08006", true, false, true, false},  {"XX000", false, false, false, false},
    };
    for (const Row& row : rows) {
        INFO(row.sqlstate);
        const auto code = sqlstate_code(row.sqlstate);
        CHECK((code == Condition::transient) == row.transient);
        CHECK((code == Condition::timeout) == row.timeout);
        CHECK((code == Condition::unavailable) == row.unavailable);
        CHECK((code == Condition::caller_mistake) == row.mistake);
    }
}

TEST_CASE("the SQLSTATE of a connect error is found in any language", "[sqlstate]") {
    CHECK(find_sqlstate("connection to server at \"::1\", port 5432 failed: FATAL:  28P01: "
                        "password authentication failed for user \"a\"") == "28P01");
    CHECK(find_sqlstate("Verbindung ... : FATAL:  3D000: Datenbank ...") == "3D000");
    CHECK(find_sqlstate("could not connect: Connection refused").empty());
    CHECK(find_sqlstate("FATAL:  short").empty());
    CHECK(find_sqlstate("").empty());
}

TEST_CASE("only an orderly end of a session proves that nothing ran", "[sqlstate]") {
    CHECK(ends_session_unexecuted("57P01"));
    CHECK(ends_session_unexecuted("57P05"));
    CHECK_FALSE(ends_session_unexecuted("57P02"));
    CHECK_FALSE(ends_session_unexecuted(""));
}
