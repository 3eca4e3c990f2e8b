"""Pipelines as values: a configuration class and ordered steps, each planning a stage from the records before it.

Light to import: the command line reads the pipelines at every start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_pipelines.errors import ConfigError
from flows.config.pipeline import PipelineConfig

if TYPE_CHECKING:
    from flows.stages.record import Record
    from flows.stages.stage import Stage

Records = Mapping[str, "Record[Any]"]
"""Step name to the record of its stage."""


def accept(config: PipelineConfig) -> None:
    """Accept any valid configuration: the pipeline needs no further checks."""


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a pipeline."""

    name: str
    plan: Callable[[Any, Records], Stage[Any]]
    """Plan the stage from the pipeline's configuration and the records of the earlier steps."""
    about: str
    """Help text of the command that runs the pipeline up to this step."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A configuration class and ordered steps."""

    name: str
    config: type[PipelineConfig]
    steps: tuple[Step, ...]
    check: Callable[[Any], None] = accept
    """Check of what the configuration names (folders, weights) before anything is computed; raises UserError."""
    entry_module: str = "flows.cli"
    """Module that ``python -m`` runs in a job of the cluster. A pipeline defined outside this package names its own: a
    module that adds itself to ``PIPELINES`` and calls ``flows.cli.main``; it, or its package, travels with the job."""

    @property
    def step_names(self) -> tuple[str, ...]:
        """Names of the steps, in order."""
        return tuple(step.name for step in self.steps)

    def steps_until(self, last: str | None) -> tuple[Step, ...]:
        """Return the steps up to ``last``, inclusive; None: all. Raises ConfigError where there is no such step."""
        if last is None:
            return self.steps
        if last not in self.step_names:
            raise ConfigError(f"pipeline {self.name} has no stage {last}; it has {', '.join(self.step_names)}")
        return self.steps[: self.step_names.index(last) + 1]
