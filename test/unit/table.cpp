// The text of init_db_sql.

#include <algorithm>
#include <catch2/catch.hpp>
#include <stdexcept>
#include <string>

#include <psycache/table.hpp>

#include "operations/table_ddl.hpp"

using namespace psycache;

namespace {

std::string sql_for(const std::string& schema) {
    TableOptions options;
    options.schema = schema;
    return init_db_sql(options);
}

std::ptrdiff_t count(const std::string& text, char c) {
    return std::count(text.begin(), text.end(), c);
}

}  // namespace

TEST_CASE("The statements are two, each ended by a semicolon and a line break") {
    for (const auto& text : {init_db_sql(), sql_for("app")}) {
        INFO(text);
        CHECK(count(text, ';') == 2);
        REQUIRE(text.size() > 2);
        CHECK(text.substr(text.size() - 2) == ";\n");
        const auto first = text.find(";\n");
        REQUIRE(first != std::string::npos);
        CHECK(first + 2 < text.size());
        CHECK(text.find("CREATE UNLOGGED TABLE") < first);
        CHECK(text.find("CREATE INDEX", first) != std::string::npos);
        // Each by itself waits for others who do the same.
        CHECK(text.find("pg_advisory_xact_lock(") < first);
        CHECK(text.find("pg_advisory_xact_lock(", first) != std::string::npos);
    }
}

TEST_CASE("The statements name the table, its columns and its index") {
    const auto text = init_db_sql();
    INFO(text);
    for (const std::string part :
         {"CREATE UNLOGGED TABLE IF NOT EXISTS", "psycache", "key text", "PRIMARY KEY",
          "value jsonb NOT NULL", "expires_at timestamptz NOT NULL", "CREATE INDEX IF NOT EXISTS",
          "ix_psycache_expires_at", "expires_at"}) {
        CAPTURE(part);
        CHECK_THAT(text, Catch::Contains(part, Catch::CaseSensitive::No));
    }
}

TEST_CASE("A logged table is not unlogged") {
    TableOptions options;
    options.unlogged = false;
    const auto text = init_db_sql(options);
    CHECK_THAT(text, !Catch::Contains("UNLOGGED", Catch::CaseSensitive::No));
    CHECK_THAT(text, Catch::Contains("CREATE TABLE IF NOT EXISTS"));
}

TEST_CASE("A table without the index of its expiry has room for overwriting in place") {
    TableOptions options;
    options.expiry_index = false;
    const auto text = init_db_sql(options);
    CHECK(count(text, ';') == 1);
    CHECK_THAT(text, Catch::Contains("CREATE UNLOGGED TABLE IF NOT EXISTS"));
    CHECK_THAT(text, Catch::Contains("fillfactor"));
    CHECK_THAT(text, !Catch::Contains("INDEX"));
    CHECK_THAT(init_db_sql(), !Catch::Contains("fillfactor"));
}

TEST_CASE("The schema qualifies the table in both statements and is always quoted") {
    const auto qualified = [](const std::string& text, const std::string& table) {
        std::size_t times = 0;
        for (auto at = text.find(table); at != std::string::npos; at = text.find(table, at + 1)) {
            ++times;
        }
        return times;
    };
    CHECK(qualified(sql_for("app"), "\"app\".\"psycache\"") +
              qualified(sql_for("app"), "\"app\".psycache") ==
          2);
    CHECK(qualified(sql_for("Up Per"), "\"Up Per\".") == 2);
    CHECK(qualified(sql_for("a\"b"), "\"a\"\"b\".") == 2);
    // The statements stand inside of strings, and hold no semicolon but at their ends.
    CHECK(qualified(sql_for("a'; DROP TABLE x; --"), "\"a\'\'\\x3b DROP TABLE x\\x3b --\".") == 2);
    CHECK(count(sql_for("a'; DROP TABLE x; --"), ';') == 2);
    CHECK(qualified(sql_for("a\\b"), "\"a\\\\b\".") == 2);
    CHECK(qualified(sql_for("\xC3\xA9"), "\"\xC3\xA9\".") == 2);
    CHECK(qualified(init_db_sql(), "\".") == 0);
}

TEST_CASE("A schema that is empty or holds a NUL byte is refused") {
    CHECK_THROWS_AS(sql_for(""), std::invalid_argument);
    CHECK_THROWS_WITH(sql_for(""), Catch::Contains("schema must not be empty"));
    CHECK_THROWS_AS(sql_for(std::string(1, '\0')), std::invalid_argument);
    CHECK_THROWS_AS(sql_for(std::string("a\0b", 3)), std::invalid_argument);
}

TEST_CASE("init_db sends the same blocks, and no statement beside them that makes anything") {
    TableOptions options;
    options.schema = "app";
    CHECK(detail::table_script(options) ==
          "SET LOCAL client_min_messages = warning;\n" + init_db_sql(options));
}

TEST_CASE("With notify there is one more statement, and one removes what it makes") {
    TableOptions options;
    options.schema = "a'; b";
    const auto plain = init_db_sql(options);
    CHECK_THAT(plain, !Catch::Contains("TRIGGER", Catch::CaseSensitive::No));
    options.notify = true;
    const auto text = init_db_sql(options);
    REQUIRE(text.size() > plain.size());
    CHECK(text.substr(0, plain.size()) == plain);
    for (const auto& statement : {text.substr(plain.size()), drop_notify_sql(options)}) {
        INFO(statement);
        CHECK(count(statement, ';') == 1);
        CHECK(statement.substr(statement.size() - 2) == ";\n");
        CHECK_THAT(statement, Catch::StartsWith("DO E'BEGIN\n  PERFORM pg_advisory_xact_lock("));
    }
    options.tags = true;
    CHECK(count(init_db_sql(options), ';') == 5);
    CHECK(detail::notify_removal_script(options) ==
          "SET LOCAL client_min_messages = warning;\n" + drop_notify_sql(options));
}
