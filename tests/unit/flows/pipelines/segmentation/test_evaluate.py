"""Evaluation: early exits are those of the predictions that were chosen."""

from __future__ import annotations

from typing import Any

import pytest

from flows.pipelines.segmentation import evaluate
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluate import CASES, Evaluation, evaluate_stage
from flows.pipelines.segmentation.evaluation import report
from flows.pipelines.segmentation.evaluation.exits import ExitScore
from flows.pipelines.segmentation.evaluation.held_out import Scored
from flows.pipelines.segmentation.mirroring import Variant, variant_output
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import Output
from flows.training.figures import TrainingFigures
from tests.support.records import finished
from tests.support.reports import class_score


def test_early_exits_are_compared_as_the_model_predicts(
    monkeypatch: pytest.MonkeyPatch, shard_figures: VolumeShardFigures
) -> None:
    """Mirroring gains nothing, so it is off, and takes no time away from what exits save."""
    reported: list[Evaluation] = []

    def predict(*given: Any) -> tuple[Variant, Scored]:
        attempt, bundle = given[3], given[4]
        mirrored = bool(bundle.predict.tta)
        attempt.outputs[variant_output(CASES, tta=mirrored)] = Output(uri="c", size=1, sha256="0")
        seconds = 8.0 if mirrored else 1.0
        scores = [class_score("a", "spleen", 0.9)]
        exits = [ExitScore(threshold=None, dice=0.9, seconds=seconds, share_left=0)]
        return Variant(tta=mirrored, dice=0.9, seconds=seconds), Scored(scores, exits, [], [seconds])

    monkeypatch.setattr(evaluate, "_predict", predict)
    monkeypatch.setattr(report, "write_report", lambda *given: reported.append(given[-1]))
    monkeypatch.setattr("flows.pipelines.segmentation.calibration.read_voxels", lambda parts: None)
    monkeypatch.setattr("flows.pipelines.segmentation.calibration.calibrate", lambda voxels, labels: None)
    config = SegmentationConfig.model_validate({"evaluate": {"tta": "auto"}})
    training = finished("train", TrainingFigures(step=700, run_id=None, num_workers=2), weights="w")
    stage = evaluate_stage(config, finished("shard", shard_figures), training)
    assert not stage.compute(Attempt("/nowhere", "key", "attempt")).tta
    assert [score.seconds for score in reported[0].exits] == [1.0]
