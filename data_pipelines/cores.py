"""CPUs that this process may use: fewer than the machine has in a Slurm job, under ``taskset``, or in a container whose
limit is one of cgroup v2 or a set of CPUs."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""CPU time of a container (cgroup v2): ``QUOTA PERIOD`` in microseconds, or ``max PERIOD`` where it is unlimited."""


def count_cpus() -> int:
    """Count the CPUs that this process may run on, at most those of its container's quota; at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = QUOTA.read_text().split()
        if quota != "max":
            allowed = min(allowed, math.ceil(int(quota) / int(period)))
    return max(allowed, 1)
