"""Progress where there is no terminal: a line at first, at the end, and every few seconds between."""

from __future__ import annotations

import logging

import pytest

from data_pipelines import progress
from data_pipelines.progress import Progress, rounded_duration, track


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "data_pipelines.progress")
    return caplog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only the test advances."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_at_first_then_every_few_seconds_and_at_the_end(
    lines: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    with Progress("shard", 5, "cases") as shown:
        for completed in range(1, 6):
            clock[0] += 6
            shown.update(completed, "loss 0.5" if completed == 3 else "")
    assert lines.messages == [
        "shard: 1/5 cases",
        "shard: 3/5 cases, loss 0.5, 12 s left",
        "shard: 5/5 cases",
    ]


def test_the_time_left_follows_from_the_pace_since_a_start(lines: pytest.LogCaptureFixture, clock: list[float]) -> None:
    with Progress("train", 1000, "steps") as shown:
        for completed, seconds_left in [(500, None), (600, None), (550, None), (560, None), (570, 300.0)]:
            shown.update(completed, seconds_left=seconds_left)
            clock[0] += 20
    assert lines.messages == [
        "train: 500/1000 steps",
        "train: 600/1000 steps, 80 s left",
        "train: 550/1000 steps",
        "train: 560/1000 steps, 15 min left",
        "train: 570/1000 steps, 5 min left",
    ]


def test_a_bar_shows_the_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with Progress("train", 100, "steps") as shown:
        shown.update(50, "loss 0.5", seconds_left=600)
    assert "10 min left" in capsys.readouterr().err


def test_a_count_that_goes_back_is_told_at_once(lines: pytest.LogCaptureFixture, clock: list[float]) -> None:
    with Progress("train", 100, "steps") as shown:
        for completed in (50, 51, 40, 41):
            shown.update(completed)
    assert lines.messages == ["train: 50/100 steps", "train: 40/100 steps"]


def test_tracked_items_come_through_and_add_up(lines: pytest.LogCaptureFixture, clock: list[float]) -> None:
    assert list(track([(2, "a"), (3, "b")], "encode", "images", 5)) == ["a", "b"]
    assert lines.messages == ["encode: 2/5 images", "encode: 5/5 images"]


def test_durations_have_the_unit_that_suits_them() -> None:
    texts = [rounded_duration(seconds) for seconds in (-3, 119.4, 120, 7199, 7200, 172800)]
    assert texts == ["0 s", "119 s", "2 min", "120 min", "2 h", "2.0 days"]
