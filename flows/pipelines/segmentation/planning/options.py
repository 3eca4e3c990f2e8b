"""Options of a plan, and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flows.pipelines.segmentation.planning.networks import NETWORKS, PlannedNetwork

CPU_GB_PER_MINUTE = 0.06
"""Memory that patches are planned for without a GPU, per minute of training: large patches leave a short one
few steps. Chosen, not measured."""
MIN_MINUTES = 1.0


@dataclass(frozen=True, slots=True)
class PlanningOptions:
    """Options of a plan: time, memory, network, folds."""

    within_seconds: float | None = None
    memory_gb: float = 8.0
    use_gpu: bool = False
    network: PlannedNetwork = NETWORKS["nnunet"]
    folds: bool = False
    """True to train a network per fold."""

    @property
    def is_short_of_time(self) -> bool:
        """Tell whether time is short: a time was given, and there is no GPU."""
        return not self.use_gpu and self.within_seconds is not None

    @property
    def patch_memory_gb(self) -> float:
        """Memory that patches are planned for: without a GPU less where time is short."""
        if self.use_gpu or self.within_seconds is None:
            return self.memory_gb
        return min(self.memory_gb, CPU_GB_PER_MINUTE * max(MIN_MINUTES, self.within_seconds / 60))


@dataclass(frozen=True, slots=True)
class Setting:
    """A field of the configuration, its value and why."""

    path: str
    value: Any
    reason: str
