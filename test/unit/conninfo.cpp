#include "pg/conninfo.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <stdexcept>

using namespace psycache::detail::pg;

namespace {

std::string value_of(const ConnectParameters& parameters, const std::string& keyword) {
    const auto found = std::find_if(parameters.begin(), parameters.end(),
                                    [&](const auto& one) { return one.first == keyword; });
    return found == parameters.end() ? "(none)" : found->second;
}

}  // namespace

TEST_CASE("a DSN that libpq cannot read is refused without being repeated", "[conninfo]") {
    for (const char* dsn : {"host", "host=a passwort=secret", "postgresql://[::1", "a b=c"}) {
        INFO(dsn);
        try {
            check_dsn(dsn, "PoolOptions::dsn");
            FAIL("accepted");
        } catch (const std::invalid_argument& error) {
            CHECK(std::string(error.what()).find("PoolOptions::dsn") == 0);
            CHECK(std::string(error.what()).find("secret") == std::string::npos);
        }
    }
    CHECK_THROWS_AS(check_dsn(std::string("host=a\0b", 8), "dsn"), std::invalid_argument);
    CHECK_NOTHROW(check_dsn("", "dsn"));
    CHECK_NOTHROW(check_dsn("postgresql://u:p@a:1,b:2/d?target_session_attrs=read-write", "dsn"));
}

TEST_CASE("hosts, addresses and ports are matched as libpq does", "[conninfo]") {
    const auto info = read_conninfo("host=a,/run/pg,c hostaddr=,,10.0.0.1 port=1,2,3 user=x");
    REQUIRE(info.hosts.size() == 3);
    CHECK(info.hosts[0].name == "a");
    CHECK(info.hosts[0].address.empty());
    CHECK(info.hosts[0].port == "1");
    CHECK(info.hosts[1].name == "/run/pg");
    CHECK(info.hosts[2].address == "10.0.0.1");
    CHECK(info.hosts[2].port == "3");
    const auto one_port = read_conninfo("postgresql://a,b/db?port=7");
    REQUIRE(one_port.hosts.size() == 2);
    CHECK(one_port.hosts[1].port == "7");
}

TEST_CASE("only names without an address are resolved", "[conninfo]") {
    const auto needs = [](const char* name, const char* address) {
        Host host;
        host.name = name;
        host.address = address;
        return needs_resolving(host);
    };
    CHECK(needs("db.example", ""));
    CHECK(needs("localhost", ""));
    CHECK_FALSE(needs("db.example", "10.0.0.1"));
    CHECK_FALSE(needs("127.0.0.1", ""));
    CHECK_FALSE(needs("::1", ""));
    CHECK_FALSE(needs("/var/run/postgresql", ""));
    CHECK_FALSE(needs("@abstract", ""));
    CHECK_FALSE(needs("", ""));
}

TEST_CASE("the encoding is UTF-8 and Kerberos is not probed unless asked for", "[conninfo]") {
    const auto parameters = [](const std::string& dsn) {
        const Conninfo info = read_conninfo(dsn);
        return connect_parameters(dsn, info, info.hosts);
    };
    const auto plain = parameters("host=a client_encoding=latin1");
    CHECK(plain.front().first == "dbname");
    CHECK(value_of(plain, "client_encoding") == "UTF8");
    CHECK(value_of(plain, "gssencmode") == "disable");
    CHECK(value_of(plain, "fallback_application_name") == "psycache");
    CHECK(value_of(parameters("host=a gssencmode=prefer"), "gssencmode") == "(none)");
    CHECK(value_of(plain, "keepalives_idle") == "10");
    CHECK(value_of(plain, "tcp_user_timeout") == "10000");
    const auto own = parameters("host=a keepalives_idle=60 tcp_user_timeout=0");
    CHECK(value_of(own, "keepalives_idle") == "(none)");
    CHECK(value_of(own, "keepalives_count") == "3");
    CHECK(value_of(own, "tcp_user_timeout") == "(none)");
    CHECK(value_of(parameters("host=a gssencmode=require"), "gssencmode") == "(none)");
}

TEST_CASE("the host may come from the environment", "[conninfo]") {
    ::setenv("PGHOST", "from-environment", 1);
    ::setenv("PGPORT", "77", 1);
    const auto info = read_conninfo("user=x");
    ::unsetenv("PGHOST");
    ::unsetenv("PGPORT");
    REQUIRE(info.hosts.size() == 1);
    CHECK(info.hosts[0].name == "from-environment");
    CHECK(info.hosts[0].port == "77");
}
