#include "auto_failover.hpp"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <random>
#include <stdexcept>
#include <thread>

#include "private_server.hpp"
#include "server_processes.hpp"

namespace psycache::test {

namespace {

const std::string tool = "/usr/bin/pg_autoctl";

/// @returns a port of 127.0.0.1 on which nothing listens now.
std::string free_port() {
    std::random_device random;
    for (int attempt = 0; attempt < 100; ++attempt) {
        const auto port = static_cast<std::uint16_t>(20000 + random() % 12000);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const bool is_free =
            ::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        ::close(socket);
        if (is_free) {
            return std::to_string(port);
        }
    }
    throw std::runtime_error("no port is free");
}

}  // namespace

/// A server, and the process of pg_auto_failover that keeps it running.
class AutoFailoverCluster::Machine {
  public:
    /// @param configuration further lines of postgresql.conf
    explicit Machine(const std::vector<std::string>& configuration) {
        remover_.emplace(Command{"remove-server", folder_});
        give_to_server(folder_);
        make_data(data_, folder_);
        std::string lines =
            // A folder would be that of the wrong node once pg_rewind has copied this file.
            "unix_socket_directories = ''\n"
            "fsync = off\n"
            // What the tool writes at the top would take a quarter of the memory.
            "shared_buffers = 16MB\n"
            "max_wal_size = 16MB\n"
            "wal_keep_size = 64MB\n"
            // A base backup and a promotion wait for one.
            "checkpoint_completion_target = 0\n"
            "wal_retrieve_retry_interval = 100ms\n"
            "logging_collector = off\n"
            "timezone = 'UTC'\n"
            "log_timezone = 'UTC'\n";
        for (const auto& line : configuration) {
            lines += line + '\n';
        }
        append_to(data_ + "/postgresql.conf", lines);
    }

    const std::string& folder() const { return folder_; }
    const std::string& data() const { return data_; }
    const std::string& port() const { return port_; }
    std::string log() const { return text_of_file(folder_ + "/autoctl.log"); }

    /// Runs pg_autoctl beside the test.
    void run_tool(const Command& arguments) const {
        // None of the settings of who runs the tests, libpq's in particular.
        Command command{"env",
                        "-i",
                        "PATH=" + server_programs() + ":/usr/bin:/bin",
                        "LC_ALL=C.UTF-8",
                        "HOME=" + folder_,
                        "XDG_RUNTIME_DIR=" + folder_,
                        "PGHOST=127.0.0.1",
                        "PGUSER=postgres",
                        "setsid",
                        "--fork",
                        tool};
        command.insert(command.end(), arguments.begin(), arguments.end());
        if (!succeeds_as_server(command, folder_, folder_ + "/autoctl.log")) {
            throw std::runtime_error("pg_autoctl cannot be run:\n" + log());
        }
    }
    void create(const std::string& kind, const Command& arguments) const {
        Command command{"create", kind,    "--pgdata",   data_,       "--pgport", port_,
                        "--auth", "trust", "--hostname", "127.0.0.1", "--no-ssl", "--run"};
        command.insert(command.end(), arguments.begin(), arguments.end());
        run_tool(command);
    }

    void kill() const {
        const auto gone = [&] {
            signal_all(folder_, SIGKILL);
            return processes_in(folder_).empty();
        };
        if (!eventually(gone)) {
            throw std::runtime_error("killed processes of pg_auto_failover do not end");
        }
        kill_server(folder_);
        // Its number can be that of another process when it runs again.
        std::filesystem::remove_all(folder_ + "/pg_autoctl");
    }
    void freeze() const {
        const auto stands_still = [&] {
            auto all = processes_in(folder_);
            const auto servers = processes_in(data_);
            all.insert(all.end(), servers.begin(), servers.end());
            for (const pid_t process : all) {
                ::kill(process, SIGSTOP);
            }
            return std::all_of(all.begin(), all.end(), is_stopped);
        };
        if (!eventually(stands_still)) {
            throw std::runtime_error("a node does not stand still");
        }
    }
    void thaw() const {
        signal_all(data_, SIGCONT);
        signal_all(folder_, SIGCONT);
    }

