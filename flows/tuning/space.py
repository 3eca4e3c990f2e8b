"""Space of a search: names to choices, and how choices change the settings of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.errors import ConfigError
from unet_models.specs.loop import LoopSpec

if TYPE_CHECKING:
    from torch import Tensor

    from flows.training.task import TrainingTask

Values = Mapping[str, Any]
"""Name of a setting to the value that was chosen for it; empty: the settings as configured."""


CHANGED = 0.5
"""Chance that a trial changes a setting; it changes one at least."""


@dataclass(frozen=True, slots=True)
class Space:
    """Functions of a pipeline that a search needs; they travel to the workers by name."""

    choices: Callable[[Any], dict[str, Sequence[Any]]]
    """Names to choices, for the settings of a training."""
    apply: Callable[[Any, Values], LoopSpec]
    """Settings with the chosen values. Raises ValueError where they do not go together."""
    example: Callable[[Any], tuple[Tensor, ...]]
    """Arguments of one forward pass of a task's network, whose time counts as latency."""


def draw(choices: Mapping[str, Sequence[Any]], over: Sequence[str], seed: int, number: int) -> dict[str, Any]:
    """Draw the values of trial ``number``; 0 is the configuration as it is. Raises ConfigError for unknown names.

    Each setting stays as configured in half of the trials: one that changes all at once says nothing of any, and the
    more of a sensible configuration is replaced by chance, the worse it gets.
    """
    if unknown := set(over) - choices.keys():
        raise ConfigError(
            f"search.over: unknown setting {', '.join(sorted(unknown))}; choose from {', '.join(choices)}"
        )
    if number == 0:
        return {}
    if empty := [name for name in over if not choices[name]]:
        raise ConfigError(f"search.over: there is nothing to choose for {', '.join(empty)}; leave it out")
    rng = np.random.default_rng([seed, number])
    names = [name for name, values in choices.items() if values and (not over or name in over)]
    changed = [name for name in names if rng.random() < CHANGED] or [str(rng.choice(names))]
    return {name: choices[name][int(rng.integers(len(choices[name])))] for name in changed}


def describe(values: Values) -> str:
    """Return the line for people."""
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "as configured"


def changed_task(task: TrainingTask, space: Space, values: Values, **fields: Any) -> TrainingTask:
    """Return the task with chosen values and changed fields of its settings."""
    spec = space.apply(task.spec, values).model_copy(update=fields)
    return task.model_copy(update={"spec": spec})
