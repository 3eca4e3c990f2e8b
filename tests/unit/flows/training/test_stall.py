"""A training that stops making steps is told of once, and so is that it goes on."""

from __future__ import annotations

import pytest

from flows.config.specs import NotifySpec
from flows.training import stall as module
from flows.training.clock import LoopReport, LoopTimes
from flows.training.forecast import Forecast
from flows.training.stall import StallAlert
from unet_models.specs.loop import LoopSpec


class Training:
    """A training whose time is set by hand, of ``pace`` seconds a step and a report every 10 steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pace: float, factor: float = 10) -> None:
        self.now, self.sent = 0.0, list[str]()
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module, "send", lambda spec, text: self.sent.append(text))
        self.forecast = Forecast(LoopSpec(num_steps=300, log_every_steps=10))
        self.alert = StallAlert("liver: train", self.forecast, NotifySpec(stall_factor=factor))
        for step in (10, 20, 30):
            self.report(step, pace)

    def report(self, step: int, pace: float) -> None:
        self.now += 10 * pace
        self.forecast.add(LoopReport(self.now, step, LoopTimes(elapsed=step * pace), is_checkpoint=False))
        self.alert.report()

    def wait(self, seconds: float) -> int:
        self.now += seconds
        self.alert.check()
        return len(self.sent)


def test_a_stall_is_told_once_and_its_end_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flows")
    training = Training(monkeypatch, pace=2)
    assert training.wait(199) == 0
    assert training.wait(2) == 1
    assert training.wait(500) == 1
    assert "liver: train: no step after step 30 for 201 s, where reports come every 20.0 s" in training.sent[0]
    assert training.sent[0] in caplog.text
    training.report(40, pace=2)
    assert "liver: train: steps resumed after" in caplog.text
    assert training.wait(500) == 2, "a second stall is another one"


def test_a_minute_is_never_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(monkeypatch, pace=0.01)
    assert training.wait(59) == 0
    assert training.wait(2) == 1


def test_nothing_is_told_without_a_factor_before_the_first_step_and_after_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Training(monkeypatch, pace=1, factor=0).wait(1e6) == 0
    ended = Training(monkeypatch, pace=1)
    ended.report(300, pace=1)
    assert ended.wait(1e6) == 0
    starting = Training(monkeypatch, pace=1)
    starting.forecast.start(30, 300)
    assert starting.wait(1e6) == 0
