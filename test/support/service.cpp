#include "service.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "server_user.hpp"

extern char** environ;

namespace psycache::test {

namespace {

void hand_over(const std::string& path) {
    const passwd* user = server_user();
    if (::geteuid() == 0 && user == nullptr) {
        throw std::runtime_error("as root the tests need the user \"postgres\" to run servers");
    }
    if (user != nullptr && ::chown(path.c_str(), user->pw_uid, user->pw_gid) != 0) {
        throw std::runtime_error("cannot give " + path + " to the user \"postgres\"");
    }
}

}  // namespace

Service::Service() {
    // Not $TMPDIR: its path can be too long, and closed to the server's user.
    char path[] = "/tmp/psycache-aux.XXXXXX";
    if (::mkdtemp(path) == nullptr) {
        throw std::runtime_error("mkdtemp failed");
    }
    folder_ = path;
    std::filesystem::permissions(folder_, std::filesystem::perms(0755));
    hand_over(folder_);
}

Service::~Service() {
    if (keeper_ < 0) {
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
        return;
    }
    ::close(words_);
    while (::waitpid(keeper_, nullptr, 0) < 0 && errno == EINTR) {
    }
    ::close(answers_);
}

void Service::write(const std::string& name, const std::string& text) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream file(path, std::ios::trunc);
    file << text << std::flush;
    if (!file) {
        throw std::runtime_error("cannot write " + path);
    }
    file.close();
    // What is in there can be a password.
    std::filesystem::permissions(path, std::filesystem::perms(0600));
    hand_over(path);
}

std::string Service::read(const std::string& name) const {
    const std::ifstream file(folder_ + "/" + name);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

void Service::start(const std::vector<std::string>& command) {
    if (keeper_ < 0) {
        spawn(command);
    }
    tell("start");
}

void Service::stop() {
    if (keeper_ >= 0) {
        tell("stop");
    }
}

void Service::spawn(const std::vector<std::string>& command) {
    // Closed on exec: another child would keep the keeper from seeing this process end.
    int words[2];
    int answers[2];
    if (::pipe2(words, O_CLOEXEC) != 0 || ::pipe2(answers, O_CLOEXEC) != 0) {
        throw std::runtime_error("pipe2 failed");
    }
    std::vector<std::string> texts{PSYCACHE_TEST_SUPPORT "/keep_service", folder_};
    if (server_user() != nullptr) {
        texts.insert(texts.end(),
                     {"setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"});
    }
    texts.insert(texts.end(), command.begin(), command.end());
    std::vector<char*> argv;
    for (auto& text : texts) {
        argv.push_back(text.data());
    }
    argv.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, words[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, answers[1], STDOUT_FILENO);
    // Asio's sockets would stay open in it: a port that is listened on could not be let go.
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    const int result = ::posix_spawn(&keeper_, argv[0], &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(words[0]);
    ::close(answers[1]);
    words_ = words[1];
    answers_ = answers[0];
    if (result != 0) {
        keeper_ = -1;
        ::close(words_);
        ::close(answers_);
        throw std::runtime_error("posix_spawn failed");
    }
}

void Service::tell(const std::string& word) {
    const std::string line = word + "\n";
    char byte = 0;
    if (::write(words_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
        throw std::runtime_error("the keeper of a server does not listen");
    }
    while (byte != '\n') {
        const auto got = ::read(answers_, &byte, 1);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            throw std::runtime_error("the keeper of a server does not answer");
        }
    }
}

}  // namespace psycache::test
