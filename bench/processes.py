"""Processes under measurement: started on chosen cores, weighed, and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
STOP_SECONDS: Final = 10


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Cores:
    """Who runs where: the last core is the server's, all others are the load's and the upstream's."""

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.server = cores[-1]
        self.load = cores[:-1] or cores
        self.is_shared = len(cores) == 1

    def pin_self(self) -> None:
        os.sched_setaffinity(0, self.load)

    def on_server(self, command: Sequence[str]) -> list[str]:
        return ["taskset", "-c", str(self.server), *command]


class Running:
    """A program and its descendants."""

    def __init__(self, command: Sequence[str], folder: Path, environ: Mapping[str, str], log: str) -> None:
        self.log = folder / log
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=dict(environ), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def processes(self) -> list[int]:
        return tree_of(self.process.pid)

    def cpu_ns(self) -> int:
        return sum(cpu_ns(pid) for pid in self.processes())

    def memory(self) -> dict[str, int]:
        """Proportional set sizes in bytes: of the largest process (the worker), and of all."""
        sizes = [pss_bytes(pid) for pid in self.processes()]
        return {"worker": max(sizes), "tree": sum(sizes)}

    def forget_peaks(self) -> None:
        for pid in self.processes():
            (PROC / str(pid) / "clear_refs").write_text("5")

    def resident_bytes(self) -> int:
        return sum(_status_bytes(pid, "VmRSS") for pid in self.processes())

    def peak_bytes(self) -> int:
        return sum(_status_bytes(pid, "VmHWM") for pid in self.processes())

    def end_of_log(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """Asks, then insists; what its session holds ends with it."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def tree_of(pid: int) -> list[int]:
    """`pid` and its descendants that are alive."""
    parents: dict[int, int] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            fields = _stat_fields(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for parent in found:  # grows while it is walked
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return [process for process in found if process in parents]


def cpu_ns(pid: int) -> int:
    """CPU time of a process and of its children that have ended, user and system together.

    The scheduler's own count is exact to the nanosecond, the accounting in `stat` only to a clock tick; that one has
    the threads that have ended, too.
    """
    fields = _stat_fields(pid)
    if not fields:
        return 0
    own, ended_children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    exact = 0
    for task in (PROC / str(pid) / "task").iterdir():
        try:
            exact += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue
    return max(exact, own * TICK_NS) + ended_children * TICK_NS


def pss_bytes(pid: int) -> int:
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _status_bytes(pid: int, field: str) -> int:
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _stat_fields(pid: int) -> list[str]:
    """What follows the name in `/proc/PID/stat`, so that the state is the first; empty when the process is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def core_busy_ns(core: int) -> int:
    """Time that a core was busy with anything at all, stolen time included."""
    for line in (PROC / "stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) * TICK_NS
    return 0


def wait_until(deadline: float) -> None:
    time.sleep(max(0.0, deadline - time.monotonic()))
