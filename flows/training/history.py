"""History of a training that stopped: how far it came, where it resumed, and what that cost.

Each attempt keeps its own in a file beside its checkpoints, so that a later attempt, in another process, knows what was
lost. Light to import: figures of records hold it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from data_pipelines import storage
from data_pipelines.specs import Spec
from flows.stages.record import RECORD
from flows.training.goodput import TimeSplit, add_splits, count_repeated

logger = logging.getLogger(__name__)

HISTORY = "history.json"
CHECKPOINT_NAME = re.compile(r"step-(\d+)")
"""The names that ``checkpoint_name`` returns, and their step; the garbage collection removes folders by it."""
NUM_NAMED = 3
"""Unusable checkpoints that a message names; the record names all of them."""


def checkpoint_name(step: int) -> str:
    """Return the name of the folder of the checkpoint after ``step`` steps."""
    return f"step-{step:08d}"


class UnusableCheckpoint(Spec):
    """A checkpoint that was skipped."""

    name: str
    """Attempt and folder, such as ``20260101-000000-a1b2c3/step-00000900``."""
    step: int
    """Step that its name says."""
    reason: str
    """Missing or damaged part."""

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class Start(Spec):
    """Start of a group of workers, as it found the checkpoints; travels as JSON in a report to Ray Train."""

    step: int
    """Step of the newest usable checkpoint; 0: there is none."""
    unusable: tuple[UnusableCheckpoint, ...] = ()
    """Newer checkpoints that were skipped."""
    checkpoint_bytes: int = 0
    """Size of one checkpoint of this training."""
    num_workers: int = 0
    """Number of workers in the group; 0: unknown."""
    num_steps: int = 0
    """Optimizer steps of the whole training; 0: unknown."""
    seconds_per_step: float = 0.0
    """Measured pace from which the steps within a time were counted; 0: their number was known."""
    validating_seconds: float = 0.0
    """Time of all validations at the measured pace."""
    measuring_seconds: float = 0.0
    """Time that measuring the pace took."""
    warmup_steps: int | None = None
    """Optimizer steps of the warm-up where it was shortened to fit; None: it is as configured."""
    precision: str = ""
    """Numeric precision that is trained in; empty: unknown."""
    precision_before: str = ""
    """Numeric precision of the checkpoint; empty: there is none."""
    has_bf16: bool = True
    """True where the hardware of all workers has instructions for bf16."""

    def describe_precision(self) -> str:
        """Return the line for people."""
        lacks_bf16 = self.precision == "fp32" and not self.has_bf16
        reason = ", as the hardware has no instructions for bf16" if lacks_bf16 else ""
        changes = self.precision_before not in ("", self.precision)
        before = f"; {self.precision_before} before step {self.step}" if changes else ""
        return f"trains in {self.precision}{reason}{before}"

    def describe_pace(self, name: str) -> str:
        """Return the line for people where the number of steps of the training ``name`` was counted."""
        if self.num_steps <= 1:
            return (
                "no more than one step fits into the time beside measuring and validation, of "
                f"{self.seconds_per_step:.3g} s: one is trained; raise {name}.within"
            )
        found = (
            f"{self.num_steps} steps, at {self.seconds_per_step:.3g} s each, fit into the time ({name}.within; "
            f"{name}.num_steps is not used)"
        )
        if self.warmup_steps is not None:
            found += f"; warm-up of {self.warmup_steps} of them, which is less than {name}.optimizer.warmup_steps"
        if self.validating_seconds <= self.num_steps * self.seconds_per_step:
            return found
        return (
            f"{found}; more of it, {self.validating_seconds:.0f} s, goes into validations: lower "
            f"{name}.validate_cases or raise {name}.within"
        )


class Resume(Spec):
    """One resume of a training."""

    step: int
    """Step of the checkpoint that it resumed from; 0: it began again."""
    repeated_steps: int
    """Steps that were known to be trained, and were trained again: up to the last report of progress or checkpoint."""
    unusable: tuple[UnusableCheckpoint, ...] = ()
    """Newer checkpoints that were skipped."""

    def describe(self) -> str:
        """Return the line for people."""
        return (
            f"resumed at step {self.step}; {describe_unusable(self.unusable)}; "
            f"{self.repeated_steps} step{'' if self.repeated_steps == 1 else 's'} repeated"
        )


class History(Spec):
    """Events of an attempt at a training."""

    reached: int = 0
    """Highest step that was reported."""
    resumes: tuple[Resume, ...] = ()
    times: TimeSplit = TimeSplit()
    """Its wall time; repeated steps are not told apart."""
    num_trained: int = 0
    """Optimizer steps that were reported, repeated ones included."""


def describe_unusable(unusable: tuple[UnusableCheckpoint, ...]) -> str:
    """Return the number of unusable checkpoints and the names and reasons of the first ones."""
    if not unusable:
        return "no checkpoint unusable"
    named = "; ".join(map(str, unusable[:NUM_NAMED])) + ("; ..." if len(unusable) > NUM_NAMED else "")
    return f"{len(unusable)} checkpoint{'s' if len(unusable) > 1 else ''} unusable ({named})"


def resume_tags(resumes: tuple[Resume, ...]) -> dict[str, str]:
    """Return the tags of the MLflow run; none where the training never resumed."""
    if not resumes:
        return {}
    return {
        "unetflow.resumes": str(len(resumes)),
        "unetflow.repeated_steps": str(sum(each.repeated_steps for each in resumes)),
        "unetflow.unusable_checkpoints": str(len({one.name for each in resumes for one in each.unusable})),
        "unetflow.last_resume": resumes[-1].describe(),
    }


@dataclass(slots=True)
class HistoryKeeper:
    """Keeps the history of an attempt, and knows those of the attempts before it."""

    attempt_uri: str
    earlier: History
    own: History = field(default_factory=History)

    @classmethod
    def of(cls, stage_uri: str, attempt_uri: str) -> HistoryKeeper:
        """Read the histories of the attempts before."""
        return cls(attempt_uri, read_history(stage_uri))

    @property
    def resumes(self) -> tuple[Resume, ...]:
        """All resumes of the training, those of earlier attempts first."""
        return self.earlier.resumes + self.own.resumes

    @property
    def is_first(self) -> bool:
        """Tell whether no attempt before reported anything."""
        return self.earlier == History()

    @property
    def times(self) -> TimeSplit:
        """Wall time of all attempts."""
        repeated = sum(each.repeated_steps for each in self.resumes)
        num_trained = self.earlier.num_trained + self.own.num_trained
        return count_repeated(add_splits([self.earlier.times, self.own.times]), repeated, num_trained)

    def spend(self, times: TimeSplit, num_trained: int) -> None:
        """Note the wall time of this attempt so far; it is kept with the next step that is reached."""
        self.own = self.own.model_copy(update={"times": times, "num_trained": num_trained})

    def finish(self) -> None:
        """Keep the history of an attempt that has ended."""
        self._write()

    def reach(self, step: int) -> None:
        """Note a reported step; kept on local storage alone: progress must not wait for an object store."""
        if step > self.own.reached:
            self.own = self.own.model_copy(update={"reached": step})
            if storage.is_local(self.attempt_uri):
                self._write()

    def start(self, start: Start) -> Resume | None:
        """Note where workers start, and return the resume that it is; None for the first start of all."""
        reached = max([self.earlier.reached, self.own.reached, start.step, *(each.step for each in start.unusable)])
        if not reached:
            return None
        resume = Resume(step=start.step, repeated_steps=reached - start.step, unusable=start.unusable)
        self.own = self.own.model_copy(update={"resumes": (*self.own.resumes, resume)})
        self._write()
        return resume

    def _write(self) -> None:
        try:
            storage.write_bytes(storage.join(self.attempt_uri, HISTORY), self.own.model_dump_json().encode())
        except OSError as error:  # must not end the training
            logger.warning("the history of this training was not kept: %s", error)


def read_history(stage_uri: str) -> History:
    """Merge the histories of all attempts at a stage, in the order in which they began."""
    found = list(_iter_histories(stage_uri))
    return History(
        reached=max((each.reached for each in found), default=0),
        resumes=tuple(resume for each in found for resume in each.resumes),
        times=add_splits(each.times for each in found),
        num_trained=sum(each.num_trained for each in found),
    )


def _iter_histories(stage_uri: str) -> Iterator[History]:
    for attempt in storage.list_names(stage_uri):
        uri = storage.join(stage_uri, attempt, HISTORY)
        if attempt == RECORD or storage.size(uri) is None:
            continue
        try:
            yield History.model_validate_json(storage.read_bytes(uri))
        except ValidationError:
            logger.warning("%s is damaged: what that attempt repeated is not counted", uri)
