"""Budget of an ablation: as many steps for each of its trainings as let all of them end within a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from data_pipelines.errors import ConfigError
from data_pipelines.specs import duration_text
from flows.ablation.run import (
    VARIED,
    AblationRun,
    check_comparable,
    plan_runs,
    run_all,
    run_before,
    share_cluster,
    with_train,
)
from flows.config.pipeline import PipelineConfig
from flows.stages.pipeline import Ablation
from flows.training.figures import TrainingFigures

logger = logging.getLogger(__name__)

TRIED_SHARE, MAX_TRIED_SECONDS = 0.02, 60.0
"""Share of the time, and most of it, that each training which measures the pace takes."""
MARGIN = 0.95
"""Share of what is left that is planned: variants differ in pace, and runs have pauses between their stages."""
NUM_VALIDATIONS = 10
"""Validations of each training, evenly spaced: the points at which its curve is known."""
NEVER = 1 << 30


@dataclass(frozen=True, slots=True)
class RunCost:
    """Wall times of one run, in seconds."""

    step: float
    validation: float
    rest: float
    """Start, evaluation and whatever else does not depend on the number of steps."""

    def count_steps(self, seconds: float) -> int:
        """Return how many steps fit into ``seconds``, with the validations; none where it is below 1."""
        return math.floor((seconds - self.rest - NUM_VALIDATIONS * self.validation) / self.step)

    def describe(self) -> str:
        """Return the parts for people."""
        return (
            f"each takes {self.step:.2g} s a step, {NUM_VALIDATIONS} validations of {self.validation:.1f} s, and "
            f"{self.rest:.0f} s for its start and evaluation"
        )


def fit_within(config: PipelineConfig, ablation: Ablation, seeds: Sequence[int], seconds: float) -> PipelineConfig:
    """Return the configuration with the number of steps with which all runs end in about ``seconds``.

    The stages before the training run first, then as many runs as there are side by side train for a short time and
    are evaluated, and as many again in the same processes: their records say what a step, a validation and the rest
    take. The same records give the same number, so that the command may be repeated. Raises ConfigError where not even
    a step per validation fits.
    """
    check_comparable(config)
    before = run_before(config)
    planned = plan_runs(_short_training(config, seconds), ablation, seeds)
    _, room = share_cluster(config.compute, len(planned))
    tried = run_all(planned[: 2 * room])
    cost = plan_cost([cost_of(run) for run in tried], room)
    spent = sum(record.seconds for record in before) + sum(_seconds(run) for run in tried) / room
    return with_steps(config, plan_steps(cost, seconds - spent, len(planned), room))


def plan_steps(cost: RunCost, seconds: float, num_runs: int, room: int) -> int:
    """Return the number of steps of each of ``num_runs`` runs, ``room`` side by side, that end in about ``seconds``.

    Raises ConfigError where not even a step per validation fits.
    """
    num_steps = cost.count_steps(MARGIN * seconds / math.ceil(num_runs / room))
    if num_steps < NUM_VALIDATIONS:
        left = duration_text(max(round(seconds), 0))
        raise ConfigError(
            f"ablate: {num_runs} runs, {room} side by side, do not fit into the {left} that are left of the time: "
            f"{cost.describe()}; raise --within, or lower --seeds, train.validate_cases or what is evaluated"
        )
    logger.info(
        "ablate: %d runs, %d side by side, of %d steps each fit into the time (--within; train.num_steps is not used): "
        "%s",
        num_runs,
        room,
        num_steps,
        cost.describe(),
    )
    return num_steps


def cost_of(run: AblationRun) -> RunCost:
    """Return what a run took that was validated once, at its end."""
    figures = run.records[VARIED].figures
    assert isinstance(figures, TrainingFigures)
    assert figures.times is not None
    times = figures.times
    stepping = times.productive + times.data
    rest = _seconds(run) - stepping - times.validation - times.pace
    return RunCost(stepping / figures.step, times.validation, rest)


def plan_cost(costs: Sequence[RunCost], room: int) -> RunCost:
    """Return what the runs to come are planned to take: the highest step and validation, and the highest rest of the
    runs after the first ``room``, in whose processes everything is imported."""
    warm = costs[room:] or costs
    return RunCost(
        max(cost.step for cost in costs), max(cost.validation for cost in costs), max(cost.rest for cost in warm)
    )


def with_steps(config: PipelineConfig, num_steps: int) -> PipelineConfig:
    """Return the configuration with trainings of so many steps, validated ``NUM_VALIDATIONS`` times."""
    every = math.ceil(num_steps / NUM_VALIDATIONS)
    configured = config.train.optimizer  # type: ignore[attr-defined]  # ablations are of pipelines that train
    optimizer = config.train.with_num_steps(num_steps).optimizer  # type: ignore[attr-defined]
    if optimizer.warmup_steps < configured.warmup_steps:
        logger.warning(
            "ablate: warm-up of %d steps, not %d (--within)", optimizer.warmup_steps, configured.warmup_steps
        )
    return with_train(
        config,
        num_steps=num_steps,
        validate_every_steps=every,
        checkpoint_every_steps=every,
        optimizer=optimizer,
    )


def _short_training(config: PipelineConfig, seconds: float) -> PipelineConfig:
    within = min(MAX_TRIED_SECONDS, TRIED_SHARE * seconds)
    return with_train(config, within=within, validate_every_steps=NEVER, checkpoint_every_steps=NEVER, select="last")


def _seconds(run: AblationRun) -> float:
    """Return the time of the stages from the training on."""
    names = list(run.records)
    return sum(run.records[name].seconds for name in names[names.index(VARIED) :])
