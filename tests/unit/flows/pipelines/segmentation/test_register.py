"""Registration of a segmentation model: the code that it runs, its card, and what it is compared by."""

from __future__ import annotations

import pytest

from data_pipelines.volumes.classes import Labels
from flows.pipelines.segmentation import register
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluate import SegmentationScores
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.registry.candidate import Candidate
from flows.training.figures import TrainingFigures
from tests.support.records import finished

SHARDS = VolumeShardFigures(
    num_train=20,
    num_val=5,
    num_new=25,
    shards="shards/a",
    shard_sizes={},
    dataset="Task09_Spleen",
    num_quarantined=0,
    spacing=None,
    labels=Labels(names=("background", "spleen", "lesion"), values=((0,), (1,), (3,))),
    channels=("CT",),
)
METRICS = {"dice": 0.8, "dice/spleen": 0.9, "dice/lesion": 0.7, "hd95_mm": 2.5, "hd95_mm/spleen": 2.5}


@pytest.fixture
def candidate(monkeypatch: pytest.MonkeyPatch) -> Candidate:
    """The candidate that the stage would register."""
    found: list[Candidate] = []
    monkeypatch.setattr(register, "evaluation_digest", lambda config, shards: "digest of held-out cases")
    monkeypatch.setattr(register, "register_stage", lambda config, candidate, inputs: found.append(candidate))
    config = SegmentationConfig.model_validate({"registry": {"name": "spleen"}})
    training = finished("train", TrainingFigures(step=700, run_id=None, num_workers=2), weights="w")
    evaluation = finished("evaluate", SegmentationScores(metrics=METRICS, num_cases=5, variants=(), tta=True))
    register.register_model(config, finished("shard", SHARDS), training, evaluation)
    return found[0]


def test_the_code_that_mlflow_runs_exists(candidate: Candidate) -> None:
    assert candidate.code.is_file()
    assert "set_model(" in candidate.code.read_text()


def test_it_is_compared_by_dice_on_the_held_out_cases(candidate: Candidate) -> None:
    assert candidate.default_metric == "dice"
    assert candidate.evaluation_data == "digest of held-out cases"
    assert [record.stage for record in candidate.lineage] == ["shard", "train", "evaluate"]
    assert (candidate.run_key, candidate.step) == ("key of train", 700)


def test_the_card_says_what_it_is_how_good_and_how_to_use_it(candidate: Candidate) -> None:
    card = candidate.build_card()
    assert "A 3-D U-Net that segments spleen, lesion in CT images." in card
    assert "Trained for 700 steps on 20 cases of Task09_Spleen, scored on 5 held-out cases" in card
    assert "| class | Dice | HD95 (mm) |" in card
    assert "| spleen | 0.9000 | 2.5000 |" in card
    assert "| lesion | 0.7000 | nan |" in card
    assert "| mean | 0.8000 | 2.5000 |" in card
    assert 'mlflow.pyfunc.load_model("models:/spleen@champion")' in card
    assert "Labels: 0 background, 1 spleen, 3 lesion." in card
