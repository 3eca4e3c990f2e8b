"""Checkpoints of all attempts: the newest usable one is found, and those skipped are named with the reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.pipelines.segmentation.task import SegmentationTask
from flows.stages.attempt import Attempt
from flows.training.checkpoints import CheckpointSearch
from flows.training.history import checkpoint_name
from flows.training.stage import _select_checkpoint
from tests.support.training import SPEC, fresh
from tests.support.volumes import numbered
from unet_models.training.checkpoint import MARKER, MODEL, TRAINING, save_checkpoint


def save(stage: Path, attempt: str, step: int, dice: float = 0.5) -> Path:
    folder = stage / attempt / checkpoint_name(step)
    state = fresh(SPEC)
    state.step = step
    save_checkpoint(folder, state, spec={}, curves=[{"step": step}], metrics={"val/dice": dice})
    return folder


def task(**spec: object) -> SegmentationTask:
    return SegmentationTask(
        spec=SPEC.model_copy(update=spec),
        index_uri="i",
        shards_uri="s",
        num_channels=1,
        labels=numbered("background", "a"),
    )


def test_the_newest_usable_checkpoint_of_any_attempt_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, "b", 3)
    (save(tmp_path, "a", 5) / MARKER).unlink()
    (save(tmp_path, "a", 4) / TRAINING).write_bytes(b"")
    renamed = save(tmp_path, "a", 2)
    renamed.rename(renamed.with_name(checkpoint_name(9)))
    for other in ("step-last", "step-7-copy", "steps"):
        shutil.copytree(tmp_path / "b" / checkpoint_name(3), tmp_path / "b" / other)
    search = CheckpointSearch(str(tmp_path))
    ((uri, marker),) = list(search)
    assert (uri, marker.step) == (str(tmp_path / "b" / checkpoint_name(3)), 3)
    size = (renamed.parent / checkpoint_name(9) / TRAINING).stat().st_size
    assert [str(each) for each in search.unusable] == [
        "a/step-00000009: its content is of step 2",
        "a/step-00000005: checkpoint.json is missing: it was not completed",
        f"a/step-00000004: training.safetensors is truncated: 0 of {size} bytes",
    ]
    assert "checkpoint a/step-00000005: checkpoint.json is missing" in caplog.text


def test_what_was_passed_over_for_the_best_model_is_returned(tmp_path: Path) -> None:
    last = SPEC.num_steps
    save(tmp_path, "a", last, dice=0.2)
    (save(tmp_path, "a", last - 1, dice=0.9) / MODEL).unlink()
    save(tmp_path, "a", last - 2, dice=0.7)
    attempt = Attempt(str(tmp_path), "key", "b")
    marker, unusable = _select_checkpoint(attempt, task(select="best"), last)
    assert marker.step == last - 2
    assert [(each.step, each.reason) for each in unusable] == [(last - 1, "model.safetensors is missing")]
    assert attempt.outputs["weights"].uri == f"a/{checkpoint_name(last - 2)}/{MODEL}"


def test_an_earlier_checkpoint_never_stands_for_the_last_one(tmp_path: Path) -> None:
    """It would be another model, of fewer steps, under the same key."""
    (save(tmp_path, "a", SPEC.num_steps) / MODEL).unlink()
    save(tmp_path, "a", SPEC.num_steps - 1)
    with pytest.raises(
        OSError, match=r"no usable checkpoint of step 5: 1 checkpoint unusable \(a/step-00000005: model"
    ):
        _select_checkpoint(Attempt(str(tmp_path), "key", "b"), task(), SPEC.num_steps)
