// Least privilege: what each call needs, and what is told when it lacks something.

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>

#include "support/both.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

using Words = std::vector<std::string>;

/// A role that may log in and owns nothing, while it lives.
class UnprivilegedRole {
  public:
    UnprivilegedRole() { sql_.exec("CREATE ROLE " + name_ + " LOGIN"); }
    UnprivilegedRole(const UnprivilegedRole&) = delete;
    UnprivilegedRole& operator=(const UnprivilegedRole&) = delete;
    ~UnprivilegedRole() {
        try {
            sql_.exec("DROP OWNED BY " + name_ + "; DROP ROLE " + name_);
        } catch (const SqlError& error) {
            std::cerr << "a test role stays behind: " << error.what() << '\n';
        }
    }
    const std::string& name() const { return name_; }
    PoolOptions pool() const {
        PoolOptions options;
        options.dsn = dsn();
        return options;
    }
    std::string dsn() const {
        return dsn_with({{"user", name_}, {"application_name", name_}, {"options", ""}});
    }

  private:
    std::string name_ = unique_name("role");
    Psql sql_;
};

/// A table of a schema's owner, and a role that is given rights on both.
struct Shared {
    void grant(const std::string& rights) {
        schema.sql().exec("GRANT " + rights + " ON " + schema.table() + " TO " + role.name());
    }
    void revoke(const std::string& rights) {
        schema.sql().exec("REVOKE " + rights + " ON " + schema.table() + " FROM " + role.name());
    }
    void grant_on_schema(const std::string& rights) {
        schema.sql().exec("GRANT " + rights + " ON SCHEMA " + schema.quoted() + " TO " +
                          role.name());
    }
    void revoke_on_schema(const std::string& rights) {
        schema.sql().exec("REVOKE " + rights + " ON SCHEMA " + schema.quoted() + " FROM " +
                          role.name());
    }

    UnprivilegedRole role;  // outlives what it has rights on
    TestSchema schema;
};

/// Makes every call.
///
/// @returns those that were denied, each with a text that names the rights and what they are on.
Words denied_calls(AnyCache& cache, const TestSchema& schema) {
    static const std::vector<std::pair<std::string, std::function<void(AnyCache&)>>> calls{
        {"get", [](AnyCache& one) { one.get("key"); }},
        {"get_text", [](AnyCache& one) { one.get_text("key"); }},
        {"get_many",
         [](AnyCache& one) {
             one.get_many({"a", "b"});
         }},
        {"put", [](AnyCache& one) { one.put("key", numbered(1), 1h); }},
        {"put_text", [](AnyCache& one) { one.put_text("key", "{}", 1h); }},
        {"put_many",
         [](AnyCache& one) {
             one.put_many({Entry("a", numbered(1), 1h), Entry("b", numbered(2), 1h)});
         }},
        {"remove", [](AnyCache& one) { one.remove("key"); }},
        {"remove_many",
         [](AnyCache& one) {
             one.remove_many({"a", "b"});
         }},
        {"cleanup", [](AnyCache& one) { one.cleanup(); }},
        {"flush", [](AnyCache& one) { one.flush(); }},
    };
    Words denied;
    for (const auto& entry : calls) {
        const auto& name = entry.first;
        CAPTURE(name);
        const auto failure = failure_of([&] { entry.second(cache); });
        if (!failure) {
            continue;
        }
        denied.push_back(name);
        CHECK(failure.code() == Errc::permission_denied);
        CHECK(failure.code() == Condition::caller_mistake);
        CHECK(failure.sqlstate() == "42501");
        for (const char* part : {"SELECT", "INSERT", "UPDATE", "DELETE", "USAGE"}) {
            CHECK_THAT(failure.what(), Catch::Contains(part));
        }
        CHECK_THAT(failure.what(), Catch::Contains(schema.table()));
    }
    return denied;
}

const Words all_calls{"get",      "get_text", "get_many",    "put",     "put_text",
                      "put_many", "remove",   "remove_many", "cleanup", "flush"};

/// All calls but some.
Words all_but(const Words& others) {
    Words rest;
    for (const auto& call : all_calls) {
        if (std::find(others.begin(), others.end(), call) == others.end()) {
            rest.push_back(call);
        }
    }
    return rest;
}

}  // namespace

