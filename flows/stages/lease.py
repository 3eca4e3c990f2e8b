"""A lock in a folder of any storage: a claim that its holder renews, and that ends once it is renewed no more.

<folder>/.lease/<number>-<process>-<id>    a claim; its number is 0 while its process chooses one

Lamport's bakery algorithm (Communications of the ACM 17:8, 1974): a process announces itself, takes a number above all
it sees, and waits until no claim before its own is alive. It needs listings that show what was written before them,
nothing else. A claim is dead when it has not changed for a while by the clock of whoever waits: clocks need not agree.
A holder that was stopped for long counts itself as lost before anybody else does. On one machine nobody waits for the
claim of a process that has ended.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from data_pipelines import storage
from data_pipelines.processes import is_gone, this_process
from data_pipelines.storage import Stamp

logger = logging.getLogger(__name__)

FOLDER = ".lease"
FORGOTTEN_SECONDS = 86400.0
"""Age, by the storage's clock, at which a claim is dead without being watched."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Times of a claim, in seconds: between renewals, and until it counts as lost."""

    renew: float = 10.0
    lost: float = 90.0
    """Time without a renewal after which a holder counts itself as lost; a store may be out of order for a minute."""
    dead: float = 120.0
    """Time without a renewal after which others take over; longer than ``lost``, and than a network file system may
    show an old time stamp."""
    poll: float = 2.0


class LeaseLostError(TimeoutError):
    """The lock was held once and may be held by another process now."""


class Lease:
    """A claim of this process on a folder."""

    def __init__(self, folder: str, pace: Pace) -> None:
        self._folder, self._pace = storage.join(folder, FOLDER), pace
        self._id = f"{this_process()}-{uuid.uuid4().hex}"
        self._claim = ""
        self._num_renewals = 0
        self._renewed = _now()
        self._seen: dict[str, tuple[Stamp, float]] = {}
        self._ended = threading.Event()
        self._guard = threading.Lock()

    def require(self) -> None:
        """Raise LeaseLostError unless the claim is still the current one."""
        self._require_among(storage.list_stamps(self._folder))

    def _require_among(self, stamps: Mapping[str, Stamp]) -> None:
        if self._claim in stamps and _now() - self._renewed <= self._pace.lost:
            return
        raise LeaseLostError(
            f"{self._folder}: this process was stopped, or cut off from the storage, for more than "
            f"{self._pace.lost:g} s, and another one may have taken over; nothing was recorded: repeat the command"
        )

    def claim(self) -> None:
        """Announce this process, then take a number above all others."""
        self._write(0)
        threading.Thread(target=self._keep_renewing, name="lease", daemon=True).start()
        announced = self._claim
        self._write(1 + max(map(_number, storage.list_stamps(self._folder)), default=0))
        self._delete(announced)

    def is_first(self) -> bool:
        """Tell whether no claim before ours is alive; dead ones are removed. Raises LeaseLostError where ours was."""
        stamps = storage.list_stamps(self._folder)
        self._require_among(stamps)
        before = [name for name in stamps if _order(name) < _order(self._claim)]  # also who chooses a number: 0
        now = stamps[self._claim][1]  # by the storage's clock
        alive = [name for name in before if self._id not in name and not self._is_dead(name, stamps[name], now)]
        for name in set(before) - set(alive):
            self._delete(name)
        return not alive

    def wait(self) -> None:
        """Wait until no claim before ours is alive."""
        if self.is_first():
            return
        logger.warning(
            "%s: another process is running this stage, or one on another machine was killed within the last %g s; "
            "waiting for it",
            self._folder.removesuffix(f"/{FOLDER}"),
            self._pace.dead,
        )
        while not self.is_first():
            self._ended.wait(self._pace.poll)

    def release(self) -> None:
        """Give the claim up. Where it cannot be removed, it dies."""
        self._ended.set()
        with self._guard, suppress(OSError):
            self._delete(self._claim)

    def _is_dead(self, name: str, stamp: Stamp, now: int) -> bool:
        if is_gone(name.partition("-")[2].rpartition("-")[0]):
            return True
        before, since = self._seen.get(name, (None, 0.0))
        if stamp != before:
            self._seen[name] = (stamp, since := _now())
        return _now() - since > self._pace.dead or 0 < stamp[1] < now - FORGOTTEN_SECONDS * 1e9

    def _keep_renewing(self) -> None:
        while not self._ended.wait(self._pace.renew):
            with self._guard:
                if self._ended.is_set() or not self._renew():
                    return

    def _renew(self) -> bool:
        """Renew the claim; False where it is lost. One that was lost must not come to life again."""
        if _now() - self._renewed > self._pace.lost:
            return False
        try:
            self._put(self._claim)
        except OSError as error:
            logger.warning("%s: the lock could not be renewed, retrying (%s)", self._folder, error)
            return True
        if _now() - self._renewed > self._pace.lost:  # stopped while it was written
            self._delete(self._claim)
            return False
        self._renewed = _now()
        return True

    def _write(self, number: int) -> None:
        with self._guard:
            self._claim = f"{number:010d}-{self._id}"
            self._put(self._claim)
            self._renewed = _now()

    def _put(self, name: str) -> None:
        """Write a claim of another size than before: the times of object stores are whole seconds."""
        self._num_renewals += 1
        storage.write_bytes(storage.join(self._folder, name), b"." * (1 + self._num_renewals % 64))

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            storage.delete(storage.join(self._folder, name))


@contextmanager
def hold_lease(folder: str, pace: Pace) -> Iterator[Lease]:
    """Hold the lock of a folder for the length of the block; waits for whoever holds it."""
    lease = Lease(folder, pace)
    try:
        lease.claim()
        lease.wait()
        yield lease
    finally:
        lease.release()


@contextmanager
def try_lease(folder: str, pace: Pace) -> Iterator[bool]:
    """Hold the lock of a folder, if nobody else does; the block gets whether it is held."""
    lease = Lease(folder, pace)
    try:
        lease.claim()
        yield lease.is_first()
    finally:
        lease.release()


def _order(name: str) -> tuple[int, str]:
    return _number(name), name


def _number(name: str) -> int:
    digits = name.partition("-")[0]
    return int(digits) if digits.isdigit() else 0


def _now() -> float:
    """Return a time that goes on while a process, or the machine, is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
