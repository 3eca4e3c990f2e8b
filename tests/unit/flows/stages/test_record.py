"""Records: figures are typed, metrics are those of the table, identity is the content."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.pipelines.diffusion.evaluate import GenerationScores
from flows.pipelines.segmentation.evaluate import SegmentationScores
from flows.stages.record import EvaluationFigures, Record, read_record
from tests.support.records import CountFigures, finished


def test_metrics_that_are_not_in_the_table_are_refused() -> None:
    known = {"dice": 0.9, "dice/liver": 0.8, "kid[clip,n=100]": 0.1, "frechet_distance[clip,n=100]/prior": 2.0}
    assert EvaluationFigures(metrics=known).metrics == known
    # A KeyError, not a ValidationError: a metric without a line in the table is a bug, not a user's mistake.
    with pytest.raises(KeyError, match="sparkle is not in the table of metrics"):
        EvaluationFigures(metrics=known | {"sparkle": 42.0})
    with pytest.raises(KeyError, match="sparkle"):
        SegmentationScores(metrics={"sparkle": 42.0}, num_cases=1, variants=(), tta=True)
    with pytest.raises(KeyError, match="sparkle"):
        GenerationScores(metrics={"sparkle[clip,n=2]": 42.0}, num_images=2)


def test_figures_are_typed_and_frozen() -> None:
    with pytest.raises(ValidationError):
        SegmentationScores(metrics={}, num_cases="many", variants=(), tta=True)
    with pytest.raises(ValidationError, match="frozen"):
        CountFigures().num_runs = 3  # type: ignore[misc]


def test_a_record_survives_json(tmp_path: Path) -> None:
    scores = SegmentationScores(metrics={"dice": 0.5}, num_cases=2, variants=(), tta=True)
    record = finished("evaluate", scores, str(tmp_path), report="a/report.html")
    (tmp_path / "record.json").write_text(record.model_dump_json())
    again = read_record(str(tmp_path), SegmentationScores)
    assert again == record
    assert isinstance(again, Record)
    assert isinstance(again.figures, SegmentationScores)
    assert again.output("report") == f"{tmp_path}/a/report.html"


def test_a_record_without_a_file_or_of_other_figures_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_record(str(tmp_path), CountFigures) is None
    assert caplog.text == ""
    (tmp_path / "record.json").write_text(finished("count", CountFigures()).model_dump_json())
    assert read_record(str(tmp_path), SegmentationScores) is None
    assert "invalid record, the stage runs again" in caplog.text


def test_a_record_with_a_metric_that_the_table_has_lost_is_no_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = finished("evaluate", EvaluationFigures(metrics={"dice": 0.5})).model_dump_json()
    (tmp_path / "record.json").write_text(text.replace('"dice"', '"sparkle"'))
    assert read_record(str(tmp_path), EvaluationFigures) is None
    assert "invalid record, the stage runs again" in caplog.text


def test_outputs_may_lie_elsewhere() -> None:
    record = finished("encode", CountFigures(), "s3://b/encode/k", near="a/x", far="/models/clip", other="gs://c/y")
    assert record.output("near") == "s3://b/encode/k/a/x"
    assert record.output("far") == "/models/clip"
    assert record.output("other") == "gs://c/y"
    assert record.root == "s3://b"
