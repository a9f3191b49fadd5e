// Passwords: what happens when one is changed while it is in use, and that none is ever told.

#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <functional>
#include <memory>
#include <thread>

#include "support/both.hpp"
#include "support/callers.hpp"
#include "support/private_server.hpp"
#include "support/spy.hpp"

using namespace psycache;
using namespace psycache::test;
using namespace std::chrono_literals;

namespace {

using Words = std::vector<std::string>;

constexpr const char* marker = "mArKeR4711";

/// A server with a role that needs a password on its port.
class PasswordServer {
  public:
    PasswordServer() : server_({}, {"host all guarded all scram-sha-256"}) {
        init_db(server_.dsn());
        Psql sql(server_.dsn());
        sql.exec("CREATE ROLE guarded LOGIN; GRANT ALL ON psycache TO guarded");
        set_password("first");
    }
    void set_password(const std::string& password) {
        Psql(server_.dsn()).exec("ALTER ROLE guarded PASSWORD " + quote_literal(password));
    }
    std::string dsn(const Settings& changes = {}) const {
        return dsn_with(changes, server_.tcp_dsn({{"user", "guarded"},
                                                  {"password", "first"},
                                                  {"application_name", "guarded"}}));
    }
    std::int64_t terminate() { return Psql(server_.dsn()).terminate("guarded"); }
    /// How often a password was refused.
    std::size_t refusals() const {
        const std::string log = server_.log();
        const std::string words = "password authentication failed";
        std::size_t count = 0;
        for (auto at = log.find(words); at != std::string::npos; at = log.find(words, at + 1)) {
            ++count;
        }
        return count;
    }

  private:
    PrivateServer server_;
};

PoolOptions pool_at(const std::string& where) {
    PoolOptions options;
    options.dsn = where;
    options.connect_timeout = 1s * slowness;
    options.acquire_timeout = 1500ms * slowness;
    return options;
}

/// Adds a flavour's callers.
void add_callers(Callers& callers, Flavour flavour, const PoolOptions& pool,
                 const CacheOptions& options) {
    if (flavour == Flavour::async) {
        callers.add(pool, options, 32);
    } else {
        callers.add_threads(pool, options, 8);
    }
}

/// Every text that somebody gets to see who uses a DSN in every way there is.
Words texts_about(const std::string& where) {
    Words texts;
    LogCapture log;
    auto pool = pool_at(where);
    pool.log = log.sink();
    CacheOptions options;
    options.timeout = 2s * slowness;
    options.log = log.sink();
    const auto collect = [&](const std::function<void()>& call) {
        try {
            call();
        } catch (const Error& error) {
            texts.emplace_back(error.what());
            texts.emplace_back(error.server_message());
            texts.push_back(error.code().message());
        } catch (const std::exception& error) {
            texts.emplace_back(error.what());
        }
    };
    for (const Flavour flavour : {Flavour::async, Flavour::blocking}) {
        collect([&] {
            const auto cache = make_cache(flavour, options, pool);
            collect([&] { cache->get("key"); });
            collect([&] { cache->put("key", numbered(1), 1h); });
            collect([&] { cache->cleanup(); });
        });
    }
    collect([&] { init_db(where); });
    const Words lines = log.journal().lines();
    texts.insert(texts.end(), lines.begin(), lines.end());
    return texts;
}

/// What the program psycache says, on both its outputs, when it is called with these arguments.
std::string program_says(const std::vector<std::string>& arguments) {
#ifdef PSYCACHE_TEST_PROGRAM
    std::string command = PSYCACHE_TEST_PROGRAM;
    for (const auto& argument : arguments) {
        std::string quoted;
        for (const char c : argument) {
            quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
        }
        command += " '" + quoted + "'";
    }
    const std::unique_ptr<FILE, int (*)(FILE*)> output(::popen((command + " 2>&1").c_str(), "r"),
                                                       ::pclose);
    std::string text;
    for (int c = std::fgetc(output.get()); c != EOF; c = std::fgetc(output.get())) {
        text += static_cast<char>(c);
    }
    return text;
#else
    (void)arguments;
    return "psycache: not built";
#endif
}

/// Checks that a DSN makes everybody complain, and that nobody tells the marker.
void check_told_by_nobody(const std::string& where) {
    CAPTURE(where);
    Words texts = texts_about(where);
    CHECK(texts.size() >= 3);
    texts.push_back(program_says({"init-db", where}));
    CHECK_THAT(texts.back(), Catch::StartsWith("psycache: "));
    for (const auto& text : texts) {
        CHECK_THAT(text, !Catch::Contains(marker));
    }
}

}  // namespace

TEST_CASE("A password that is changed is noticed by new connections only, until it fits again") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PasswordServer server;
    CacheOptions options;
    options.timeout = 3s * slowness;
    Callers callers(options.timeout + 2s * slowness);
    add_callers(callers, flavour, pool_at(server.dsn()), options);
    REQUIRE(callers.work_on(500));

    server.set_password("second");
    CHECK(callers.work_on(2000));
    CHECK(callers.observations().codes() == Words{});

    CHECK(server.terminate() >= 1);
    const auto all_noticed = [&] { return callers.observations().failures() >= 64; };
    CHECK(eventually(all_noticed));
    for (const auto& code : callers.observations().codes()) {
        CHECK_THAT(code, Catch::Contains("[28P01]"));
    }

    server.set_password("first");
    CHECK(callers.recover());
    CHECK(callers.end());
    CHECK(callers.observations().wrong() == Words{});
}

