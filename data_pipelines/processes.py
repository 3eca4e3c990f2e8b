"""Names of processes that others, on the same machine, can tell to be gone. Needs Linux's /proc; else nobody is."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

PROC = Path("/proc")
STARTED = 19
"""Place of the start time among the fields of /proc/PID/stat that follow the command's name; the first is the state."""
ENDED = ("Z", "X")


def this_process() -> str:
    """Name this process: machine since it booted, process number, start time in ticks; empty where it is unknown."""
    state = _state(os.getpid())
    return f"{_machine()}-{os.getpid()}-{state[STARTED]}" if state and _machine() else ""


def is_gone(name: str) -> bool:
    """Tell whether a process named by ``this_process`` ran on this machine and has ended; False where in doubt."""
    machine, _, rest = name.partition("-")
    number, _, started = rest.partition("-")
    if not machine or machine != _machine() or not number.isdigit():
        return False
    state = _state(int(number))
    return not state or state[0] in ENDED or state[STARTED] != started


@cache
def _machine() -> str:
    """Name the running kernel and the namespace of its process numbers: containers of one host have their own."""
    with suppress(OSError):
        boot = (PROC / "sys/kernel/random/boot_id").read_text()
        return hashlib.sha256(f"{boot}{(PROC / 'self/ns/pid').readlink()}".encode()).hexdigest()[:16]
    return ""


def _state(number: int) -> list[str]:
    """Return the fields of a process after its command's name, the only one that may hold spaces; none: no process."""
    with suppress(OSError):
        return (PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
    return []
