"""Postprocessing of label maps: small components, and holes; kept where it raises the cross-validated Dice.

nnU-Net keeps the largest component where that helps (Isensee 2021); here each step is asked for each class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from data_pipelines.specs import Spec
from data_pipelines.volumes.classes import Labels
from unet_models.metrics.overlap import confusion_matrix, dice, without_ignored
from unet_models.metrics.summary import mean_of_class_means

Step = Literal["largest_component", "smallest_component", "fill_holes"]
STEPS: tuple[Step, ...] = ("largest_component", "smallest_component", "fill_holes")
"""Order in which steps are applied."""
MIN_STEP_GAIN = 1e-4
"""Rise of the mean Dice from which a step is kept: below it stands the last digit of a report."""
SHARE_OF_SMALLEST = 0.5
"""Share of the smallest true component of a class below which components of it are removed."""


class Postprocessing(Spec):
    """Steps by number of the class, applied in this order; what is removed becomes background."""

    largest_component: tuple[int, ...] = ()
    """Classes of which the largest component alone stays."""
    smallest_component: dict[int, float] = Field(default={})
    """Size in mm3 (2-D: mm2) below which components of a class are removed."""
    fill_holes: tuple[int, ...] = ()
    """Classes whose enclosed background becomes theirs."""

    def __bool__(self) -> bool:
        return any(getattr(self, step) for step in STEPS)

    def apply(self, numbers: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        """Return the processed numbers of classes (*spatial); ``spacing`` in mm per axis."""
        if not self:
            return numbers
        processed = numbers.copy()
        for number in self.largest_component:
            _keep_components(processed, number, lambda sizes: sizes == sizes.max())
        for number, smallest in self.smallest_component.items():
            _keep_components(processed, number, partial(np.less_equal, smallest / math.prod(spacing)))
        for number in self.fill_holes:
            _fill_holes(processed, number)
        return processed

    def is_part_of(self, other: Postprocessing) -> bool:
        """Tell whether all steps are among those of another."""
        return other.joined(self).counts() == other.counts()

    @property
    def numbers(self) -> set[int]:
        """Classes of all steps."""
        return {*self.largest_component, *self.smallest_component, *self.fill_holes}

    def counts(self) -> tuple[int, ...]:
        """Count the classes of each step."""
        return tuple(len(set(getattr(self, step))) for step in STEPS)

    def joined(self, other: Postprocessing) -> Postprocessing:
        """Return the steps of both."""
        return Postprocessing(
            largest_component=(*self.largest_component, *other.largest_component),
            smallest_component=self.smallest_component | other.smallest_component,
            fill_holes=(*self.fill_holes, *other.fill_holes),
        )


@dataclass(frozen=True, slots=True)
class Case:
    """Prediction and truth of a case, as numbers of classes (*spatial)."""

    prediction: np.ndarray
    truth: np.ndarray
    spacing: tuple[float, ...]


Load = Callable[[], Case]
"""Reads a case: all label maps of a data set need not fit into memory."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A step that was tried for a class."""

    step: Step
    number: int
    class_name: str
    steps: Postprocessing
    """The step alone."""


@dataclass(frozen=True, slots=True)
class Tried:
    """Mean Dice over the cases, then over the targets, without and with a step alone."""

    trial: Trial
    before: float
    after: float

    @property
    def helps(self) -> bool:
        """Tell whether it is worth keeping."""
        return self.after >= self.before + MIN_STEP_GAIN


@dataclass(frozen=True, slots=True)
class Choice:
    """Steps that are kept, what each did alone, and what they do together."""

    kept: Postprocessing
    tried: tuple[Tried, ...]
    before: float
    after: float


def choose_postprocessing(cases: Sequence[Load], labels: Labels) -> Choice:
    """Try each step for each class on predictions of cases that their network has not seen; keep those that help.

    Where those that help alone do not help together, the best of them is kept.
    """
    trials = list(_trials(_smallest_true(cases, labels), labels))
    before, *after = _mean_dice(cases, [Postprocessing(), *(trial.steps for trial in trials)], labels)
    tried = tuple(Tried(trial, before, value) for trial, value in zip(trials, after, strict=True))
    helpful = sorted((each for each in tried if each.helps), key=lambda each: -each.after)
    if len(helpful) > 1:
        joined = Postprocessing()
        for each in helpful:
            joined = joined.joined(each.trial.steps)
        (together,) = _mean_dice(cases, [joined], labels)
        if together >= helpful[0].after:
            return Choice(joined, tried, before, together)
    if helpful:
        return Choice(helpful[0].trial.steps, tried, before, helpful[0].after)
    return Choice(Postprocessing(), tried, before, before)


