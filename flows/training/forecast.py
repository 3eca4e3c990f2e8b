"""Time that a training will still take, by its recent pace."""

from __future__ import annotations

from collections import deque

from flows.training.clock import LoopReport
from unet_models.specs.loop import LoopSpec

NUM_RECENT = 20
"""Reports over which the pace of the steps is taken."""


class Forecast:
    """Pace of the steps, validations and checkpoints of the workers that run."""

    def __init__(self, spec: LoopSpec) -> None:
        self._spec = spec
        self._recent: deque[LoopReport] = deque(maxlen=NUM_RECENT)
        self._first_step = 0

    def start(self, step: int, num_steps: int) -> None:
        """Note that workers start after ``step`` of ``num_steps``: their pace is their own."""
        self._recent.clear()
        is_counted = self._spec.within is not None
        self._spec = self._spec.counted(num_steps) if is_counted else self._spec
        self._first_step = step

    def add(self, report: LoopReport) -> None:
        """Note a report."""
        self._recent.append(report)

    @property
    def step(self) -> int:
        """Last step that was reported by the workers that run."""
        return self._recent[-1].step if self._recent else self._first_step

    @property
    def seconds_per_step(self) -> float | None:
        """Recent wall time of a step without validations and checkpoints; None before the first report.

        The first steps after a start are slow: they count only until later ones are known.
        """
        if not self._recent:
            return None
        first, last = self._recent[0], self._recent[-1]
        if last.step > first.step:
            return (_of_steps(last) - _of_steps(first)) / (last.step - first.step)
        num_steps = last.step - self._first_step
        return _of_steps(last) / num_steps if num_steps > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Wall time until the last step, in seconds; None before the first report."""
        if (pace := self.seconds_per_step) is None:
            return None
        spec, last = self._spec, self._recent[-1]
        times = last.times
        pace /= spec.work(last.step - 1, last.step)  # the steps to come may be longer
        validations = _num_left(last.step, spec.num_steps, spec.validate_every_steps)
        checkpoints = _num_left(last.step, spec.num_steps, spec.checkpoint_every_steps)
        return (
            pace * spec.work(last.step, spec.num_steps)
            + validations * times.validation / max(1, times.num_validations)
            + checkpoints * times.checkpoint / max(1, times.num_checkpoints)
        )

    @property
    def seconds_between_reports(self) -> float | None:
        """Longest usual time between two reports, in seconds: the steps of a log line, a validation, a checkpoint.

        None where that is not known: before the first report, and while the first validation or checkpoint may be
        under way.
        """
        if (pace := self.seconds_per_step) is None:
            return None
        spec, times = self._spec, self._recent[-1].times
        usual = pace / spec.work(self.step - 1, self.step) * spec.log_every_steps
        for every, number, seconds in (
            (spec.validate_every_steps, times.num_validations, times.validation),
            (spec.checkpoint_every_steps, times.num_checkpoints, times.checkpoint),
        ):
            if not number and -(-self.step // every) * every <= self.step + spec.log_every_steps:
                return None
            usual += seconds / max(1, number)
        return usual


def _of_steps(report: LoopReport) -> float:
    return report.times.elapsed - report.times.validation - report.times.checkpoint


def _num_left(step: int, num_steps: int, every: int) -> int:
    """Return how often something is still due that is due every so many steps, and after the last one."""
    return -(-num_steps // every) - step // every if step < num_steps else 0
