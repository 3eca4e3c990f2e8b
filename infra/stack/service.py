"""Services of the stack: processes with a log, started, watched and stopped together."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

HEALTHY_WITHIN_SECONDS = 180.0
GRACE_SECONDS = 15.0


class StackError(RuntimeError):
    """A server is missing or did not come up; the message says what to do."""


@dataclass(slots=True)
class Service:
    """A process of its own session, with its log."""

    name: str
    command: list[str]
    is_ready: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    ends_on: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None
    log: Path = Path(os.devnull)

    def start(self, log: Path) -> None:
        """Start it and wait until it is healthy. Raises StackError with the end of its log."""
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                self.command,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + HEALTHY_WITHIN_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise StackError(self.describe("did not become healthy"))
            time.sleep(0.2)

    def describe(self, fault: str) -> str:
        """Say what is wrong with it, and how its log ends."""
        return f"{self.name} {fault}; {end_of(self.log)}"

    def end(self) -> list[psutil.Process]:
        """Ask it to end; returns it and everything it started, some of it in sessions of its own."""
        import psutil

        if self.process is None or self.process.poll() is not None:
            return []
        parent = psutil.Process(self.process.pid)
        family = [parent, *parent.children(recursive=True)]
        self.process.send_signal(self.ends_on)
        return family


def stop(services: Iterable[Service]) -> None:
    """End all of them, side by side; what has not ended after a while is killed."""
    import psutil

    services = list(services)
    family = [process for service in services for process in service.end()]
    _, alive = psutil.wait_procs(family, timeout=GRACE_SECONDS)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)
    for service in services:
        if service.process is not None:
            service.process.wait()


def watch(services: Iterable[Service]) -> None:
    """Wait until one of them ends; raise StackError with its name and the end of its log."""
    with ExitStack() as opened:
        by_descriptor = {}
        for service in services:
            if service.process:
                descriptor = os.pidfd_open(service.process.pid)
                opened.callback(os.close, descriptor)
                by_descriptor[descriptor] = service
        (first, *_), _, _ = select.select(by_descriptor, [], [])  # without polling
        ended = by_descriptor[first]
        code = ended.process.wait() if ended.process else 0
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise StackError(ended.describe(f"ended {how}, and the stack with it"))


def end_of(log: Path) -> str:
    """Return the last lines of a log, and its name."""
    return f"the end of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])
