"""Limit on the CPU cores that this process may use, such as a container's."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_GROUPS: Final = "proc/self/cgroup"
_MOUNTS: Final = {"": ("sys/fs/cgroup", "sys/fs/cgroup/unified"), "cpu": ("sys/fs/cgroup/cpu",)}
"""Folders of the control groups of version 2, and of the controller `cpu` of version 1 (source: cgroups(7))."""


def find_cpu_limit(root: Path = Path("/")) -> int | None:
    """Return the number of cores that this process may use, or None if it may use all of the machine.

    The limits are its CPU affinity and the quotas of its control groups. A part of a core counts as one.
    """
    cores = os.cpu_count() or 1
    limits = [math.ceil(quota) for folder in _control_groups(root) for quota in _read_quota(folder)]
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        limits.append(len(os.sched_getaffinity(0)))
    limit = min(limits, default=cores)
    return limit if limit < cores else None


def _control_groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the process's control groups and of their parents, of which not all need exist.

    In a container, the path of a group may be that on the host. Its own group is then the root of what it sees.
    """
    for line in _read(root / _GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in {"", "cpu"} & set(controllers.split(",")):
            for mount in _MOUNTS[controller]:
                folder = root / mount
                yield folder
                for part in Path(path.lstrip("/")).parts:
                    folder /= part
                    yield folder


def _read_quota(folder: Path) -> Iterator[float]:
    """Yield the quota of a control group, in cores. A group without a quota yields nothing.

    The files are described in the kernel's `cgroup-v2.rst` and, for version 1, in `sched-bwc.rst`.
    """
    words = _read(folder / "cpu.max").split() or [
        *_read(folder / "cpu.cfs_quota_us").split(),
        *_read(folder / "cpu.cfs_period_us").split(),
    ]
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit():  # without a quota the first is `max` or -1
        yield int(words[0]) / int(words[1])


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
