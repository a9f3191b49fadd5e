#include "throughput/placement.hpp"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <cstddef>

namespace bench {

namespace {

constexpr pid_t this_thread = 0;

#ifdef __linux__

std::vector<int> cores_of(pid_t process) {
    std::vector<int> cores;
    cpu_set_t set;
    if (sched_getaffinity(process, sizeof set, &set) == 0) {
        for (int core = 0; core < CPU_SETSIZE; ++core) {
            if (CPU_ISSET(static_cast<std::size_t>(core), &set)) {
                cores.push_back(core);
            }
        }
    }
    return cores;
}

bool move(pid_t process, const std::vector<int>& cores) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int core : cores) {
        CPU_SET(static_cast<std::size_t>(core), &set);
    }
    return !cores.empty() && sched_setaffinity(process, sizeof set, &set) == 0;
}

#else

std::vector<int> cores_of(pid_t /*process*/) {
    return {};
}

bool move(pid_t /*process*/, const std::vector<int>& /*cores*/) {
    return false;
}

#endif

}  // namespace

Placed::Placed(Placement placement, const std::vector<pid_t>& servers) {
    const std::vector<int> cores = cores_of(this_thread);
    if (placement == Placement::as_scheduled || servers.empty() || cores.size() < 2) {
        return;
    }
    const int server_core = placement == Placement::together ? cores[0] : cores[1];
    for (const pid_t server : servers) {
        before_.emplace_back(server, cores_of(server));
        move(server, {server_core});
    }
    before_.emplace_back(this_thread, cores);
    move(this_thread, {cores[0]});
}

Placed::~Placed() {
    for (const auto& [process, cores] : before_) {
        move(process, cores);
    }
}

bool can_place(const std::vector<pid_t>& servers) {
    return cores_of(this_thread).size() > 1 && !servers.empty() &&
           std::all_of(servers.begin(), servers.end(),
                       [](pid_t server) { return move(server, cores_of(server)); });
}

}  // namespace bench
