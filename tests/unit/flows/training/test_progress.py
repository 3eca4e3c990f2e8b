"""Reports travel from the controller's process to the terminal and to MLflow through a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.pipelines.segmentation.task import SegmentationTask
from flows.training.clock import LoopReport, LoopTimes
from flows.training.curves import CurveRow
from flows.training.history import Start, UnusableCheckpoint
from flows.training.progress import FollowReports, WriteReports
from tests.support.volumes import numbered
from unet_models.specs.segmentation import TrainSpec

TASK = SegmentationTask(
    spec=TrainSpec(num_steps=20), index_uri="i", shards_uri="s", num_channels=1, labels=numbered("background", "a")
)


def test_every_report_is_passed_on_once_and_checkpoints_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "reports.jsonl"
    writer, rows, starts, times = WriteReports(str(path)), list[CurveRow](), list[Start](), list[LoopReport]()
    with FollowReports(path, "train", TASK, rows.extend, starts.append, times.append):
        writer.after_report(None, [{"step": 10, "train/loss": 0.5, "learning_rate": 0.1}, {"step": 10}], None)
        spent = LoopTimes(elapsed=5.0, data=1.0)
        writer.after_report(None, [{"step": 10, "val/dice": 0.8, "times": spent.model_dump()}], checkpoint=object())
        writer.after_exception(None, {1: RuntimeError("lost"), 0: RuntimeError("lost too")})
        writer.after_report(None, [{"step": 20, "train/loss": 0.25, "samples_per_second": 3.0}], None)
    assert rows == [
        {"step": 10, "train/loss": 0.5, "learning_rate": 0.1},
        {"step": 20, "train/loss": 0.25, "samples_per_second": 3.0},
    ]
    assert starts == []
    assert [(report.step, report.is_checkpoint) for report in times] == [(10, False), (10, True), (20, False)]
    assert times[1].times == spent
    assert times[0].at <= times[1].at <= times[2].at
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "training worker 0 failed: RuntimeError: lost too; restarting from the last checkpoint",
        "training worker 1 failed: RuntimeError: lost; restarting from the last checkpoint",
    ]


def test_starts_are_told_in_their_place_among_the_rows(tmp_path: Path) -> None:
    """What was reported before a restart is known when the restart is told: it is what will be repeated."""
    path = tmp_path / "reports.jsonl"
    writer, told = WriteReports(str(path)), list[object]()
    unusable = UnusableCheckpoint(name="a/step-00000010", step=10, reason="checkpoint.json is missing")
    starts = [Start(step=0), Start(step=5, unusable=(unusable,))]
    with FollowReports(path, "train", TASK, told.extend, told.append, lambda times: 90.0):
        for start in starts:
            report = {"start": start.model_dump_json()}
            writer.after_report(None, [report, report], None)
            writer.after_report(None, [{"step": 10, "train/loss": 0.5}, {"step": 10}], None)
    assert told == [starts[0], {"step": 10, "train/loss": 0.5}, starts[1], {"step": 10, "train/loss": 0.5}]


def test_progress_names_the_values_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "reports.jsonl"
    writer = WriteReports(str(path))
    shown: list[tuple[int, str, float | None]] = []
    follower = FollowReports(path, "train", TASK, lambda rows: None, lambda start: None, lambda times: 90.0)
    monkeypatch.setattr(follower.progress, "update", lambda *shows: shown.append(shows))
    with follower:
        writer.after_report(None, [{"step": 10, "train/loss": 0.5, "learning_rate": 0.1}], None)
        writer.after_report(None, [{"step": 10, "val/dice": 0.8}], None)
        writer.after_report(None, [{"step": 20, "samples_per_second": 31.25}], None)
    assert shown[-1] == (20, "train loss 0.5000, val dice 0.8000, samples per second 31.25", 90.0)