def _trials(smallest: Mapping[int, float], labels: Labels) -> Iterator[Trial]:
    for step in STEPS:
        for name, number in labels.numbers.items():
            if number not in smallest:  # the background, and classes that no case shows
                continue
            value = {number: SHARE_OF_SMALLEST * smallest[number]} if step == "smallest_component" else (number,)
            yield Trial(step, number, name, Postprocessing.model_validate({step: value}))


def _mean_dice(cases: Sequence[Load], variants: Sequence[Postprocessing], labels: Labels) -> list[float]:
    """Compute the mean Dice over the cases, then over the targets, of each variant."""
    targets = list(labels.targets.values())
    rows = [[dice(counts, targets) for counts in _count(load(), variants, labels.num_classes)] for load in cases]
    table = np.array(rows)  # (cases, variants, targets)
    every = np.ones((1, len(cases)))
    return [float(mean_of_class_means(every, table[:, place])[0]) for place in range(len(variants))]


def _count(case: Case, variants: Sequence[Postprocessing], num_classes: int) -> Iterator[NDArray[np.int64]]:
    """Yield the confusion matrix of a case after the steps of each variant, ignored voxels left out.

    Steps change voxels within the bounding box of their classes alone: the rest of a volume is counted once.
    """
    whole = confusion_matrix(*without_ignored(case.prediction, case.truth, num_classes), num_classes)
    boxes = ndimage.find_objects(case.prediction, num_classes - 1)
    for steps in variants:
        box = _around([found for number in steps.numbers if (found := boxes[number - 1]) is not None])
        if box is None:
            yield whole
            continue
        before, truth = case.prediction[box], case.truth[box]
        after = steps.apply(before, case.spacing)
        changed = (after != before) & (truth < num_classes)
        there = truth[changed][None]
        less, more = (confusion_matrix(each[changed][None], there, num_classes) for each in (before, after))
        yield whole - less + more


def _around(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...] | None:
    """Return the bounding box of several ones; None of none."""
    if not boxes:
        return None
    return tuple(
        slice(min(part.start for part in along), max(part.stop for part in along)) for along in zip(*boxes, strict=True)
    )


def _smallest_true(cases: Sequence[Load], labels: Labels) -> Mapping[int, float]:
    """Find the size of the smallest true component of each class, in mm to the power of the axes."""
    found: dict[int, float] = {}
    for load in cases:
        case = load()
        boxes = ndimage.find_objects(case.truth, labels.num_classes - 1)
        for number, box in enumerate(boxes, start=1):
            for _, sizes in _components(case.truth[box], number) if box is not None else ():
                size = float(sizes.min()) * math.prod(case.spacing)
                found[number] = min(found.get(number, math.inf), size)
    return found


def _components(numbers: np.ndarray, number: int) -> Iterator[tuple[tuple[np.ndarray, tuple[slice, ...]], np.ndarray]]:
    """Yield the components of a class in its bounding box, numbered from 1, with the box, and their voxels; once."""
    boxes = ndimage.find_objects((numbers == number).astype(np.uint8))
    if not boxes:
        return
    structure = np.ones((3,) * numbers.ndim)  # neighbours across corners, too, as in nnU-Net
    components, count = ndimage.label(numbers[boxes[0]] == number, structure)
    yield (components, boxes[0]), np.bincount(components.ravel(), minlength=count + 1)[1:]


def _keep_components(numbers: np.ndarray, number: int, keep: Callable[[np.ndarray], np.ndarray]) -> None:
    """Make the components of a class background whose sizes ``keep`` does not choose, in place."""
    for (components, box), sizes in _components(numbers, number):
        stays = np.concatenate([[True], keep(sizes)])
        numbers[box][~stays[components]] = 0


def _fill_holes(numbers: np.ndarray, number: int) -> None:
    """Give a class the background that it encloses, in place."""
    for (components, box), _ in _components(numbers, number):
        holes = ndimage.binary_fill_holes(components > 0) & (numbers[box] == 0)
        numbers[box][holes] = number
