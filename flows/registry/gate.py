"""The gate: a version is promoted to champion when it meets the thresholds and beats the champion beyond noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from flows.config.specs import RegistrySpec
from flows.metrics import find_value

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A new version and the champion, measured on the same data."""

    metric: str
    ours: float
    theirs: float
    lower_bound: float
    """The new version is better by at least this, in the metric's unit and direction, at ``level``."""
    level: float
    """Confidence level."""
    num_cases: int | None
    """Held-out cases, or generated images, that both were measured on; None: compared by figures of all data."""

    def __str__(self) -> str:
        """Say it in one sentence."""
        bound = f"better by at least {self.lower_bound:.4f}" if math.isfinite(self.lower_bound) else "no bound"
        data = "data" if self.num_cases is None else f"{self.num_cases} cases"
        return (
            f"{self.metric} {self.ours:.4f} against the champion's {self.theirs:.4f} on the same {data} "
            f"({bound} at level {self.level:g})"
        )


@dataclass(frozen=True, slots=True)
class Incomparable:
    """A champion that cannot be measured on the new version's data."""

    reason: str


def decide_alias(
    metrics: Mapping[str, float],
    champion: Comparison | Incomparable | None,
    spec: RegistrySpec,
    default_metric: str,
) -> tuple[str, str]:
    """Return (alias, reason) of a new version; ``champion`` is None where there is none yet."""
    if reason := _broken_threshold(metrics, spec):
        return CHALLENGER, reason
    name = spec.compare_metric or default_metric
    if not math.isfinite(find_value(metrics, name)):
        return CHALLENGER, f"{name} was not measured, so nothing can be compared; there are {sorted(metrics)}"
    if champion is None:
        return CHAMPION, "thresholds met, and there is no champion to compare with"
    if isinstance(champion, Incomparable):
        if spec.without_comparison == "promote":
            return CHAMPION, f"promoted without a comparison (registry.without_comparison): {champion.reason}"
        return CHALLENGER, f"the champion cannot be compared on the same data: {champion.reason}"
    if champion.lower_bound > 0:
        return CHAMPION, f"better beyond noise: {champion}"
    return CHALLENGER, f"not better beyond noise: {champion}"


def _broken_threshold(metrics: Mapping[str, float], spec: RegistrySpec) -> str:
    """Say which threshold a version misses; empty where it meets all. A metric that is not finite misses every one."""
    if broken := [name for name, value in metrics.items() if not math.isfinite(value)]:
        return f"{', '.join(broken)} is not finite"
    for name, minimum in spec.min_metrics.items():
        if not find_value(metrics, name) >= minimum:
            return f"{name} is {find_value(metrics, name):.4f}, below the threshold {minimum}"
    for name, maximum in spec.max_metrics.items():
        if not find_value(metrics, name) <= maximum:
            return f"{name} is {find_value(metrics, name):.4f}, above the threshold {maximum}"
    return ""
