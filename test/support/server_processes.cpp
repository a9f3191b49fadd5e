#include "server_processes.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <sstream>
#include <stdexcept>

#include "run_coro.hpp"
#include "server_user.hpp"

extern char** environ;

namespace psycache::test {

namespace {

namespace fs = std::filesystem;

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

}  // namespace

std::string text_of_file(const std::string& path) {
    std::ifstream file(path);
    return std::string(std::istreambuf_iterator<char>(file), {});
}

void append_to(const std::string& path, const std::string& text) {
    std::ofstream file(path, std::ios::app);
    file << text;
    if (!file.flush()) {
        throw std::runtime_error("cannot write to " + path);
    }
}

const std::string& server_programs() {
    static const std::string folder = find_programs();
    return folder;
}

bool succeeds_as_server(Command command, const std::string& folder, const std::string& log) {
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

void run_as_server(const Command& command, const std::string& folder) {
    const auto log = folder + "/commands.log";
    if (!succeeds_as_server(command, folder, log)) {
        throw std::runtime_error(command.front() + " failed:\n" + text_of_file(log));
    }
}

std::string make_server_folder() {
    // Not $TMPDIR: the path of a Unix socket must be short, and the server's user must reach it.
    char folder[] = "/tmp/psycache-srv.XXXXXX";
    if (::mkdtemp(folder) == nullptr || ::chmod(folder, 0755) != 0) {
        throw std::runtime_error("cannot make a folder in /tmp");
    }
    return folder;
}

void give_to_server(const std::string& path) {
    const auto* user = server_user();
    if (user != nullptr && ::chown(path.c_str(), user->pw_uid, user->pw_gid) != 0) {
        throw std::runtime_error("cannot chown " + path);
    }
}

namespace {

void make_cluster(const std::string& data, const std::string& folder) {
    run_as_server({server_programs() + "/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E",
                   "UTF8", "--locale=C.UTF-8", "--no-sync", "--wal-segsize=1"},
                  folder);
}

}  // namespace

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
        run_as_server({"rm", "-rf", part}, folder);
        make_cluster(part, folder);
        fs::rename(part, original);
    }
    run_as_server({"cp", "-a", original, data}, folder);
}

bool works_in(const std::filesystem::path& process, const std::string& data) {
    std::error_code error;
    return fs::read_symlink(process / "cwd", error) == data && !error;
}

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
    const auto stat = text_of_file("/proc/" + std::to_string(process) + "/stat");
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

void kill_server(const std::string& folder) {
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

}  // namespace psycache::test
