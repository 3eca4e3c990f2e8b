"""The gate: a version is promoted to champion when it meets the thresholds and beats the champion."""

from __future__ import annotations

import math
from collections.abc import Mapping

from flows.config.specs import RegistrySpec
from flows.metrics import find_value, is_better

CHAMPION, CHALLENGER = "champion", "challenger"


def decide_alias(
    metrics: Mapping[str, float], champion: Mapping[str, float] | None, spec: RegistrySpec, default_metric: str
) -> tuple[str, str]:
    """Return (alias, reason) of a new version.

    ``champion`` holds the champion's metrics on the same evaluation data; None where it has none.
    """
    for name, minimum in spec.min_metrics.items():
        if not find_value(metrics, name) >= minimum:
            return CHALLENGER, f"{name} is {find_value(metrics, name):.4f}, below the threshold {minimum}"
    for name, maximum in spec.max_metrics.items():
        if not find_value(metrics, name) <= maximum:
            return CHALLENGER, f"{name} is {find_value(metrics, name):.4f}, above the threshold {maximum}"
    name = spec.compare_metric or default_metric
    ours = find_value(metrics, name)
    if math.isnan(ours):
        return CHALLENGER, f"{name} was not measured, so nothing can be compared; there are {sorted(metrics)}"
    if champion is None:
        return CHAMPION, "thresholds met, and no champion was evaluated on the same data"
    theirs = find_value(champion, name)
    if math.isnan(theirs) or is_better(name, ours, theirs):  # a champion without this metric has nothing to defend
        return CHAMPION, f"{name} {ours:.4f} beats the champion's {theirs:.4f} on the same data"
    return CHALLENGER, f"{name} {ours:.4f} does not beat the champion's {theirs:.4f} on the same data"
