"""The clock of a training loop: every second is in one part."""

from __future__ import annotations

import itertools

import pytest

from flows.training import clock
from flows.training.clock import LoopClock


@pytest.fixture(autouse=True)
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each look at the time cost a second."""
    ticks = itertools.count()
    monkeypatch.setattr(clock.time, "perf_counter", lambda: float(next(ticks)))


def test_the_parts_and_the_steps_add_up() -> None:
    loop = LoopClock()
    batches = loop.waiting(["a", "b", "c"])
    next(batches)
    next(batches)
    with loop.measure("validation"):
        pass
    with loop.measure("report"):
        pass
    times = loop.read()
    assert (times.data, times.validation, times.report, times.checkpoint) == (1, 1, 1, 0)
    assert times.elapsed == times.stepping + 3
    assert times.num_validations == 1


def test_waiting_for_the_first_batch_is_part_of_the_start() -> None:
    loop = LoopClock()
    assert loop.read().elapsed == 0
    next(loop.waiting(["a", "b"]))
    assert loop.read().data == 0


def test_a_checkpoint_that_is_being_reported_is_counted() -> None:
    """The last one is reported from within the block: nothing is reported after it."""
    loop = LoopClock()
    next(loop.waiting(["a"]))
    with loop.measure("checkpoint"):
        times = loop.read()
    assert (times.checkpoint, times.num_checkpoints) == (1, 1)
    assert times.elapsed >= times.checkpoint


def test_every_batch_is_passed_on() -> None:
    assert list(LoopClock().waiting("abc")) == ["a", "b", "c"]
