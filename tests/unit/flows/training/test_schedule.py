"""Settings of a training whose steps were counted: what was chosen before their number was known is cut to fit."""

from __future__ import annotations

import pytest

from flows.training.schedule import with_counted
from unet_models.specs.loop import LoopSpec, OptimizerSpec
from unet_models.training.optimisation import learning_rate


@pytest.mark.parametrize(
    ("num_steps", "warmup", "every"), [(2000, 100, 200), (10_000, 100, 500), (300, 30, 30), (5, 0, 1)]
)
def test_warm_up_and_checkpoints_are_a_tenth_at_most(num_steps: int, warmup: int, every: int) -> None:
    spec = LoopSpec(within=600.0, optimizer=OptimizerSpec(warmup_steps=100), checkpoint_every_steps=500)
    counted = with_counted(spec, num_steps)
    assert (counted.num_steps, counted.optimizer.warmup_steps, counted.checkpoint_every_steps) == (
        num_steps,
        warmup,
        every,
    )
    rates = [learning_rate(counted.optimizer, step, num_steps) for step in range(num_steps)]
    assert max(rates) == pytest.approx(spec.optimizer.learning_rate), "the peak is reached"
    assert rates[-1] < max(rates), "and left again"
    assert with_counted(counted, num_steps) == counted, "a resumed training has the same"


def test_the_best_checkpoint_is_chosen_among_those_that_were_validated() -> None:
    spec = LoopSpec(within=600.0, select="best", validate_every_steps=100, checkpoint_every_steps=100)
    assert with_counted(spec, 200).checkpoint_every_steps == 100
