"""Goodput: how much of a training's wall time trained, and what the rest was spent on.

The driver adds up what rank 0's loop reports of itself; time in which no loop ran is a start, a retry or the end.
Light to import: figures of records hold it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from data_pipelines.specs import Spec
from flows.training.clock import LoopReport, LoopTimes

GOODPUT, TIME = "goodput_percent", "time_seconds"
"""Names in the table of metrics; the parts of the time are parts of the second."""
PARTS = {
    "productive": "training steps",
    "repeated": "repeated steps",
    "data": "waiting for data",
    "validation": "validation",
    "checkpoint": "checkpoints",
    "start": "start and end",
    "pace": "measuring the pace",
    "retry": "restarts",
    "server": "waiting for servers",
}
"""Field of ``TimeSplit`` to its title, in the order in which they are shown."""


class TimeSplit(Spec):
    """Wall time of a training over all its attempts, and its parts, in seconds.

    The time between two attempts, in which no process ran, is none of it.
    """

    wall: float = 0.0
    """From connecting to Ray until the workers have ended, by the driver's own clock."""
    productive: float = 0.0
    """Optimizer steps that count."""
    repeated: float = 0.0
    """Optimizer steps that had been trained before: their number, times the mean pace."""
    data: float = 0.0
    """Waiting for a batch, other than a loop's first."""
    validation: float = 0.0
    """Validation."""
    checkpoint: float = 0.0
    """Writing checkpoints."""
    start: float = 0.0
    """Ray, workers, network and first batch of the first start; and the end of the workers after the last step, with
    the upload of the last checkpoint."""
    pace: float = 0.0
    """Measuring how many steps fit into ``train.within``."""
    retry: float = 0.0
    """From the last report of workers that died to the first step of the next ones; the start of later attempts."""
    server: float = 0.0
    """Waiting for Ray Train's controller to take reports, and for MLflow at the end."""

    @property
    def parts(self) -> dict[str, float]:
        """Name of each part to its seconds."""
        return {name: getattr(self, name) for name in PARTS}

    @property
    def goodput_percent(self) -> float:
        """Share of the productive steps in the wall time, in percent; 0 where there was none."""
        return 100 * self.productive / self.wall if self.wall else 0.0

    def metrics(self) -> dict[str, float]:
        """Return the split as metrics."""
        return {GOODPUT: self.goodput_percent} | {f"{TIME}/{name}": seconds for name, seconds in self.parts.items()}

    def describe(self) -> str:
        """Return the line for people."""
        parts = [f"{PARTS[name]} {seconds:.1f} s" for name, seconds in self.parts.items() if seconds >= 0.05]
        return f"goodput {self.goodput_percent:.0f} % of {self.wall:.1f} s: {', '.join(parts)}"


def add_splits(splits: Iterable[TimeSplit]) -> TimeSplit:
    """Add up attempts."""
    found = list(splits)
    return TimeSplit(**{name: sum(getattr(each, name) for each in found) for name in TimeSplit.model_fields})


def count_repeated(split: TimeSplit, num_repeated: int, num_trained: int) -> TimeSplit:
    """Move ``num_repeated`` of the ``num_trained`` optimizer steps from the productive time to the repeated one."""
    if not num_trained:
        return split
    repeated = split.productive * min(1.0, num_repeated / num_trained)
    return split.model_copy(update={"productive": split.productive - repeated, "repeated": split.repeated + repeated})


@dataclass(slots=True)
class Ledger:
    """Books the wall time of one attempt. Times are of the driver's monotonic clock, in seconds."""

    began: float
    is_first: bool
    """True where there was no attempt before: a later one's start is a retry."""
    num_trained: int = 0
    """Optimizer steps that were reported, repeated ones included."""
    times: LoopTimes = field(default_factory=LoopTimes)
    """Last reading of the clock of the workers that run."""
    _booked: TimeSplit = field(default_factory=TimeSplit)
    """All but the loop that runs."""
    _until: float = field(init=False)
    """Time until which everything is booked, or is in ``times``."""
    _pace: float = 0.0
    """Time that workers which start have measured the pace; it is not booked yet."""
    _loop_began: float | None = None
    _step: int = 0
    _num_starts: int = 0

    def __post_init__(self) -> None:
        self._until = self.began

    @property
    def is_running(self) -> bool:
        """Tell whether the newest workers have reported a step."""
        return self._loop_began is not None

    def start(self, step: int, pace: float = 0.0) -> None:
        """Note that workers start, for the first time or again, after ``step``, and measured the pace for ``pace``."""
        self._booked = self._with_loop()
        self._num_starts += 1
        self._pace = pace
        self.times, self._loop_began, self._step = LoopTimes(), None, step

    def add(self, report: LoopReport) -> None:
        """Book a report."""
        if self._loop_began is None:
            self._loop_began = max(self._until, report.at - report.times.elapsed)
            self._book_idle(self._loop_began)
        self.times = report.times
        self._until = self._loop_began + report.times.elapsed
        self.num_trained += report.step - self._step
        self._step = report.step

    def end(self, at: float, *, succeeded: bool) -> None:
        """Book what followed the last report."""
        if succeeded and self.is_running:
            self._booked = self._booked.model_copy(update={"start": self._booked.start + at - self._until})
        else:
            self._book_idle(at)
        self._until = at

    def add_server(self, at: float) -> None:
        """Book the time since the end as waiting for a server."""
        self._booked = self._booked.model_copy(update={"server": self._booked.server + at - self._until})
        self._until = at

    def split(self) -> TimeSplit:
        """Return the parts of what is booked; repeated steps are not told apart."""
        return self._with_loop().model_copy(update={"wall": self._until - self.began})

    def _with_loop(self) -> TimeSplit:
        done, times = self._booked, self.times
        loop = {
            "productive": times.stepping,
            "data": times.data,
            "validation": times.validation,
            "checkpoint": times.checkpoint,
            "server": times.report,
        }
        return done.model_copy(update={name: getattr(done, name) + seconds for name, seconds in loop.items()})

    def _book_idle(self, until: float) -> None:
        """Book the time in which no loop ran."""
        part = "start" if self.is_first and self._num_starts <= 1 else "retry"
        idle = max(0.0, until - self._until)
        pace, self._pace = min(idle, self._pace), 0.0
        booked = {part: getattr(self._booked, part) + idle - pace, "pace": self._booked.pace + pace}
        self._booked = self._booked.model_copy(update=booked)
