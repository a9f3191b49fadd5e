#include "private_server.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <sstream>

#include "run_coro.hpp"
#include "server_user.hpp"

extern char** environ;

namespace psycache::test {

namespace {

namespace fs = std::filesystem;

using Command = std::vector<std::string>;

std::string text_of(const std::string& path) {
    std::ifstream file(path);
    return std::string(std::istreambuf_iterator<char>(file), {});
}

void append(const std::string& path, const std::string& text) {
    std::ofstream file(path, std::ios::app);
    file << text;
    if (!file.flush()) {
        throw std::runtime_error("cannot write to " + path);
    }
}

/// The folder of the server's programs, "" if there is none.
std::string find_programs() {
    std::set<std::string> folders;
    if (const char* named = std::getenv("PSYCACHE_TEST_PG_BIN")) {
        folders = {named};
    } else {
        std::error_code error;
        for (fs::directory_iterator i("/usr/lib/postgresql", error), end; !error && i != end;
             i.increment(error)) {
            folders.insert((i->path() / "bin").string());
        }
    }
    for (auto folder = folders.rbegin(); folder != folders.rend(); ++folder) {
        if (::access((*folder + "/pg_ctl").c_str(), X_OK) == 0) {
            return *folder;
        }
    }
    return {};
}

const std::string& programs() {
    static const std::string folder = find_programs();
    return folder;
}

/// Runs a command as the server's user. @returns whether it went well; what it says is in @p log.
bool succeeds(Command command, const std::string& folder, const std::string& log) {
    if (server_user() != nullptr) {
        const Command prefix{"setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups",
                             "env",     "HOME=/tmp"};
        command.insert(command.begin(), prefix.begin(), prefix.end());
    }
    std::vector<char*> argv;
    for (auto& text : command) {
        argv.push_back(text.data());
    }
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    // A server lives long, and must not keep the sockets of the test open.
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    // The programs refuse a working directory that their user cannot read.
    posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t pid = -1;
    const int failed = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    int status = -1;
    while (failed == 0 && ::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return failed == 0 && status == 0;
}

/// The same for what must go well. @throws std::runtime_error
void run(const Command& command, const std::string& folder) {
    const auto log = folder + "/commands.log";
    if (!succeeds(command, folder, log)) {
        throw std::runtime_error(command.front() + " failed:\n" + text_of(log));
    }
}

void make_cluster(const std::string& data, const std::string& folder) {
    run({programs() + "/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
         "--locale=C.UTF-8", "--no-sync", "--wal-segsize=1"},
        folder);
}

void give_to_server(const std::string& path) {
    const auto* user = server_user();
    if (user != nullptr && ::chown(path.c_str(), user->pw_uid, user->pw_gid) != 0) {
        throw std::runtime_error("cannot chown " + path);
    }
}

/// Makes the data of a new cluster. Copying one is far cheaper than initdb: the first of the tests
/// on one server of with_postgres leaves one in its folder, which goes with that server.
void make_data(const std::string& data, const std::string& folder) {
    const char* where = std::getenv("PSYCACHE_TEST_DSN");
    const char* ours = std::getenv("PSYCACHE_TEST_TCP_PORT");
    std::string shared;
    if (where != nullptr && ours != nullptr) {
        const std::string text(where);
        const auto begin = text.find("host=/");
        if (begin != std::string::npos) {
            shared = text.substr(begin + 5, text.find(' ', begin) - begin - 5);
        }
    }
    if (shared.empty() || ::access(shared.c_str(), W_OK) != 0) {
        make_cluster(data, folder);
        return;
    }
    const auto original = shared + "/template";
    const int lock = ::open((original + ".lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (lock < 0 || ::flock(lock, LOCK_EX) != 0) {
        throw std::runtime_error("cannot lock " + original);
    }
    const auto unlock = [](const int* descriptor) { ::close(*descriptor); };
    const std::unique_ptr<const int, decltype(unlock)> locked(&lock, unlock);
    if (!fs::exists(original)) {
        // Under another name until it is complete.
        const auto part = original + ".part";
        run({"rm", "-rf", part}, folder);
        make_cluster(part, folder);
        fs::rename(part, original);
    }
    run({"cp", "-a", original, data}, folder);
}

/// The server's processes all work in the folder of its data, also those that lost their parent.
bool works_in(const fs::path& process, const std::string& data) {
    std::error_code error;
    return fs::read_symlink(process / "cwd", error) == data && !error;
}

/// The first number of a file, 0 if there is none.
pid_t number_in(const std::string& path) {
    std::ifstream file(path);
    pid_t number = 0;
    file >> number;
    return number;
}

std::vector<pid_t> processes_in(const std::string& data) {
    std::vector<pid_t> found;
    std::error_code error;
    for (fs::directory_iterator i("/proc", error), end; !error && i != end; i.increment(error)) {
        const auto name = i->path().filename().string();
        if (name.find_first_not_of("0123456789") == std::string::npos &&
            works_in(i->path(), data)) {
            found.push_back(static_cast<pid_t>(std::stol(name)));
        }
    }
    const auto first = std::find(found.begin(), found.end(), number_in(data + "/postmaster.pid"));
    if (first != found.end()) {
        std::rotate(found.begin(), first, first + 1);
    }
    return found;
}

bool is_stopped(pid_t process) {
    // "pid (name) state ...", where the name can hold anything.
    const auto stat = text_of("/proc/" + std::to_string(process) + "/stat");
    const auto behind_name = stat.rfind(')');
    return behind_name == std::string::npos || stat.substr(behind_name, 3) == ") T";
}

void signal_all(const std::string& data, int signal) {
    // Again for those that were being born.
    std::set<pid_t> told;
    for (bool found = true; found;) {
        found = false;
        for (const pid_t process : processes_in(data)) {
            if (told.insert(process).second) {
                ::kill(process, signal);
                found = true;
            }
        }
    }
}

void kill_all(const std::string& folder) {
    const auto data = folder + "/data";
    const auto gone = [&] {
        signal_all(data, SIGKILL);
        return processes_in(data).empty();
    };
    if (!eventually(gone)) {
        throw std::runtime_error("killed processes of a server do not end");
    }
    // The server would leave its marks to its next start, which asks whether the process still
    // lives: it can look so for as long as nobody took note of its end.
    std::ifstream file(data + "/postmaster.pid");
    std::string line;
    for (int i = 0; i < 7 && std::getline(file, line); ++i) {
    }
    std::istringstream memory(line);
    unsigned long key = 0;
    int id = -1;
    if (memory >> key >> id) {
        ::shmctl(id, IPC_RMID, nullptr);
    }
    std::error_code ignored;
    fs::remove(data + "/postmaster.pid", ignored);
    for (const auto& entry : fs::directory_iterator(folder)) {
        if (entry.path().filename().string().starts_with(".s.PGSQL.")) {
            fs::remove(entry.path(), ignored);
        }
    }
}

}  // namespace

bool PrivateServer::available() {
    if (programs().empty()) {
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
    // Not $TMPDIR: the path of a Unix socket must be short, and the server's user must reach it.
    char folder[] = "/tmp/psycache-srv.XXXXXX";
    if (::mkdtemp(folder) == nullptr || ::chmod(folder, 0755) != 0) {
        throw std::runtime_error("cannot make a folder in /tmp");
    }
    folder_ = folder;
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
    run({programs() + "/pg_basebackup", "-D", standby->data_, "-R", "-X", "stream", "-c", "fast",
         "--no-sync", "-d", primary.dsn()},
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
    fs::resize_file(data_ + "/pg_hba.conf", 0);
    append(data_ + "/pg_hba.conf", rules);

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
    append(data_ + "/postgresql.conf", settings);
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
    return succeeds({programs() + "/pg_ctl", "start", "-D", data_, "-w", "-t", "60", "-l",
                     folder_ + "/server.log", "-o", "-p " + port_},
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
    return text_of(folder_ + "/server.log");
}

void PrivateServer::stop() {
    run({programs() + "/pg_ctl", "stop", "-D", data_, "-m", "fast", "-w", "-t", "60"}, folder_);
}

void PrivateServer::crash() {
    kill_all(folder_);
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
    run({programs() + "/pg_ctl", "promote", "-D", data_, "-w", "-t", "60"}, folder_);
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
    append(data_ + "/postgresql.conf", line + '\n');
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
    signal_all(data, SIGCONT);
    const pid_t first = number_in(data + "/postmaster.pid");
    if (first > 0 && works_in("/proc/" + std::to_string(first), data)) {
        ::kill(first, SIGQUIT);
        const auto gone = [&] { return processes_in(data).empty(); };
        eventually(gone, 10s);
    }
    kill_all(folder);
    fs::remove_all(folder);
}

}  // namespace psycache::test
