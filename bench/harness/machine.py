"""The machine: CPU time of processes, and which cores they run on."""

import contextlib
import os
import platform
import resource

TICKS = os.sysconf("SC_CLK_TCK")


def first_line(path, label):
    """What follows the label at the beginning of a line of a file; "" when there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return next((line[len(label):].strip() for line in file if line.startswith(label)), "")
    except OSError:
        return ""


def stat(process):
    """The parent of a process, its CPU seconds, and those of its children that have ended."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            # The name of the program is in parentheses and may hold anything.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    user, system, dead_user, dead_system = (int(ticks) / TICKS for ticks in fields[11:15])
    return int(fields[1]), user + system, dead_user + dead_system


def cpu_seconds(process, with_children):
    """Of a server that no child of this process is; None when that cannot be told."""
    own = stat(process) if process else None
    if own is None or not with_children:
        return own and own[1]
    others = (stat(name) for name in os.listdir("/proc") if name.isdecimal())
    return own[1] + own[2] + sum(other[1] for other in others if other and other[0] == process)


def machine_cpu_seconds():
    """What all processes have used, and what a hypervisor gave to others."""
    user, nice, system, _, _, *others = map(int, first_line("/proc/stat", "cpu ").split()[:8])
    return (user + nice + system + sum(others)) / TICKS


def own_cpu_seconds():
    """With children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@contextlib.contextmanager
def placed(placement, servers):
    """Moves this process, and what it starts, to one core, and servers, and what they start, to the
    same or to another one. Where a lone caller and its server answer each other, it matters more where
    they run than what they do: waking the other one up on another core takes longer than a statement.
    """
    cores = sorted(os.sched_getaffinity(0))
    if placement == "as scheduled" or not servers or len(cores) < 2:
        yield
        return
    before = {process: os.sched_getaffinity(process) for process in [0, *servers]}
    try:
        for server in servers:
            os.sched_setaffinity(server, {cores[0 if placement == "on one core" else 1]})
        os.sched_setaffinity(0, {cores[0]})
        yield
    finally:
        for process, allowed in before.items():
            os.sched_setaffinity(process, allowed)


def placeable(servers):
    """The servers if all of them can be moved, or none."""
    try:
        for server in servers:
            os.sched_setaffinity(server, os.sched_getaffinity(server))
    except OSError:
        return []
    return servers


def conditions():
    return {
        "processor": first_line("/proc/cpuinfo", "model name").lstrip(": ") or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": round(os.getloadavg()[0], 2),
    }
