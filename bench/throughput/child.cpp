#include "throughput/child.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <system_error>

namespace bench {

namespace {

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

struct Pipe {
    Pipe() {
        std::array<int, 2> ends{};
        if (pipe2(ends.data(), O_CLOEXEC) != 0) {
            fail("pipe");
        }
        read = ends[0];
        write = ends[1];
    }
    Pipe(const Pipe&) = delete;
    Pipe& operator=(const Pipe&) = delete;
    ~Pipe() {
        close(read);
        close_write();
    }
    void close_write() {
        if (write >= 0) {
            close(write);
            write = -1;
        }
    }
    int read = -1;
    int write = -1;
};

double seconds(const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

/// Appends what can be read; false at the end of the stream.
bool drain(int descriptor, std::string& text) {
    std::array<char, 4096> buffer{};
    const ssize_t size = read(descriptor, buffer.data(), buffer.size());
    if (size > 0) {
        text.append(buffer.data(), static_cast<std::size_t>(size));
    }
    return size > 0 || (size < 0 && errno == EINTR);
}

}  // namespace

std::optional<std::string> find_program(const std::string& name) {
    const char* const path = std::getenv("PATH");
    std::string rest = path != nullptr ? path : "/usr/bin:/bin";
    while (!rest.empty()) {
        const std::size_t colon = std::min(rest.find(':'), rest.size());
        const std::string candidate = rest.substr(0, colon) + "/" + name;
        if (access(candidate.c_str(), X_OK) == 0) {
            return candidate;
        }
        rest.erase(0, colon + 1);
    }
    return std::nullopt;
}

ChildResult run_child(const std::vector<std::string>& command, Seconds limit) {
    std::vector<char*> arguments;
    for (const std::string& word : command) {
        arguments.push_back(const_cast<char*>(word.c_str()));
    }
    arguments.push_back(nullptr);

    Pipe output;
    Pipe errors;
    const pid_t child = fork();
    if (child < 0) {
        fail("fork");
    }
    if (child == 0) {
        const int nothing = open("/dev/null", O_RDONLY);
        dup2(nothing, STDIN_FILENO);
        dup2(output.write, STDOUT_FILENO);
        dup2(errors.write, STDERR_FILENO);
        execv(arguments[0], arguments.data());
        _exit(127);
    }
    output.close_write();
    errors.close_write();

    ChildResult result;
    std::string complaints;
    bool late = false;
    std::array<pollfd, 2> streams{pollfd{output.read, POLLIN, 0}, pollfd{errors.read, POLLIN, 0}};
    const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(limit);
    while (streams[0].fd >= 0 || streams[1].fd >= 0) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
        if (left <= 0) {
            late = true;
            kill(child, SIGKILL);
            break;
        }
        if (poll(streams.data(), streams.size(), static_cast<int>(left)) <= 0) {
            continue;
        }
        if (streams[0].revents != 0 && !drain(output.read, result.output)) {
            streams[0].fd = -1;
        }
        if (streams[1].revents != 0 && !drain(errors.read, complaints)) {
            streams[1].fd = -1;
        }
    }

    int status = 0;
    rusage usage{};
    while (wait4(child, &status, 0, &usage) < 0 && errno == EINTR) {
    }
    result.cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    if (late || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        const std::size_t tail = complaints.size() - std::min<std::size_t>(complaints.size(), 400);
        throw std::runtime_error(command.front() + (late ? " took too long" : " failed") + ": " +
                                 complaints.substr(tail));
    }
    return result;
}

TempDir::TempDir() {
    // Not $TMPDIR: the path of a Unix socket must be short.
    std::string name = "/tmp/psycache-bench.XXXXXX";
    if (mkdtemp(name.data()) == nullptr) {
        fail("mkdtemp");
    }
    path_ = name;
}

TempDir::~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

}  // namespace bench
