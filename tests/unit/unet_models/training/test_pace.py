from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch import nn

from data_pipelines.batches import VolumeBatch
from tests.support.training import CPU, SPEC, batches, fresh
from unet_models.training.objectives import Segmentation
from unet_models.training.pace import NUM_SLOW, NUM_TIMED, Pace, mean_pace, measure_pace


def test_steps_and_their_validations_fit_into_the_time() -> None:
    """100 s: 3 are spent, 1 is the last validation; 96 hold 80 steps of 1 s and 16 validations of 1 s."""
    assert Pace(1.0, 1.0, 3.0).count_steps(100.0, validate_every_steps=5) == 80
    assert Pace(0.5, 0.0).count_steps(100.0, validate_every_steps=5) == 200


def test_too_short_a_time_holds_one_step() -> None:
    assert Pace(60.0, 10.0).count_steps(5.0, validate_every_steps=1) == 1


def test_the_batches_of_the_first_steps_are_read_and_validation_is_timed() -> None:
    read: list[int] = []
    validated: list[bool] = []

    def read_steps(steps: range) -> Iterator[VolumeBatch]:
        for batch in batches(SPEC):
            assert batch.step in steps
            read.append(batch.step)
            yield batch

    def validate(model: nn.Module) -> dict[str, float]:
        validated.append(model.training)
        return {"val/dice": 0.5}

    spec = SPEC.model_copy(update={"within": 1e-6})
    pace = measure_pace(fresh(spec).model, Segmentation(spec), read_steps, validate, spec, CPU)
    assert read == list(range(NUM_SLOW + NUM_TIMED + 1))
    assert validated == [False]
    assert pace.step_seconds > 0
    assert pace.validation_seconds > 0
    assert pace.spent_seconds > pace.step_seconds * NUM_TIMED / 2


@pytest.mark.parametrize("num_cases", [0, 4])
def test_no_time_is_kept_for_validations_that_there_are_not(num_cases: int) -> None:
    """Neither where none are asked for, nor where nothing is held out."""
    spec = SPEC.model_copy(update={"within": 1e-6, "validate_cases": num_cases})
    pace = measure_pace(fresh(spec).model, Segmentation(spec), lambda _: batches(spec), lambda _: {}, spec, CPU)
    assert pace.validation_seconds == 0


def test_phases_have_as_many_steps_each() -> None:
    assert mean_pace([Pace(0.5, 9.0, 2.0), Pace(1.5, 3.0, 4.0)]) == Pace(1.0, 3.0, 6.0)