TEST_CASE("A password that is refused is tried a few times a second, however many callers ask") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PasswordServer server;
    Callers callers(10s * slowness);
    add_callers(callers, flavour, pool_at(server.dsn({{"password", "wrong"}})), CacheOptions());
    // The pauses between attempts grow to their longest.
    CHECK(eventually([&] { return server.refusals() >= 7; }));
    const auto before = server.refusals();
    const auto since = Clock::now();
    std::this_thread::sleep_for(2s);
    const auto seconds = std::chrono::duration<double>(Clock::now() - since).count();
    // Half a second at least between two attempts.
    CHECK(static_cast<double>(server.refusals() - before) <= seconds * 2.0 + 1);
    CHECK(callers.end());
}

TEST_CASE("A password that is changed is noticed within max_lifetime") {
    if (!PrivateServer::available()) {
        return;
    }
    const auto flavour = OWN_CONNECTIONS();
    CAPTURE(flavour);
    PasswordServer server;
    auto pool = pool_at(server.dsn());
    pool.max_lifetime = 300ms;
    Callers callers(5s * slowness);
    add_callers(callers, flavour, pool, CacheOptions());
    REQUIRE(callers.work_on(500));
    CHECK(callers.observations().codes() == Words{});

    server.set_password("second");
    const auto noticed = [&] { return callers.observations().failures() > 0; };
    CHECK(eventually(noticed));
    server.set_password("first");
    CHECK(callers.recover());
    CHECK(callers.end());
    CHECK(callers.observations().wrong() == Words{});
    for (const auto& code : callers.observations().codes()) {
        CHECK_THAT(code, Catch::Contains("[28P01]"));
    }
}

TEST_CASE("No password is told, whatever is wrong with its DSN") {
    const std::string m = marker;
    for (const std::string& where : Words{
             "postgres://u:" + m + "@127.0.0.1:notaport/db",
             "postgresql://u:" + m + "@127.0.0.1:1/db",
             "postgresql://u:" + m + "@127.0.0.1:99999/db",
             "postgresql://u:" + m + "@[::1/db",
             "postgresql://u:" + m + "%ZZ@127.0.0.1:1/db",
             "postgresql://u:" + m + "@127.0.0.1:1/db?sslmode=wrong",
             "postgresql://u:" + m + "@127.0.0.1:1/db?unknown=1",
             "postgresql://u:" + m + "@no-such-host.invalid/db",
             "postgresql://u@127.0.0.1:1/db?password=" + m + "&sslpassword=" + m + "&x",
             "host=127.0.0.1 port=1 password='" + m,
             "host=127.0.0.1 port=1 password=" + m + " nonsense",
             "host=127.0.0.1 port=1 password=two " + m,
             "host=127.0.0.1 port=1 passwort=" + m,
             "host=127.0.0.1 port=one password=" + m,
             "host=127.0.0.1 hostaddr=nonsense password=" + m,
             "host=127.0.0.1 port=1 channel_binding=wrong password=" + m,
             "service=psycache-has-none password=" + m,
             m,
         }) {
        check_told_by_nobody(where);
    }
}

TEST_CASE("No password is told when the server refuses it, wherever it comes from") {
    if (!PrivateServer::available()) {
        return;
    }
    const PasswordServer server;
    check_told_by_nobody(server.dsn({{"password", marker}}));
    check_told_by_nobody(server.dsn({{"password", marker}, {"channel_binding", "require"}}));
    check_told_by_nobody(server.dsn({{"password", marker}, {"sslmode", "require"}}));
    check_told_by_nobody(server.dsn({{"password", marker}, {"target_session_attrs", "standby"}}));
    check_told_by_nobody(
        server.dsn({{"user", "postgres"}, {"password", marker}, {"dbname", "absent"}}));
    const std::string file = "/tmp/" + unique_name("psycache-pgpass");
    {
        const std::unique_ptr<FILE, int (*)(FILE*)> text(std::fopen(file.c_str(), "w"),
                                                         std::fclose);
        std::fprintf(text.get(), "*:*:*:*:%s\n", marker);
    }
    CHECK(::chmod(file.c_str(), 0600) == 0);
    check_told_by_nobody(server.dsn({{"password", ""}, {"passfile", file}}));
    std::remove(file.c_str());
}

TEST_CASE("No part of a password is told that was not escaped in its URI") {
    const std::string m = marker;
    // libpq takes what follows the first "@" for a host, and what precedes the first "/" for a host
    // and a port.
    check_told_by_nobody("postgresql://u:pass@" + m + "@127.0.0.1:1/db");
    check_told_by_nobody("postgresql://localhost:" + m + "/word@127.0.0.1:1/db");
}

TEST_CASE("The program repeats no argument that it does not expect") {
    const std::string password = std::string("password=") + marker;
    for (const auto& arguments : std::vector<Words>{{"init-db", "host=127.0.0.1", password},
                                                    {"init-db", "--" + password},
                                                    {"init-db", "--password", marker, "host=x"},
                                                    {password},
                                                    {"init-db", "--schema", "a", "", password}}) {
        const std::string words = program_says(arguments);
        CHECK_THAT(words, Catch::StartsWith("psycache: "));
        CHECK_THAT(words, !Catch::Contains(marker));
    }
}
