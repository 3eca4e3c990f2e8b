"""Summary of each variant: estimates over seeds and cases, and steps until a quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from data_pipelines.errors import ConfigError
from flows.ablation.run import LAST, VARIED, AblationRun
from flows.metrics import Metric, parse_metric_name
from flows.stages.pipeline import Ablation, Estimate
from flows.training.curves import curves_by_name, read_curves

SHARE = 0.95
"""Share of the reference's final validation score (from that of its first validation on) that counts as reached."""

Curve = Sequence[tuple[float, float]]
"""Step and validation score."""


@dataclass(frozen=True, slots=True)
class VariantSummary:
    """A variant over all its seeds."""

    name: str
    num_seeds: int
    estimates: dict[str, Estimate]
    """Metric to its estimate."""
    steps: float
    """First validated step at which the mean over the seeds has the quality; infinite where it never has."""
    curve: Curve
    """Validation score by step, mean over the seeds."""


def summarise_runs(ablation: Ablation, runs: Sequence[AblationRun]) -> list[VariantSummary]:
    """Summarise the runs by variant, the reference first."""
    names = list(dict.fromkeys(run.variant for run in runs))
    by_name = {name: [run for run in runs if run.variant == name] for name in names}
    curves = {name: mean_curve([_curve(run, ablation.quality) for run in each]) for name, each in by_name.items()}
    metric = parse_metric_name(ablation.quality).metric
    if not curves[names[0]]:
        raise ConfigError(
            f"ablate: no held-out case has {ablation.quality}, by which variants are compared; choose another "
            "data.fold, or raise train.validate_cases"
        )
    wanted = wanted_quality(curves[names[0]], metric)
    return [
        VariantSummary(
            name,
            len(each),
            ablation.estimate([run.records[LAST] for run in each]),
            steps_until(curves[name], wanted, metric),
            curves[name],
        )
        for name, each in by_name.items()
    ]


def wanted_quality(reference: Curve, metric: Metric) -> float:
    """Return the validation score that counts as reached, by the mean curve of the reference."""
    first, last = reference[0][1], reference[-1][1]
    if metric.better == "higher":
        return SHARE * last
    return last + (1 - SHARE) * abs(first - last)


def steps_until(curve: Curve, wanted: float, metric: Metric) -> float:
    """Return the first validated step whose score is at least as good; infinity where there is none."""
    reached = (step for step, value in curve if metric.score(value) >= metric.score(wanted))
    return next(reached, math.inf)


def mean_curve(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Average curves at the steps that all of them have: a validation may find nothing to score."""
    by_step = [dict(curve) for curve in curves]
    steps = [step for step in by_step[0] if all(step in curve for curve in by_step)]
    return [(step, mean(curve[step] for curve in by_step)) for step in steps]


def _curve(run: AblationRun, name: str) -> Curve:
    return curves_by_name(read_curves(run.records[VARIED])).get(name, [])