TEST_CASE("An application needs the four rights on the table and USAGE on its schema, no more") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    Shared shared;
    shared.grant_on_schema("USAGE");
    shared.grant("SELECT, INSERT, UPDATE, DELETE");
    const auto cache = make_cache(flavour, shared.schema.cache_options(), shared.role.pool());
    CHECK(denied_calls(*cache, shared.schema) == Words{});
    const auto connections = [&] {
        return shared.schema.sql().exec(
            "SELECT pid FROM pg_stat_activity WHERE application_name = " +
            quote_literal(shared.role.name()));
    };
    const Rows before = connections();
    CHECK_FALSE(before.empty());

    const std::vector<std::pair<std::string, Words>> needed{
        {"SELECT", all_but({"flush"})},
        {"INSERT", {"put", "put_text", "put_many"}},
        // Removes go one by one then.
        {"UPDATE", {"put", "put_text", "put_many", "cleanup"}},
        {"DELETE", {"remove", "remove_many", "cleanup", "flush"}},
    };
    for (const auto& [right, calls] : needed) {
        CAPTURE(right);
        shared.revoke(right);
        CHECK(denied_calls(*cache, shared.schema) == calls);
        shared.grant(right);
        CHECK(denied_calls(*cache, shared.schema) == Words{});
    }
    shared.revoke_on_schema("USAGE");
    CHECK(denied_calls(*cache, shared.schema) == all_calls);
    shared.grant_on_schema("USAGE");
    CHECK(denied_calls(*cache, shared.schema) == Words{});
    // No connection was given up for it.
    CHECK(connections() == before);
}

TEST_CASE("A role that only cleans up needs SELECT, UPDATE and DELETE") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    Shared shared;
    shared.grant_on_schema("USAGE");
    shared.grant("SELECT, UPDATE, DELETE");
    shared.schema.insert_many("old", 2500, "now() - interval '1 second'");
    shared.schema.insert("live", "{}");
    const auto cache = make_cache(flavour, shared.schema.cache_options(), shared.role.pool());
    CHECK(cache->cleanup() == 2500);
    CHECK(shared.schema.rows() == 1);
    CHECK(denied_calls(*cache, shared.schema) == Words{"put", "put_text", "put_many"});
}

TEST_CASE("A role that only reads needs SELECT") {
    const auto flavour = EVERY_FLAVOUR();
    CAPTURE(flavour);
    Shared shared;
    shared.grant_on_schema("USAGE");
    shared.grant("SELECT");
    shared.schema.insert("key", "{\"n\": 1}");
    const auto cache = make_cache(flavour, shared.schema.cache_options(), shared.role.pool());
    CHECK(cache->get("key") == numbered(1));
    CHECK(denied_calls(*cache, shared.schema) == all_but({"get", "get_text", "get_many"}));
}

TEST_CASE("init_db is for the owner: other roles are refused, the table stays as it is") {
    Shared shared;
    shared.schema.insert("key", "{}");
    const auto refused = [&] {
        return failure_of([&] { init_db(shared.role.dsn(), shared.schema.table_options()); });
    };
    const auto check_refused = [&] {
        const auto failure = refused();
        CHECK(failure.code() == Errc::permission_denied);
        CHECK(failure.sqlstate() == "42501");
        CHECK_THAT(failure.what(), Catch::Contains(shared.schema.quoted()));
    };
    check_refused();
    shared.grant_on_schema("USAGE");
    shared.grant("SELECT, INSERT, UPDATE, DELETE");
    check_refused();
    CHECK(shared.schema.rows() == 1);
    // Who owns the table and may create in the schema may call it at every start.
    shared.grant_on_schema("CREATE");
    shared.schema.sql().exec("ALTER TABLE " + shared.schema.table() + " OWNER TO " +
                             shared.role.name());
    CHECK_FALSE(refused());
    CHECK(shared.schema.rows() == 1);
}

TEST_CASE(
    "init_db by a role that may create tables, but does not own the one that is there, "
    "tells the right reason") {
    Shared shared;
    shared.grant_on_schema("USAGE, CREATE");
    shared.grant("SELECT, INSERT, UPDATE, DELETE");
    const auto failure =
        failure_of([&] { init_db(shared.role.dsn(), shared.schema.table_options()); });
    CHECK(failure.code() == Errc::permission_denied);
    CAPTURE(failure.what());
    // It may create tables; what it lacks is the ownership of the table.
    CHECK_THAT(failure.what(), Catch::Contains("owner") || Catch::Contains("own the table"));
}
