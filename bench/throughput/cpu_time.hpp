// What processes have used: CPU time and memory.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <optional>

namespace bench {

/// User and system time of this process, all threads, in seconds.
double own_cpu_seconds();

/// The same of children that have ended.
double children_cpu_seconds();

/// What all processes of the machine have used, and what a hypervisor gave to others; nullopt
/// without /proc.
std::optional<double> machine_cpu_seconds();

/// User and system time of a process that is no child of this one; with those of its children,
/// living and dead, when asked for. nullopt when there is no such process or no /proc.
std::optional<double> cpu_seconds_of(pid_t process, bool with_children);

/// The process that started the given one.
std::optional<pid_t> parent_of(pid_t process);

/// Whether that is a process of a PostgreSQL server on this machine.
bool is_postgres(pid_t process);

/// Resident memory of this process in bytes; nullopt without /proc.
std::optional<std::size_t> resident_bytes();

}  // namespace bench
