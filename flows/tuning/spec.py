"""Configuration of a search."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from data_pipelines.specs import Duration, Spec

TRIALS_IN_A_ROW = 8
"""Whole trials that follow each other on one worker, where ``trial`` does not say how long one is."""
FINAL_SHARE = 0.4
"""Share of the time in which the best trials are trained once more, for longer."""


class SearchSpec(Spec):
    """Search over the architecture: many short trainings, of which the bad ones end early (ASHA, Li 2020), then longer
    ones of the best and of the configuration."""

    within: Duration = Field(default=1800.0)
    """Wall time of all trials together, such as ``30m``, in seconds or as ``1h30m``; 40 % of it are for the best ones,
    which train once more beside the configuration, as long as the pipeline would train them where that fits."""
    trial: Duration | None = None
    """Training time of one trial that is not ended early, in seconds or as ``4m``. None: an eighth of 60 % of
    ``within``."""
    num_trials: int | None = Field(default=None, ge=1)
    """Most trials, the configuration itself among them. None: as many as there is time for."""
    over: tuple[str, ...] = ()
    """Names of what is searched over. Empty (default): all."""
    max_parameters: int | None = Field(default=None, ge=1)
    """Most parameters that a network may have. None: no limit."""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """Longest time that the forward pass of one window may take on the machine that trains, in ms. None: no limit."""
    seed: int = Field(default=0, ge=0)
    """Seed by which trials are drawn. Which of them are reached, and how far they train, depends on the machine."""
    num_folds: int = Field(default=5, ge=2)
    """One of so many parts of the training cases, by subject, is held out to compare trials; the cases that the final
    model is evaluated on are never used."""

    @property
    def screening_seconds(self) -> float:
        """Wall time of the short trials together, in seconds."""
        return (1 - FINAL_SHARE) * self.within

    @property
    def final_seconds(self) -> float:
        """Wall time of the long ones together, in seconds."""
        return FINAL_SHARE * self.within

    @property
    def trial_seconds(self) -> float:
        """Training time of one short trial, in seconds."""
        return self.screening_seconds / TRIALS_IN_A_ROW if self.trial is None else self.trial

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.trial_seconds > self.screening_seconds:
            raise ValueError(
                f"trial: {self.trial_seconds:g} s are longer than {1 - FINAL_SHARE:.0%} of within, "
                f"{self.screening_seconds:g} s"
            )
        return self
