#include "throughput/cpu_time.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace bench {

namespace {

struct Stat {
    pid_t parent = 0;
    double own = 0;  // seconds
    double dead_children = 0;
};

std::optional<Stat> stat_of(const std::string& process) {
    std::ifstream file("/proc/" + process + "/stat");
    std::string line;
    if (!std::getline(file, line)) {
        return std::nullopt;
    }
    // The name of the program is in parentheses and may hold anything.
    const std::size_t after_name = line.rfind(')');
    if (after_name == std::string::npos) {
        return std::nullopt;
    }
    std::istringstream fields(line.substr(after_name + 1));
    std::string skipped;
    Stat stat;
    fields >> skipped >> stat.parent;
    for (int field = 5; field < 14; ++field) {
        fields >> skipped;
    }
    double user = 0;
    double system = 0;
    double children_user = 0;
    double children_system = 0;
    fields >> user >> system >> children_user >> children_system;
    if (!fields) {
        return std::nullopt;
    }
    const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    stat.own = (user + system) / ticks;
    stat.dead_children = (children_user + children_system) / ticks;
    return stat;
}

double used_by(int whom) {
    rusage usage{};
    getrusage(whom, &usage);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

double own_cpu_seconds() {
    return used_by(RUSAGE_SELF);
}

double children_cpu_seconds() {
    return used_by(RUSAGE_CHILDREN);
}

std::optional<double> machine_cpu_seconds() {
    std::ifstream file("/proc/stat");
    std::string name;
    double user = 0;
    double nice = 0;
    double system = 0;
    double idle = 0;
    double waiting = 0;
    double interrupts = 0;
    double soft_interrupts = 0;
    double stolen = 0;
    file >> name >> user >> nice >> system >> idle >> waiting >> interrupts >> soft_interrupts >>
        stolen;
    if (!file) {
        return std::nullopt;
    }
    return (user + nice + system + interrupts + soft_interrupts + stolen) /
           static_cast<double>(sysconf(_SC_CLK_TCK));
}

std::optional<double> cpu_seconds_of(pid_t process, bool with_children) {
    const std::optional<Stat> self = stat_of(std::to_string(process));
    if (!self) {
        return std::nullopt;
    }
    if (!with_children) {
        return self->own;
    }
    double seconds = self->own + self->dead_children;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
        const std::string name = entry.path().filename().string();
        if (name.find_first_not_of("0123456789") != std::string::npos) {
            continue;
        }
        const std::optional<Stat> other = stat_of(name);
        if (other && other->parent == process) {
            seconds += other->own;
        }
    }
    return seconds;
}

std::optional<pid_t> parent_of(pid_t process) {
    const std::optional<Stat> stat = stat_of(std::to_string(process));
    return stat ? std::optional<pid_t>(stat->parent) : std::nullopt;
}

bool is_postgres(pid_t process) {
    std::ifstream file("/proc/" + std::to_string(process) + "/cmdline");
    std::string title;
    return std::getline(file, title, '\0') && title.find("postgres") != std::string::npos;
}

std::optional<std::size_t> resident_bytes() {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("VmRSS:", 0) == 0) {
            return std::stoull(line.substr(6)) * 1024;
        }
    }
    return std::nullopt;
}

}  // namespace bench
