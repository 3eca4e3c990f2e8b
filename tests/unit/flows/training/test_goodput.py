"""Where the wall time of a training went: the parts add up, whatever died in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.metrics import check_metric_names
from flows.training.clock import LoopReport, LoopTimes
from flows.training.goodput import Ledger, TimeSplit, add_splits, count_repeated
from flows.training.history import HistoryKeeper, Start


def report(at: float, step: int, elapsed: float, **parts: float) -> LoopReport:
    return LoopReport(at, step, LoopTimes(elapsed=elapsed, **parts), is_checkpoint=False)


def test_an_undisturbed_training() -> None:
    ledger = Ledger(began=100.0, is_first=True)
    ledger.start(0)
    ledger.add(report(at=125, step=10, elapsed=5, data=1))
    ledger.add(report(at=140, step=30, elapsed=20, data=2, validation=4, checkpoint=1, report=0.5))
    ledger.end(at=143, succeeded=True)
    ledger.add_server(at=145)
    split = ledger.split()
    assert split == TimeSplit(
        wall=45, productive=12.5, data=2, validation=4, checkpoint=1, start=20 + 3, server=0.5 + 2
    )
    assert sum(split.parts.values()) == pytest.approx(split.wall)
    assert split.goodput_percent == pytest.approx(100 * 12.5 / 45)


def test_measuring_the_pace_is_no_part_of_the_start() -> None:
    ledger = Ledger(began=0.0, is_first=True)
    ledger.start(0, pace=12)
    ledger.add(report(at=50, step=20, elapsed=20))
    ledger.start(20)  # the number of steps is known by now
    ledger.add(report(at=80, step=30, elapsed=10))
    ledger.end(at=81, succeeded=True)
    assert ledger.split() == TimeSplit(wall=81, productive=30, start=30 - 12 + 1, pace=12, retry=20)


def test_workers_that_die_after_measuring_have_measured() -> None:
    ledger = Ledger(began=0.0, is_first=True)
    ledger.start(0, pace=12)
    ledger.end(at=15, succeeded=False)
    assert ledger.split() == TimeSplit(wall=15, start=3, pace=12)


def test_a_killed_worker_costs_its_last_steps_and_the_restart() -> None:
    ledger = Ledger(began=0.0, is_first=True)
    ledger.start(0)
    ledger.add(report(at=30, step=20, elapsed=20))
    ledger.start(10)
    ledger.add(report(at=60, step=20, elapsed=8))
    ledger.end(at=60, succeeded=True)
    split = ledger.split()
    assert split == TimeSplit(wall=60, productive=28, start=10, retry=22)
    assert ledger.num_trained == 30
    counted = count_repeated(split, num_repeated=10, num_trained=30)
    assert counted.productive == pytest.approx(28 * 2 / 3)
    assert counted.repeated == pytest.approx(28 / 3)
    assert sum(counted.parts.values()) == pytest.approx(60)


def test_reports_that_come_late_or_early_are_counted_once() -> None:
    """The controller takes them in its own rhythm."""
    ledger = Ledger(began=0.0, is_first=True)
    ledger.start(0)
    for at, elapsed in ((10.3, 5.0), (15.1, 10.0), (20.4, 15.0)):
        ledger.add(report(at, step=int(elapsed), elapsed=elapsed))
    ledger.end(at=20.5, succeeded=True)
    split = ledger.split()
    assert split.productive == 15
    assert sum(split.parts.values()) == pytest.approx(split.wall) == pytest.approx(20.5)


def test_the_start_of_a_later_attempt_is_a_restart() -> None:
    ledger = Ledger(began=0.0, is_first=False)
    ledger.start(5)
    ledger.add(report(at=30, step=6, elapsed=10))
    ledger.end(at=31, succeeded=False)
    assert ledger.split() == TimeSplit(wall=31, productive=10, retry=21)


def test_workers_that_die_before_a_step_cost_a_restart() -> None:
    ledger = Ledger(began=0.0, is_first=True)
    ledger.start(0)
    ledger.start(0)
    ledger.add(report(at=30, step=6, elapsed=10))
    assert ledger.split() == TimeSplit(wall=30, productive=10, retry=20)


def test_attempts_add_up_in_the_history(tmp_path: Path) -> None:
    """An attempt that died counts: up to the last step that it kept."""
    first = HistoryKeeper.of(str(tmp_path), str(tmp_path / "a"))
    assert first.is_first
    first.start(Start(step=0))
    first.spend(TimeSplit(wall=50, productive=40, start=10), num_trained=20)
    first.reach(20)
    second = HistoryKeeper.of(str(tmp_path), str(tmp_path / "b"))
    assert not second.is_first
    second.start(Start(step=15))
    second.spend(TimeSplit(wall=30, productive=10, retry=20), num_trained=5)
    second.finish()
    assert second.times == TimeSplit(wall=80, productive=40, repeated=10, start=10, retry=20)
    assert HistoryKeeper.of(str(tmp_path), str(tmp_path / "c")).times == second.times


def test_nothing_trained_is_nothing_repeated() -> None:
    split = TimeSplit(wall=3, start=3)
    assert count_repeated(split, num_repeated=7, num_trained=0) == split
    assert add_splits([]).goodput_percent == 0


def test_metrics_are_in_the_table_and_a_line_tells_them() -> None:
    split = TimeSplit(wall=45, productive=30, start=15)
    check_metric_names(split.metrics())
    assert split.metrics()["time_seconds/start"] == 15
    assert split.describe() == "goodput 67 % of 45.0 s: training steps 30.0 s, start and end 15.0 s"
