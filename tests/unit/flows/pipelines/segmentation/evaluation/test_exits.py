"""Early exits compared: each threshold once, and a section that says what was gained."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from data_pipelines.volumes.specs import PreprocessSpec
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluation.exits import ExitScore, compare_exits, exits_section
from flows.pipelines.segmentation.segmenter import Segmenter
from tests.support.volumes import numbered
from unet_models.networks.build import build_network
from unet_models.networks.early_exit import EarlyExit
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import PredictSpec


class Untrained(Segmenter):
    """A segmenter of random weights."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.device = torch.device("cpu")
        self.bundle = Bundle(
            model=UNetSpec(channels=(2, 3, 4), deep_supervision=1),
            labels=numbered("background", "organ"),
            channels=("CT",),
            patch_size=(8, 8),
            preprocess=PreprocessSpec(),
            spacing=None,
            mirror_axes=(0,),
            predict=PredictSpec(),
        )
        self.model = build_network(self.bundle.model, 1, 2, 2).eval()


def test_each_threshold_is_compared_with_no_exits() -> None:
    segmenter, image = Untrained(), np.random.default_rng(0).normal(size=(1, 12, 9)).astype(np.float32)
    labels = segmenter.predict(segmenter.model, image, segmenter.bundle.predict).argmax(axis=0)
    scores = list(compare_exits(segmenter, image, labels, (0.5, 1.0)))
    assert [score.threshold for score in scores] == [None, 1.0, 0.5]
    assert [score.dice for score in scores[:2]] == [1.0, 1.0]
    assert [score.share_left for score in scores] == [0, 0, 1]  # of two classes one has at least 0.5
    early = segmenter.predict(EarlyExit(segmenter.model, 0.5), image, segmenter.bundle.predict).argmax(axis=0)
    both = ((early == 1) & (labels == 1)).sum()
    assert scores[2].dice == pytest.approx(2 * both / ((early == 1).sum() + (labels == 1).sum()))
    assert all(score.seconds > 0 for score in scores)


def test_the_section_has_means_over_the_cases() -> None:
    scores = [
        ExitScore(threshold=threshold, dice=dice, seconds=seconds, share_left=left)
        for threshold, dice, seconds, left in [
            (None, 0.9, 2.0, 0.0),
            (0.9, 0.8, 1.0, 0.5),
            (None, math.nan, 4.0, 0.0),
            (0.9, 0.6, 1.5, 1.0),
        ]
    ]
    table = exits_section(scores).blocks[0]
    assert table.rows == [["none", 0.9, 3.0, "0%"], ["0.9", pytest.approx(0.7), 1.25, "75%"]]


@pytest.mark.parametrize("field", [{"exit_confidence": 0.9}, {"exit_thresholds": [0.9]}])
@pytest.mark.parametrize("model", [{}, {"deep_supervision": 1, "decoder": "nested"}])
def test_exits_need_heads_of_coarser_stages(field: dict[str, object], model: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"need heads to leave at: set train\.model\.deep_supervision"):
        SegmentationConfig.model_validate({"evaluate": field, "train": {"model": model}})
