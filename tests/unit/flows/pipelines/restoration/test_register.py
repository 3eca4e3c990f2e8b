"""Registration of a restoration model: the facts that prediction needs before it loads the model."""

from __future__ import annotations

import json

import pytest

from flows.pipelines.restoration import register
from flows.pipelines.restoration.clips import read_clip_facts
from flows.pipelines.restoration.config import RestorationConfig
from flows.pipelines.restoration.evaluate import RestorationScores
from flows.registry.candidate import Candidate
from flows.running.prediction.pictures import TAKES_PICTURES
from flows.training.figures import TrainingFigures
from tests.support.records import CountFigures, finished


def test_prediction_knows_pictures_and_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Candidate] = []
    monkeypatch.setattr(register, "evaluation_digest", lambda config, shards: "digest of held-out images")
    monkeypatch.setattr(register, "register_stage", lambda config, candidate, inputs: found.append(candidate))
    config = RestorationConfig.model_validate({"data": {"clip_pattern": "clip[0-9]+", "background": [0, 0, 9]}})
    training = finished("train", TrainingFigures(step=7, run_id=None, num_workers=1), weights="w")
    evaluation = finished("evaluate", RestorationScores(metrics={"psnr": 30.0}, num_images=2))
    register.register_model(config, finished("shard", CountFigures()), training, evaluation)
    metadata = json.loads(json.dumps(dict(found[0].metadata)))
    assert metadata.items() >= TAKES_PICTURES.items()
    images = read_clip_facts(metadata)
    assert (images.clips, images.background) == ("clip[0-9]+", (0, 0, 9))
