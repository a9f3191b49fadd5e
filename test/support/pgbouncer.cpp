#include "pgbouncer.hpp"

#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <stdexcept>

#include "run_coro.hpp"

namespace psycache::test {

namespace {

/// @returns where the program is, "" if nowhere.
std::string program() {
    const char* const path = std::getenv("PATH");
    // The folders of an ordinary user do not have Debian's.
    std::string folders = (path == nullptr ? "" : std::string(path) + ":") + "/usr/sbin:";
    for (std::size_t end = 0; (end = folders.find(':')) != std::string::npos;
         folders.erase(0, end + 1)) {
        std::string candidate = folders.substr(0, end) + "/pgbouncer";
        if (::access(candidate.c_str(), X_OK) == 0) {
            return candidate;
        }
    }
    return {};
}

std::string some_port() {
    static std::mt19937 random{std::random_device()()};
    return std::to_string(std::uniform_int_distribution<int>(20000, 31999)(random));
}

}  // namespace

bool PgBouncer::installed() {
    if (program().empty()) {
        WARN("pgbouncer is not installed: what needs it is left out");
        return false;
    }
    return true;
}

PgBouncer::PgBouncer(const Settings& settings, const std::string& server)
    : server_(server),
      settings_{
          {"pool_mode", "transaction"}, {"default_pool_size", "2"}, {"server_login_retry", "0.1"}} {
    for (const auto& [name, value] : settings) {
        settings_[name] = value;
    }
    // libpq knows what the DSN leaves to its defaults.
    const Psql probe(server);
    user_ = PQuser(probe.native());
    databases_ = std::string("[databases]\n* = host=") + PQhost(probe.native()) +
                 " port=" + PQport(probe.native()) + "\n";
    service_.write("users", "\"" + user_ + "\" \"" + PQpass(probe.native()) + "\"\n");
    // A port that is free now can be taken a moment later, hence another try.
    for (int attempt = 0;; ++attempt) {
        port_ = some_port();
        write_configuration();
        try {
            start();
            return;
        } catch (const std::runtime_error&) {
            if (attempt == 3) {
                throw;
            }
            stop();
        }
    }
}

void PgBouncer::write_configuration() const {
    std::string text = databases_ + "[pgbouncer]\n";
    Settings all{{"listen_addr", "127.0.0.1"},
                 {"listen_port", port_},
                 {"unix_socket_dir", service_.folder()},
                 {"auth_type", "trust"},
                 {"auth_file", service_.folder() + "/users"},
                 {"admin_users", user_},
                 {"server_tls_sslmode", "disable"},
                 {"max_client_conn", "400"}};
    for (const auto& [name, value] : settings_) {
        all[name] = value;
    }
    for (const auto& [name, value] : all) {
        text += name + " = " + value + "\n";
    }
    service_.write("pgbouncer.ini", text);
}

std::string PgBouncer::dsn(const Settings& changes) const {
    const Settings here{
        {"host", service_.folder()}, {"hostaddr", ""}, {"port", port_}, {"options", ""}};
    return dsn_with(changes, dsn_with(here, server_));
}

std::string PgBouncer::tcp_dsn(const Settings& changes) const {
    Settings tcp{{"host", "127.0.0.1"}, {"sslmode", "disable"}, {"gssencmode", "disable"}};
    tcp.insert(changes.begin(), changes.end());
    return dsn(tcp);
}

bool PgBouncer::answers() const {
    try {
        Psql by_tcp(tcp_dsn({{"dbname", "pgbouncer"}}));
        return !admin("SHOW VERSION").empty();
    } catch (const SqlError&) {
        return false;
    }
}

void PgBouncer::start() {
    service_.start({program(), service_.folder() + "/pgbouncer.ini"});
    if (!eventually([this] { return answers(); }, patience / 2)) {
        throw std::runtime_error("pgbouncer did not start: " + service_.read("output"));
    }
}

void PgBouncer::stop() {
    service_.stop();
}

void PgBouncer::restart() {
    stop();
    start();
}

void PgBouncer::configure(const Settings& changes) {
    for (const auto& [name, value] : changes) {
        settings_[name] = value;
    }
    write_configuration();
    admin("RELOAD");
}

Rows PgBouncer::admin(const std::string& command) const {
    Psql console(dsn({{"dbname", "pgbouncer"}}));
    return console.exec(command);
}

std::size_t PgBouncer::count(const std::string& command) const {
    // The second column is the user, the third one the database.
    const Rows rows = admin(command);
    return static_cast<std::size_t>(std::count_if(
        rows.begin(), rows.end(), [](const auto& row) { return row[2] != "pgbouncer"; }));
}

}  // namespace psycache::test
