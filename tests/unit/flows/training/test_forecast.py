"""Time left: within a tenth once a tenth of the training is done, validations and checkpoints included."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flows.training.clock import LoopReport, LoopTimes
from flows.training.forecast import Forecast
from unet_models.specs.loop import LoopSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import TrainSpec

SPEC = LoopSpec(num_steps=1000, validate_every_steps=75, checkpoint_every_steps=100, log_every_steps=10)


def reports(first_step: int = 0) -> Iterator[LoopReport]:
    """Slow first steps, then one each second; validations of 30 s, checkpoints of 5 s."""
    times = dict.fromkeys(("elapsed", "validation", "checkpoint"), 0.0)
    counts = dict.fromkeys(("num_validations", "num_checkpoints"), 0)
    for step in range(first_step + 1, SPEC.num_steps + 1):
        times["elapsed"] += 12 if step <= first_step + 5 else 1
        is_last = step == SPEC.num_steps
        for part, every, seconds in (("validation", 75, 30.0), ("checkpoint", 100, 5.0)):
            if step % every == 0 or is_last:
                times[part] += seconds
                times["elapsed"] += seconds
                counts[f"num_{part}s"] += 1
        if step % 10 == 0 or is_last:
            yield LoopReport(times["elapsed"], step, LoopTimes(**times, **counts), is_checkpoint=False)


@pytest.mark.parametrize("first_step", [0, 300])
def test_the_error_is_below_a_tenth_after_a_tenth(first_step: int) -> None:
    forecast = Forecast(SPEC)
    forecast.start(first_step, SPEC.num_steps)
    all_reports = list(reports(first_step))
    end = all_reports[-1].at
    for report in all_reports[:-1]:
        forecast.add(report)
        if report.step - first_step >= 100:
            assert forecast.seconds_left == pytest.approx(end - report.at, rel=0.1)
    forecast.add(all_reports[-1])
    assert forecast.seconds_left == 0


def test_later_steps_that_are_longer_are_foreseen() -> None:
    """Patches grow from a quarter of their pixels to all of them; a step takes as long as it has pixels."""
    spec = TrainSpec(patch_size=(32, 32), patch_growth=2, num_steps=100, model=UNetSpec(channels=(4, 8)))
    forecast = Forecast(spec)
    forecast.start(0, spec.num_steps)
    elapsed = 0.0
    for step in range(1, 81):
        elapsed += 1 if step <= 50 else 4
        forecast.add(LoopReport(elapsed, step, LoopTimes(elapsed=elapsed), is_checkpoint=False))
        if step in (20, 50, 80):
            assert forecast.seconds_left == pytest.approx(50 * 1 + 50 * 4 - elapsed)


def test_nothing_is_known_before_the_first_report_of_new_workers() -> None:
    forecast = Forecast(SPEC)
    assert forecast.seconds_left is None
    first, *_ = reports()
    forecast.add(first)
    assert forecast.seconds_left is not None
    forecast.start(5, SPEC.num_steps)
    assert (forecast.seconds_left, forecast.seconds_between_reports) == (None, None)


def test_a_change_of_pace_is_followed() -> None:
    forecast = Forecast(SPEC)
    forecast.start(0, SPEC.num_steps)
    elapsed = 0.0
    for step in range(10, 801, 10):
        elapsed += 10 if step <= 400 else 40
        forecast.add(LoopReport(elapsed, step, LoopTimes(elapsed=elapsed), is_checkpoint=False))
    assert forecast.seconds_per_step == pytest.approx(4)


@pytest.mark.parametrize(("step", "num_validations", "usual"), [(50, 0, 10), (70, 0, None), (75, 0, None), (80, 1, 40)])
def test_the_usual_time_between_reports_is_unknown_during_the_first_validation(
    step: int, num_validations: int, usual: float | None
) -> None:
    forecast = Forecast(SPEC)
    for at in (step - 10, step):
        elapsed = at + 30 * num_validations
        times = LoopTimes(elapsed=elapsed, validation=30 * num_validations, num_validations=num_validations)
        forecast.add(LoopReport(elapsed, at, times, is_checkpoint=False))
    assert forecast.seconds_between_reports == usual
