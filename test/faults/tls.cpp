// Connections over a network: certificates of the server and of the client, and the ways to address
// a server.

#include <catch2/catch.hpp>
#include <cstdlib>

#include "support/both.hpp"
#include "support/private_server.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

/// A server with an authority of its own. Everybody needs TLS on its ports; the role "certified"
/// needs a certificate, the role "scram" the password "secret".
class TlsServer {
  public:
    static bool available() {
        if (std::system("command -v openssl >/dev/null") != 0) {
            WARN("openssl is not installed: what needs certificates is left out");
            return false;
        }
        return PrivateServer::available();
    }

    TlsServer()
        : server_({"listen_addresses = '127.0.0.1, ::1'", "password_encryption = 'scram-sha-256'"},
                  {"hostssl all certified all cert", "hostssl all scram all scram-sha-256",
                   "hostssl all all all trust", "host all all all reject"}) {
        const std::string made = std::string(PSYCACHE_TEST_SUPPORT "/make_certificates ") +
                                 server_.folder() + " certified >" + server_.folder() +
                                 "/certificates.log 2>&1";
        if (std::system(made.c_str()) != 0) {
            throw std::runtime_error("cannot make certificates");
        }
        Psql sql(server_.dsn());
        sql.exec("CREATE ROLE certified LOGIN; CREATE ROLE scram LOGIN PASSWORD 'secret'");
        init_db(server_.dsn());
        sql.exec("GRANT ALL ON psycache TO certified, scram");
        present("good");
        server_.configure("ssl = on");
    }

    /// New sessions are shown that certificate.
    void present(const std::string& name) {
        server_.configure("ssl_key_file = '" + file(name + ".key") + "'\nssl_cert_file = '" +
                          file(name + ".crt") + "'\nssl_ca_file = '" + file("ca.crt") + "'");
    }

    PrivateServer& server() { return server_; }
    std::string file(const std::string& name) const { return server_.folder() + "/" + name; }

    /// A DSN that checks the server, with some settings replaced.
    std::string dsn(const Settings& changes = {}) const {
        return server_.tcp_dsn(dsn_changes(changes));
    }

  private:
    Settings dsn_changes(const Settings& changes) const {
        Settings all{{"host", "localhost"},
                     {"hostaddr", "127.0.0.1"},
                     {"sslmode", "verify-full"},
                     {"sslrootcert", file("ca.crt")},
                     {"password", "marker-4711"}};
        for (const auto& [name, value] : changes) {
            all[name] = value;
        }
        return all;
    }

    PrivateServer server_;
};

PoolOptions plain_pool(const std::string& where) {
    PoolOptions options;
    options.dsn = where;
    return options;
}

/// Checks that a cache works.
void check_works(Flavour flavour, const std::string& where) {
    const auto cache = make_cache(flavour, CacheOptions(), plain_pool(where));
    json::object value;
    value["text"] = std::string(100'000, 'x');
    cache->put("key", value, 1h);
    CHECK((cache->get("key") == value));
    CHECK(cache->remove("key"));
}

/// Checks that a cache is refused soon, with that reason, and tells no password.
void check_refused(Flavour flavour, const std::string& where, Errc code, const std::string& cause) {
    LogCapture log;
    auto options = plain_pool(where);
    options.log = log.sink();
    const auto cache = make_cache(flavour, CacheOptions(), options);
    const auto started = Clock::now();
    const auto failure = failure_of([&] { cache->put("key", numbered(1), 1h); });
    CHECK(Clock::now() - started < 4s * slowness);
    CHECK(failure.code() == code);
    CHECK(failure.code() == Condition::unavailable);
    CHECK_THAT(failure.what(), Catch::Contains(cause));
    CHECK(log.journal().contains(cause));
    CHECK_THAT(failure.what(), !Catch::Contains("4711"));
    CHECK_FALSE(log.journal().contains("4711"));
}

}  // namespace

