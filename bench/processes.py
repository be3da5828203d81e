"""Processes under measurement and their CPU time and memory, read from `/proc`."""

from __future__ import annotations

import os
import shutil
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
STOP_TIMEOUT: Final = 10


def find_program(*names: str) -> str | None:
    """Return the path of the first of these programs that is installed."""
    return next((found for name in names if (found := shutil.which(name))), None)


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Cores:
    """CPU affinity of a run. The server gets the last core, the load and the upstream get all others."""

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.server = cores[-1]
        self.load = cores[:-1] or cores

    def pin_self(self) -> None:
        """Restrict this process and those that it starts to the cores of the load."""
        os.sched_setaffinity(0, self.load)

    def on_server(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs `command` on the server's core."""
        return ["taskset", "-c", str(self.server), *command]


class ProcessTree:
    """A program and its descendants."""

    def __init__(self, command: Sequence[str], folder: Path, environ: Mapping[str, str], log: str) -> None:
        self.log = folder / log
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=dict(environ), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def pids(self) -> list[int]:
        return descendants(self.process.pid)

    def cpu_ns(self) -> int:
        """Return the CPU time of all processes so far."""
        return sum(cpu_ns(pid) for pid in self.pids())

    def memory(self) -> dict[str, int]:
        """Return proportional set sizes in bytes, of the largest process (the worker) and of all together."""
        sizes = [pss_bytes(pid) for pid in self.pids()]
        return {"worker": max(sizes), "tree": sum(sizes)}

    def reset_peaks(self) -> None:
        """Let `peak_bytes` count from the current size."""
        for pid in self.pids():
            (PROC / str(pid) / "clear_refs").write_text("5")

    def resident_bytes(self) -> int:
        return sum(_status_bytes(pid, "VmRSS") for pid in self.pids())

    def peak_bytes(self) -> int:
        """Return the sum of the largest resident sizes since `reset_peaks`."""
        return sum(_status_bytes(pid, "VmHWM") for pid in self.pids())

    def last_log_lines(self, count: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def stop(self) -> None:
        """Terminate the program, then kill what is left of its session after `STOP_TIMEOUT` seconds."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_TIMEOUT)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def descendants(pid: int) -> list[int]:
    """Return `pid` and its descendants that are alive."""
    parents: dict[int, int] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            fields = _stat_fields(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for parent in found:  # the list grows during the loop
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return [process for process in found if process in parents]


def cpu_ns(pid: int) -> int:
    """Return the user and system CPU time of a process and of its children that have ended.

    The scheduler's count is exact to the nanosecond but lacks threads that have ended. The accounting in `stat` has
    them, to a clock tick. The larger of the two counts.
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
    """Return the proportional set size of a process, 0 where the kernel does not report it."""
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
    """Return the fields of `/proc/PID/stat` from the state on, or an empty list when the process has ended."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def core_busy_ns(core: int) -> int:
    """Return the time that a core was busy since boot, stolen time included."""
    for line in (PROC / "stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) * TICK_NS
    return 0


def sleep_until(deadline: float) -> None:
    """Sleep until this time of `time.monotonic`."""
    time.sleep(max(0.0, deadline - time.monotonic()))