  private:
    const std::string folder_ = make_server_folder();
    const std::string data_ = folder_ + "/data";
    const std::string port_ = free_port();
    std::optional<Child> remover_;
};

bool AutoFailoverCluster::available() {
    if (!PrivateServer::available()) {
        return false;
    }
    // Debian has it for its own version of PostgreSQL only.
    const auto library = server_programs() + "/../lib/pgautofailover.so";
    if (::access(tool.c_str(), X_OK) != 0 || ::access(library.c_str(), R_OK) != 0) {
        WARN("skipped: no pg_auto_failover for this server");
        return false;
    }
    return true;
}

AutoFailoverCluster::AutoFailoverCluster() {
    // A node is dead when two checks have failed and it has not reported for some seconds: a busy
    // machine must not look so.
    machines_[2] = std::make_unique<Machine>(std::vector<std::string>{
        "pgautofailover.health_check_period = 500", "pgautofailover.health_check_timeout = 2000",
        "pgautofailover.health_check_retry_delay = 500",
        "pgautofailover.health_check_max_retries = 1",
        "pgautofailover.node_considered_unhealthy_timeout = 4000",
        "pgautofailover.startup_grace_period = 1000",
        "pgautofailover.primary_demote_timeout = 2000"});
    monitor().create("monitor", {});
    wait("the monitor answers", [&] { return states().empty(); });
    for (std::size_t i = 0; i < 2; ++i) {
        machines_[i] = std::make_unique<Machine>(std::vector<std::string>{});
        machines_[i]->create(
            "postgres",
            {"--listen", "127.0.0.1", "--name", "node" + std::to_string(i), "--monitor",
             "postgres://autoctl_node@127.0.0.1:" + monitor().port() + "/pg_auto_failover"});
        // The first one that it hears of is the primary.
        const auto known = "node" + std::to_string(i);
        wait("a node is known", [&] { return states().find(known) != std::string::npos; });
    }
    wait_until_whole(0);
}

AutoFailoverCluster::~AutoFailoverCluster() = default;

std::string AutoFailoverCluster::dsn(std::size_t first, const Settings& changes) const {
    return dsn_with(changes, node_dsn(first, {{"host", "127.0.0.1,127.0.0.1"},
                                              {"port", port(first) + "," + port(1 - first)},
                                              {"target_session_attrs", "read-write"}}));
}

std::string AutoFailoverCluster::node_dsn(std::size_t node, const Settings& changes) const {
    return dsn_with(changes, "host=127.0.0.1 port=" + port(node) +
                                 " user=postgres dbname=postgres sslmode=disable");
}

const std::string& AutoFailoverCluster::port(std::size_t node) const {
    return machines_.at(node)->port();
}

void AutoFailoverCluster::switch_over() {
    monitor().run_tool({"perform", "switchover", "--pgdata", monitor().data()});
}

void AutoFailoverCluster::kill(std::size_t node) {
    machines_.at(node)->kill();
}

void AutoFailoverCluster::run(std::size_t node) {
    const Machine& machine = *machines_.at(node);
    machine.run_tool({"run", "--pgdata", machine.data()});
}

void AutoFailoverCluster::freeze(std::size_t node) {
    machines_.at(node)->freeze();
}

void AutoFailoverCluster::thaw(std::size_t node) {
    machines_.at(node)->thaw();
}

void AutoFailoverCluster::start_unfenced(std::size_t node) {
    const Machine& machine = *machines_.at(node);
    run_as_server({server_programs() + "/pg_ctl", "start", "-D", machine.data(), "-w", "-t", "60",
                   "-l", machine.folder() + "/server.log", "-o",
                   // Nothing follows it any more: its own writes would wait for ever.
                   "-p " + machine.port() + " -c synchronous_standby_names="},
                  machine.folder());
}

void AutoFailoverCluster::stop_unfenced(std::size_t node) {
    const Machine& machine = *machines_.at(node);
    run_as_server({server_programs() + "/pg_ctl", "stop", "-D", machine.data(), "-m", "fast", "-w",
                   "-t", "60"},
                  machine.folder());
}

void AutoFailoverCluster::wait_for_writes(std::size_t node) {
    wait("node " + std::to_string(node) + " takes writes", [&] {
        // A node that has just been promoted takes none until the monitor has heard of it.
        return Psql(node_dsn(node, {{"connect_timeout", "2"}}))
            .truth(
                "SELECT NOT pg_is_in_recovery() AND NOT "
                "current_setting('default_transaction_read_only')::bool");
    });
}

void AutoFailoverCluster::wait_until_whole(std::size_t primary) {
    const std::string whole = primary == 0 ? "node0 primary primary, node1 secondary secondary, "
                                           : "node0 secondary secondary, node1 primary primary, ";
    wait(whole, [&] { return states() == whole; });
}

std::string AutoFailoverCluster::states() {
    Psql sql("host=127.0.0.1 port=" + monitor().port() +
             " user=postgres dbname=pg_auto_failover connect_timeout=2");
    std::string text;
    for (const auto& row : sql.exec("SELECT nodename, reportedstate, goalstate FROM "
                                    "pgautofailover.node ORDER BY nodename")) {
        text += row[0] + " " + row[1] + " " + row[2] + ", ";
    }
    return text;
}

std::string AutoFailoverCluster::logs() const {
    std::string text;
    for (const auto& machine : machines_) {
        if (machine) {
            const auto log = machine->log();
            text += "\n--- " + machine->folder() + "\n" +
                    log.substr(log.size() - std::min<std::size_t>(log.size(), 8000));
        }
    }
    return text;
}

template <class Condition>
void AutoFailoverCluster::wait(const std::string& what, const Condition& condition) {
    const auto deadline = Clock::now() + 2 * patience;
    for (;; std::this_thread::sleep_for(50ms)) {
        try {
            if (condition()) {
                return;
            }
        } catch (const SqlError&) {
            // It does not answer yet.
        }
        if (Clock::now() >= deadline) {
            throw std::runtime_error("it does not happen in time that " + what + logs());
        }
    }
}

}  // namespace psycache::test
