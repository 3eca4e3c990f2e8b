"""Pipelines as values: a configuration class and ordered steps, each planning a stage from the records before it.

Light to import: the command line reads the pipelines at every start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, Protocol

from data_pipelines.errors import ConfigError
from flows.config.pipeline import PipelineConfig

if TYPE_CHECKING:
    from flows.stages.record import Record
    from flows.stages.stage import Stage

Records = Mapping[str, "Record[Any]"]
"""Step name to the record of its stage."""


class Explainer(Protocol):
    """Draws what a registered model looks at."""

    def __call__(self, row: Mapping[str, Any], folder: Path) -> list[Path]:
        """Write pictures of one input, a row of the model's columns, to ``folder``; return the files.

        Raises DataError or InputError for an input that the model does not take.
        """
        ...


def accept(config: PipelineConfig) -> None:
    """Accept any valid configuration: the pipeline needs no further checks."""


def for_nothing(config: PipelineConfig) -> Mapping[str, Sequence[str]]:
    """Let every run begin at once."""
    return {}


def always(config: PipelineConfig) -> bool:
    """Accept any configuration: the step belongs to every run."""
    return True


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a pipeline."""

    name: str
    plan: Callable[[Any, Records], Stage[Any]]
    """Plan the stage from the pipeline's configuration and the records of the earlier steps."""
    about: str
    """Help text of the command that runs the pipeline up to this step."""
    is_wanted: Callable[[Any], bool] = always
    """Tell whether runs of a configuration have this step."""
    waits: bool = False
    """True where it reads results of other runs: those of ``Branches.waits_for``."""


@dataclass(frozen=True, slots=True)
class Branches:
    """Runs of one configuration, and the stages that join them."""

    split: Callable[[Any], Mapping[str, Any]]
    """Return the configuration of each run by its title; where there is one alone, it is an ordinary run."""
    last: str
    """Last step of each run."""
    joint: tuple[Step, ...]
    """Steps that follow; the records of the runs are named by ``branch_key``."""
    waits_for: Callable[[Any], Mapping[str, Sequence[str]]] = for_nothing
    """Return the titles of the runs that must be done before a run, by its title; most wait for none."""


def branch_key(step: str, place: int) -> str:
    """Name the record of a step of one of several runs, counted from 0."""
    return f"{step}.{place}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds, and over cases where there are, with the ends of its 95 % interval (NaN: unknown)."""

    mean: float
    low: float
    high: float


def over_seeds(values: Sequence[float]) -> Estimate:
    """Estimate a mean from one value per seed, with Student's 95 % interval; no interval of one seed."""
    centre = mean(values)
    if len(values) == 1:
        return Estimate(centre, math.nan, math.nan)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Estimate(centre, centre - half, centre + half)


@dataclass(frozen=True, slots=True)
class Ablation:
    """Variants of a configuration that are compared under one budget."""

    name: str
    about: str
    """Help text: what is left out."""
    variants: Callable[[Any], dict[str, Any]]
    """Name to configuration; the first is the reference. Raises ConfigError where there is nothing to leave out."""
    estimate: Callable[[Sequence[Record[Any]]], dict[str, Estimate]]
    """Metric to its estimate, from the evaluations of all seeds of a variant."""
    quality: str
    """Validation metric by which the steps until a quality are counted."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A configuration class and ordered steps."""

    name: str
    config: type[PipelineConfig]
    steps: tuple[Step, ...]
    check: Callable[[Any], None] = accept
    """Check of what the configuration names (folders, weights) before anything is computed; raises UserError."""
    load_explainer: Callable[[Path, str | None], Explainer] | None = None
    """Load a registered model's files for ``unetflow explain``, limited to the named class; None: it has no such."""
    entry_module: str = "flows.cli"
    """Module that ``python -m`` runs in a job of the cluster. A pipeline defined outside this package names its own: a
    module that adds itself to ``PIPELINES`` and calls ``flows.cli.main``; it, or its package, travels with the job."""
    branches: Branches | None = None
    """Expansion of one configuration into several runs; None: always one run."""
    ablations: tuple[Ablation, ...] = ()
    """Comparisons of ``unetflow ablate``."""

    @property
    def step_names(self) -> tuple[str, ...]:
        """Names of the steps, in order."""
        return tuple(step.name for step in self.steps)

    @property
    def all_steps(self) -> tuple[Step, ...]:
        """Steps of ordinary runs, then those that join several."""
        joint = self.branches.joint if self.branches else ()
        return (*self.steps, *(step for step in joint if step.name not in self.step_names))

    def split(self, config: PipelineConfig) -> Mapping[str, PipelineConfig]:
        """Return the configurations of the runs that a configuration asks for, by their titles; one: itself."""
        return self.branches.split(config) if self.branches else {config.pipeline: config}

    def chains(self, config: PipelineConfig, last: str | None = None) -> dict[str, tuple[Step, ...]]:
        """Return the steps of each of several runs up to ``last``, by title, in an order in which they can be done.

        Runs that have no such step are left out; those that others wait for are whole. Raises ConfigError where no run
        has the step.
        """
        assert self.branches is not None
        configs, waits_for = self.split(config), self.branches.waits_for(config)
        last = self.branches.last if self.joint_steps_of(config, last) else last
        having = [title for title, each in configs.items() if last in {step.name for step in self.steps_of(each)}]
        wanted = having or configs  # of which none has the step: the first one says so
        steps = {title: self.steps_of(configs[title], last) for title in wanted}
        waiting = [title for title, chain in steps.items() if any(step.waits for step in chain)]
        needed = {each for title in waiting for each in waits_for.get(title, ())}
        steps |= {title: self.steps_of(configs[title], self.branches.last) for title in needed}
        return {
            title: steps[title] for title in sorted(configs, key=lambda title: title in waits_for) if title in steps
        }

    def joint_steps_of(self, config: PipelineConfig, last: str | None = None) -> tuple[Step, ...]:
        """Return the steps that join several runs, up to ``last``; none where it is a step of each run."""
        assert self.branches is not None
        steps = tuple(step for step in self.branches.joint if step.is_wanted(config))
        names = [step.name for step in steps]
        if last is None or last in names:
            return steps[: len(names) if last is None else names.index(last) + 1]
        return ()

    def steps_of(self, config: PipelineConfig, last: str | None = None) -> tuple[Step, ...]:
        """Return the steps of a run up to ``last``, inclusive; None: all. Raises ConfigError where there is none."""
        steps = tuple(step for step in self.steps if step.is_wanted(config))
        names = [step.name for step in steps]
        if last is None:
            return steps
        if last not in names:
            raise ConfigError(f"this run of pipeline {self.name} has no stage {last}; it has {', '.join(names)}")
        return steps[: names.index(last) + 1]
