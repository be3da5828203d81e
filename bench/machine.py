"""Description of the machine that a benchmark runs on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path


def describe_machine() -> dict[str, str | int | float]:
    """Return the hardware, the version of wrk, and the load average before the run.

    Raises:
        SystemExit: wrk is not installed.
    """
    return {**describe_hardware(), "wrk": _wrk_version(), "load_average_before": round(os.getloadavg()[0], 2)}


def describe_hardware() -> dict[str, str | int | float]:
    """Return the CPU, its cores, the memory in GiB, the kernel and the Python version."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 0,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "hypervisor": "hypervisor" in _cpu_flags(),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    for line in _cpu_lines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _cpu_flags() -> list[str]:
    return next((line.split() for line in _cpu_lines() if line.startswith("flags")), [])


def _cpu_lines() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()


def _wrk_version() -> str:
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("wrk is not installed (Debian: apt install wrk)")
    output = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    return (output.stdout or output.stderr).split()[1]
