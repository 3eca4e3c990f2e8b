"""Watch over the Ray that this process started: a server of it that dies ends the stage with one line.

Left to itself, Ray notices late: without its raylet a training continues until something is asked of the raylet, and
then Ray's core ends the process without a message; without its head the process ends so ten seconds later.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import FrameType

from data_pipelines.errors import NOT_RETRYABLE
from flows.cluster.folders import log_folder

SERVERS = {"raylet": "raylet", "gcs_server": "head (GCS)"}
"""Ray's name of each process of a local Ray that it cannot do without, and ours."""
CLUSTER_SERVERS = ("start_monitor", "start_api_server", "start_log_monitor")
"""Methods of Ray's node that start what one machine has no use for: autoscaler, dashboard, and a process that forwards
workers' lines to the driver, which asks for none. They cost 5 s of CPU time at a start, then up to 3 % of a CPU."""
SIGNAL = signal.SIGUSR1
"""Wakes the main thread, whatever it waits for."""
REPEAT_SECONDS = 5.0
"""Time after which the main thread is woken again: code that ignores exceptions may have swallowed the first."""

_num_users = 0
"""Blocks of the main thread that need Ray now."""


class LocalRayLostError(ChildProcessError):
    """The Ray of this machine ended in the middle of a stage; the next try of the stage starts another."""


class _WokenError(BaseException):
    """Raised by the handler of the signal: passes through what handles, or logs, every Exception."""


def watch_local_ray() -> None:
    """Watch the servers of the local Ray that this process has just started."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(SIGNAL, _wake)
    for process in _servers().values():
        threading.Thread(target=_watch, args=(process.pid,), name="local-ray", daemon=True).start()


@contextmanager
def require_local_ray() -> Iterator[None]:
    """Raise LocalRayLostError as soon as a server of the local Ray dies in the block; what is left of it is ended.

    Nothing is watched where Ray runs elsewhere. In other threads than the main one, Ray's own errors must come first.
    """
    try:
        with _woken():
            yield
    except NOT_RETRYABLE:
        raise
    except (Exception, _WokenError):
        if (lost := describe_loss()) is None:
            raise
        message = f"{lost}; the same command resumes. Log files: {log_folder()}"
        shut_down_ray()
        raise LocalRayLostError(message) from None


@contextmanager
def without_cluster_servers() -> Iterator[None]:
    """Start a Ray in the block without the processes that only a cluster needs. Where a later Ray starts them in
    another way, they are back."""
    from ray._private.node import Node

    found = {name: getattr(Node, name) for name in CLUSTER_SERVERS if hasattr(Node, name)}
    for name in found:
        setattr(Node, name, lambda self, **options: None)
    try:
        yield
    finally:
        for name, method in found.items():
            setattr(Node, name, method)


@contextmanager
def tell_slow_start() -> Iterator[None]:
    """Put a start of Ray that takes more than the 30 s that it gives itself into words. Raises LocalRayLostError."""
    try:
        yield
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        raise LocalRayLostError(
            "Ray on this machine did not start within 30 s: the machine is busy, or a server of Ray was killed; the "
            "same command resumes"
        ) from None


def describe_loss() -> str | None:
    """Return which server of the local Ray has ended, and how; None where all live, or Ray runs elsewhere."""
    for name, process in _servers().items():
        if (code := process.poll()) is not None:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            return f"Ray's {SERVERS[name]} on this machine {how}"
    return None


def shut_down_ray() -> None:
    """Disconnect from Ray and end what is left of a local one: the next connection starts another."""
    import ray

    with ExitStack() as opened:
        raylet = _servers().get("raylet")
        agents = [opened.enter_context(_open(pid)) for pid in _children(raylet.pid)] if raylet else []
        ray.shutdown()
        for agent in agents:  # they look for a head that is gone, for a minute
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(agent.fileno(), signal.SIGKILL)


@contextmanager
def _woken() -> Iterator[None]:
    """Wake this thread in the block where a server dies, if it is the main one; at once where one is dead."""
    global _num_users
    is_main = threading.current_thread() is threading.main_thread()
    _num_users += is_main
    try:
        if describe_loss():
            raise _WokenError
        yield
    finally:
        _num_users -= is_main


def _watch(pid: int) -> None:
    """Wait for the end of a server, then wake the main thread until no block of it needs Ray any more."""
    with suppress(OSError):  # a kernel before 5.3, or a container that refuses the call: Ray's own errors come later
        with _open(pid) as process:
            select.select([process], [], [])
        while _num_users:
            signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)
            time.sleep(REPEAT_SECONDS)


def _open(pid: int) -> FileIO:
    """Open a process as a file, which is readable once it has ended."""
    return open(os.pidfd_open(pid), "rb", buffering=0)


def _children(pid: int) -> list[int]:
    """List the processes that a process has started; none where it is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _wake(number: int, frame: FrameType | None) -> None:
    if _num_users and describe_loss():
        raise _WokenError


def _servers() -> dict[str, subprocess.Popen[bytes]]:
    """Return the processes of the local Ray by their names; none where Ray runs elsewhere, or not at all."""
    from ray._private import worker

    started = getattr(worker._global_node, "all_processes", {})
    return {name: started[name][0].process for name in SERVERS if started.get(name)}
