"""The machine as the kernel tells of it: what it is, and the CPU time and memory that processes took."""

import contextlib
import os
import platform
import resource
from pathlib import Path

import apsw

TICKS = os.sysconf("SC_CLK_TCK")


def stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name: state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its threads."""
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def family_seconds(pid: int) -> float:
    """CPU time of a process, its living children, and those that it has buried."""
    fields = stat(pid)
    total = sum(int(fields[i]) for i in (11, 12, 13, 14))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                child = stat(int(entry.name))
                if int(child[1]) == pid:
                    total += int(child[11]) + int(child[12])
    return total / TICKS


def own_seconds() -> float:
    """CPU time of this process and of the clients that it started and that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def busy_seconds() -> float:
    """CPU time of everything on the machine: user, nice, system, interrupts."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / TICKS


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no resident memory")


def description() -> dict[str, str]:
    """What the figures were taken on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "memory": f"{memory:.0f} GiB",
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
    }