TEST_CASE("A server's certificate is checked as verify-full says, and the failure tells why not") {
    if (!TlsServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TlsServer tls;
    check_works(flavour, tls.dsn());
    check_refused(flavour, tls.dsn({{"sslrootcert", tls.file("other-ca.crt")}}),
                  Errc::connect_failed, "certificate verify failed");
    check_refused(flavour, tls.dsn({{"sslrootcert", tls.file("absent.crt")}}), Errc::connect_failed,
                  "does not exist");
    check_refused(flavour, tls.dsn({{"sslmode", "disable"}}), Errc::authentication_failed,
                  "refused the role");

    // A cache that is in use notices at its next connection.
    auto options = plain_pool(tls.dsn({{"application_name", "in use"}}));
    const auto cache = make_cache(flavour, CacheOptions(), options);
    cache->put("key", numbered(1), 1h);
    tls.present("wrong-name");
    check_refused(flavour, tls.dsn(), Errc::connect_failed, "does not match host name");
    CHECK(cache->get("key") == numbered(1));
    tls.present("expired");
    check_refused(flavour, tls.dsn(), Errc::connect_failed, "certificate verify failed");
    CHECK(Psql(tls.server().dsn()).terminate("in use") >= 1);
    CHECK(failure_of([&] { cache->get("key"); }).code() == Errc::connect_failed);
    tls.present("good");
    const auto works = [&] { return !failure_of([&] { cache->get("key"); }); };
    CHECK(eventually(works));
    CHECK(cache->get("key") == numbered(1));
}

TEST_CASE("A client shows its certificate, and is refused without one") {
    if (!TlsServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const TlsServer tls;
    const Settings certified{{"user", "certified"},
                             {"sslcert", tls.file("client.crt")},
                             {"sslkey", tls.file("client.key")}};
    check_works(flavour, tls.dsn(certified));
    check_refused(flavour, tls.dsn({{"user", "certified"}, {"sslcert", "/nonexistent"}}),
                  Errc::authentication_failed, "refused the role");
    auto other_role = certified;
    other_role["user"] = "scram";
    other_role["password"] = "wrong-4711";
    check_refused(flavour, tls.dsn(other_role), Errc::authentication_failed,
                  "password authentication failed");
}

TEST_CASE("A password is bound to the channel when asked for") {
    if (!TlsServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    const TlsServer tls;
    const Settings bound{{"user", "scram"}, {"password", "secret"}, {"channel_binding", "require"}};
    check_works(flavour, tls.dsn(bound));
    // Without TLS, and where the server asks for no password.
    auto plain = bound;
    plain["sslmode"] = "disable";
    check_refused(flavour, tls.dsn(plain), Errc::authentication_failed, "refused the role");
    auto trusted = bound;
    trusted["user"] = "postgres";
    check_refused(flavour, tls.dsn(trusted), Errc::connect_failed, "channel binding");
}

TEST_CASE("A server is reached by IPv6, by a Unix socket and as the second of two hosts") {
    if (!TlsServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    TlsServer tls;
    auto& server = tls.server();
    const auto reached_at = [&](const std::string& where) {
        const auto name = unique_name("reach");
        const auto cache = make_cache(flavour, CacheOptions(),
                                      plain_pool(dsn_with({{"application_name", name}}, where)));
        cache->put("key", numbered(1), 1h);
        CHECK(cache->get("key") == numbered(1));
        return Psql(server.dsn())
            .value(
                "SELECT coalesce(host(client_addr), 'socket') FROM pg_stat_activity WHERE "
                "application_name = " +
                quote_literal(name));
    };
    CHECK(reached_at(server.dsn()) == "socket");
    CHECK(reached_at(tls.dsn({{"hostaddr", ""}, {"host", "127.0.0.1"}})) == "127.0.0.1");
    CHECK(reached_at(tls.dsn({{"host", "localhost,localhost"},
                              {"hostaddr", "127.0.0.1,127.0.0.1"},
                              {"port", "1," + server.port()}})) == "127.0.0.1");

    try {
        Psql(server.tcp_dsn({{"host", "::1"}, {"sslmode", "require"}}));
    } catch (const SqlError&) {
        WARN("The machine has no IPv6 loopback: it is not tested");
        return;
    }
    CHECK(reached_at(tls.dsn({{"hostaddr", ""}, {"host", "::1"}})) == "::1");
    CHECK(reached_at("postgresql://postgres@[::1]:" + server.port() +
                     "/postgres?sslmode=verify-full&sslrootcert=" + tls.file("ca.crt")) == "::1");
    CHECK(reached_at("postgresql://postgres@127.0.0.1:1,[::1]:" + server.port() +
                     "/postgres?sslmode=verify-full&sslrootcert=" + tls.file("ca.crt")) == "::1");
}
