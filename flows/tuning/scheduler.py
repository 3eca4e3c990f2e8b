"""Early end of trials that fall behind: ASHA (Li 2020), as Ray Tune has it, over shares of each trial's own steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

REDUCTION = 3
"""Reduction factor: one of so many trials continues at each rung."""


class KeepConfigured(ASHAScheduler):
    """ASHA that never ends trial 0, the configuration: it is what others are compared with."""

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Record the score at its rung, and decide whether the trial goes on."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if trial.config["number"] == 0 else decision


def build_scheduler(num_rungs: int) -> KeepConfigured:
    """Build the scheduler of trials that report ``num_rungs`` times: each is compared with what others had after the
    same share of their steps, the first time after one report."""
    return KeepConfigured(
        time_attr="rung",
        max_t=num_rungs + 1,  # trials end by their own schedule
        grace_period=1,
        reduction_factor=REDUCTION,
    )
