#include "private_server.hpp"

#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <random>
#include <stdexcept>

#include "run_coro.hpp"
#include "server_processes.hpp"
#include "server_user.hpp"

namespace psycache::test {

bool PrivateServer::available() {
    if (server_programs().empty()) {
        WARN("No programs of PostgreSQL are found: what needs a server of its own is left out");
        return false;
    }
    if (::geteuid() == 0 && server_user() == nullptr) {
        WARN("There is no user \"postgres\": what needs a server of its own is left out");
        return false;
    }
    return true;
}

PrivateServer::PrivateServer(Empty) {
    folder_ = make_server_folder();
    data_ = folder_ + "/data";
    remover_.emplace(Command{"remove-server", folder_});
    give_to_server(folder_);
}

PrivateServer::PrivateServer(const std::vector<std::string>& configuration,
                             const std::vector<std::string>& hba)
    : PrivateServer(Empty{}) {
    make_data(data_, folder_);
    write_configuration(configuration, hba);
    start_on_some_port();
}

std::unique_ptr<PrivateServer> PrivateServer::standby_of(
    const PrivateServer& primary, const std::vector<std::string>& configuration) {
    std::unique_ptr<PrivateServer> standby(new PrivateServer(Empty{}));
    run_as_server({server_programs() + "/pg_basebackup", "-D", standby->data_, "-R", "-X", "stream",
                   "-c", "fast", "--no-sync", "-d", primary.dsn()},
                  standby->folder_);
    standby->write_configuration(configuration, {});
    standby->start_on_some_port();
    return standby;
}

PrivateServer::~PrivateServer() = default;

void PrivateServer::write_configuration(const std::vector<std::string>& configuration,
                                        const std::vector<std::string>& hba) const {
    std::string rules;
    for (const auto& line : hba) {
        rules += line + '\n';
    }
    rules +=
        "local all         all trust\n"
        "host  all         all 127.0.0.1/32 trust\n"
        "local replication all trust\n";
    std::filesystem::resize_file(data_ + "/pg_hba.conf", 0);
    append_to(data_ + "/pg_hba.conf", rules);

    // Durable enough: what the processes wrote before they were killed, the kernel keeps.
    std::string settings =
        "listen_addresses = '127.0.0.1'\n"
        "unix_socket_directories = '" +
        folder_ +
        "'\n"
        "fsync = off\n"
        "full_page_writes = off\n"
        "max_wal_size = 16MB\n"
        "wal_retrieve_retry_interval = 100ms\n"
        "timezone = 'UTC'\n"
        "log_timezone = 'UTC'\n";
    for (const auto& line : configuration) {
        settings += line + '\n';
    }
    append_to(data_ + "/postgresql.conf", settings);
}

void PrivateServer::start_on_some_port() {
    // There is no way to ask for a free port and keep it.
    std::random_device random;
    for (int attempt = 0; attempt < 10; ++attempt) {
        port_ = std::to_string(20000 + random() % 12000);
        if (try_start()) {
            return;
        }
        if (log().find("could not bind") == std::string::npos) {
            break;
        }
    }
    throw std::runtime_error("a server of a test does not start:\n" + log());
}

bool PrivateServer::try_start() const {
    return succeeds_as_server({server_programs() + "/pg_ctl", "start", "-D", data_, "-w", "-t",
                               "60", "-l", folder_ + "/server.log", "-o", "-p " + port_},
                              folder_, folder_ + "/commands.log");
}

std::string PrivateServer::dsn(const Settings& changes) const {
    return dsn_with(changes,
                    "host=" + folder_ + " port=" + port_ + " user=postgres dbname=postgres");
}

std::string PrivateServer::tcp_dsn(const Settings& changes) const {
    return dsn_with(changes, dsn({{"host", "127.0.0.1"}}));
}

std::string PrivateServer::log() const {
    return text_of_file(folder_ + "/server.log");
}

void PrivateServer::stop() {
    run_as_server(
        {server_programs() + "/pg_ctl", "stop", "-D", data_, "-m", "fast", "-w", "-t", "60"},
        folder_);
}

void PrivateServer::crash() {
    kill_server(folder_);
}

void PrivateServer::start() {
    if (!try_start()) {
        throw std::runtime_error("a server of a test does not start again:\n" + log());
    }
}

void PrivateServer::restart() {
    stop();
    start();
}

void PrivateServer::promote() {
    run_as_server({server_programs() + "/pg_ctl", "promote", "-D", data_, "-w", "-t", "60"},
                  folder_);
}

void PrivateServer::freeze() {
    const auto stands_still = [&] {
        signal_all(data_, SIGSTOP);
        const auto all = processes_in(data_);
        return std::all_of(all.begin(), all.end(), is_stopped);
    };
    if (!eventually(stands_still)) {
        throw std::runtime_error("a server of a test does not stand still");
    }
}

void PrivateServer::thaw() {
    signal_all(data_, SIGCONT);
}

void PrivateServer::freeze(pid_t process) {
    ::kill(process, SIGSTOP);
}

void PrivateServer::thaw(pid_t process) {
    ::kill(process, SIGCONT);
}

void PrivateServer::configure(const std::string& line) {
    append_to(data_ + "/postgresql.conf", line + '\n');
    const auto loaded = [&] { return Psql(dsn()).value("SELECT pg_conf_load_time()"); };
    const auto before = loaded();
    Psql(dsn()).exec("SELECT pg_reload_conf()");
    // A new session has what its parent had loaded when it was born.
    const auto changed = [&] { return loaded() != before; };
    if (!eventually(changed)) {
        throw std::runtime_error("a server of a test does not load its configuration");
    }
}

std::vector<pid_t> PrivateServer::processes() const {
    return processes_in(data_);
}

void PrivateServer::remove(const std::string& folder) {
    const auto data = folder + "/data";
    // First those who would start the server again.
    const auto alone = [&] {
        signal_all(folder, SIGKILL);
        return processes_in(folder).empty();
    };
    eventually(alone, 10s);
    signal_all(data, SIGCONT);
    const pid_t first = number_in(data + "/postmaster.pid");
    if (first > 0 && works_in("/proc/" + std::to_string(first), data)) {
        ::kill(first, SIGQUIT);
        const auto gone = [&] { return processes_in(data).empty(); };
        eventually(gone, 10s);
    }
    kill_server(folder);
    std::filesystem::remove_all(folder);
}

}  // namespace psycache::test
