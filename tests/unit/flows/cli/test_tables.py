"""Results as text for a terminal."""

from __future__ import annotations

from flows.cli.tables import (
    findings_text,
    metric_lines,
    models_text,
    no_jobs_text,
    plan_text,
    status_text,
    summary_text,
)
from flows.doctor.finding import bad, ok
from flows.registry.models import ModelVersion
from flows.running.execution import PlannedStage, RunSummary, StageSummary
from flows.running.submit import JobRow
from flows.stages.status import StageStatus
from tests.support.records import CountFigures, finished


def test_metrics_of_classes_are_a_table_with_classes_down() -> None:
    metrics = {
        "dice": 0.8,
        "dice/liver": 0.9,
        "dice/kidney": 0.7,
        "hd95_mm": 2.5,
        "hd95_mm/liver": 2.5,
        "volume_error_ml": 1.0,
        "volume_error_ml/liver": 1.0,
    }
    lines = metric_lines(metrics)
    assert lines[0].split() == ["class", "Dice", "HD95", "(mm)"], "volume errors are not for the short table"
    assert [line.split() for line in lines[1:]] == [
        ["liver", "0.9000", "2.5000"],
        ["kidney", "0.7000", "absent"],
        ["mean", "0.8000", "2.5000"],
    ]


def test_metrics_with_a_protocol_are_listed_in_full() -> None:
    metrics = {"fid[n=10]": 1.5, "fid[n=10]/prior": 9.0, "caption_accuracy": 0.5, "caption_accuracy/held_out": 0.25}
    assert [line.split() for line in metric_lines(metrics)] == [
        ["fid[n=10]", "1.5000"],
        ["fid[n=10]/prior", "9.0000"],
        ["caption_accuracy", "0.5000"],
        ["caption_accuracy/held_out", "0.2500"],
    ]


def test_a_summary_shows_cache_hits_scores_and_how_to_load_the_model() -> None:
    stages = tuple(
        StageSummary(name=name, key="k", uri="/s", cached=name == "shard", seconds=12.4) for name in ("shard", "train")
    )
    summary = RunSummary(
        pipeline="segmentation",
        model_uri="models:/m@champion",
        model_version=3,
        reason="thresholds met",
        tracking_uri="sqlite:///mlflow.db",
        metrics={"dice": 0.8, "dice/liver": 0.8},
        report="/s/report.html",
        seconds=13,
        stages=stages,
    )
    text = summary_text(summary)
    assert "shard cache hit, train 12 s" in text
    assert "models:/m@champion (version 3: thresholds met)" in text
    assert 'mlflow.pyfunc.load_model("models:/m@champion")' in text
    assert "report   /s/report.html" in text
    assert "liver" in text


def test_a_plan_says_what_is_done_and_what_waits() -> None:
    record = finished("shard", CountFigures())
    stages = [PlannedStage("shard", "a" * 64, record), PlannedStage("train", None, None)]
    assert [line.split() for line in plan_text(stages).splitlines()] == [
        ["shard", "done", "a" * 12],
        ["train", "to", "run", *["(key", "known", "once", "the", "stage", "before", "is", "done)"]],
    ]


def test_stages_of_a_job_are_indented_below_it() -> None:
    rows = [
        JobRow("m-1", "pipeline m", "m-1", "running", 12.0, ""),
        JobRow("train-1", "train", "m-1", "succeeded", 5.0, ""),
    ]
    lines = status_text(rows, now=0).splitlines()
    assert lines[0].startswith("pipeline m ")
    assert lines[1].startswith("  train ")
    assert status_text([], now=0) == "nothing runs"


def test_a_training_shows_its_progress() -> None:
    status = StageStatus(
        step=1200, num_steps=6000, updated=1000, seconds_left=630, checkpoint_at=970, goodput_percent=81.4
    )
    row = JobRow("run", "train of m", "run", "running", 60.0, "", place="local", progress=status)
    _, details = status_text([row], now=1030).splitlines()
    assert details.strip() == "step 1200/6000, 10 min left, checkpoint 60 s ago, goodput 81 %"
    stopped = JobRow("run", "train of m", "run", "stopped", 60.0, "stopped at step 1200", progress=status)
    assert "left" not in status_text([stopped], now=1030)
    assert status_text([stopped], now=1030).endswith("; stopped at step 1200")


def test_a_cluster_without_jobs_may_have_forgotten_them() -> None:
    text = no_jobs_text("2026-01-31 12:00:00")
    assert text.startswith(
        "no pipeline was submitted to this cluster since its head was started at 2026-01-31 12:00:00."
    )
    assert "`unetflow submit CONFIG.yaml` again resumes" in text
    assert no_jobs_text("").startswith("no pipeline was submitted to this cluster.")


def test_versions_show_metrics_aliases_and_on_request_their_lineage() -> None:
    version = ModelVersion("m", "3", ("champion",), {"dice": 0.8}, "champion: thresholds met", {"unetflow.code": "abc"})
    assert "dice 0.8000" in models_text([version], lineage=False)
    assert "unetflow.code" not in models_text([version], lineage=False)
    text = models_text([version], lineage=True)
    assert all(part in text for part in ("@champion", "unetflow.code", "abc", "thresholds met"))
    assert models_text([], lineage=False) == "the registry is empty"


def test_findings_have_their_remedy_below() -> None:
    lines = findings_text([ok("gpu", "none on this machine"), bad("storage", "is full", "du -sh /s")]).splitlines()
    assert lines[0] == "ok      gpu             none on this machine"
    assert lines[1].startswith("BAD     storage")
    assert lines[2].strip() == "-> du -sh /s"
