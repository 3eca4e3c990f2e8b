"""Frames of clips: the rule that a model is registered with, groups, and how much frames change."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from data_pipelines.errors import ConfigError
from data_pipelines.images.specs import ImageSpec
from flows.pipelines.restoration.clips import clip_facts, group_frames, log_change, mean_change, read_clip_facts


def flat(*levels: int, side: int = 2) -> list[np.ndarray]:
    """Frames of one level each."""
    return [np.full((side, side, 3), level, np.uint8) for level in levels]


@pytest.mark.parametrize("fields", [{}, {"frames": "all"}, {"clip_pattern": "clip[0-9]+", "background": (1, 2, 3)}])
def test_a_registered_model_has_the_rule_of_its_training(fields: dict[str, object]) -> None:
    spec = ImageSpec.model_validate(fields)
    read = read_clip_facts({"takes": "pictures", **json.loads(json.dumps(clip_facts(spec)))})
    assert (read.clips, read.background) == (spec.clips, spec.background)
    assert read_clip_facts({"takes": "pictures"}).clips == "", "a model that was registered without the rule"


def test_frames_are_in_the_order_of_their_ids() -> None:
    ids = {7: "b/2", 1: "a/1", 2: "b/10", 3: "a/0"}
    assert group_frames(ids, "^[ab]") == {"a": [3, 1], "b": [2, 7]}
    with pytest.raises(ConfigError, match=r"'\^a' is not found in 2 of 4 image ids: b/2, b/10"):
        group_frames(ids, "^a")


def test_mean_change_of_known_frames() -> None:
    assert mean_change(flat(0, 255, 250)) == (255 + 5) / 2, "levels that rise and fall by more than 127"
    assert mean_change(iter([*flat(10, 13), *flat(99, 100, side=4)])) == 2, "3 and 1; sizes that differ do not count"
    assert math.isnan(mean_change(flat(10)))


def test_change_is_logged_before_and_after(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    log_change("film", 2, flat(10, 14), flat(20, 50))
    assert caplog.messages == ["film: 2 frames; mean change from frame to frame 4.00 of 255, before 30.00"]
    log_change("still", 1, flat(10), flat(20))
    assert len(caplog.messages) == 1
