"""Folders of frames: which images are one clip, and what a prediction says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.images.specs import ImageSpec
from flows.config.specs import ComputeSpec
from flows.pipelines.restoration.clips import clip_facts
from flows.registry.models import ModelVersion
from flows.running.prediction import predict as predicting
from flows.running.prediction.inputs import plan_items
from flows.running.prediction.pictures import TAKES_PICTURES

BY_FOLDER = ImageSpec(clip_pattern="clip[0-9]+")


def write_frames(folder: Path, **levels: int) -> None:
    """Write a frame of one level under each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, level in levels.items():
        Image.new("RGB", (4, 4), (level,) * 3).save(folder / f"{name}.png")


def find(source: Path, images: ImageSpec | None = BY_FOLDER) -> dict[str, list[str]]:
    """Names of the frames of each clip."""
    plan = plan_items(str(source), source / "out", takes_prompts=False, takes_pictures=True, images=images)
    return {clip: [Path(item.output).stem for item in frames] for clip, frames in plan.clips.items()}


def test_frames_are_found_by_the_rule_of_training(tmp_path: Path) -> None:
    for folder, names in (("clip2", "cab"), ("clip1", "ab"), ("clip3", "a"), ("stills", "xy")):
        write_frames(tmp_path / folder, **dict.fromkeys(names, 0))
    assert find(tmp_path) == {"clip1": ["clip1_a", "clip1_b"], "clip2": ["clip2_a", "clip2_b", "clip2_c"]}
    assert find(tmp_path / "clip2") == {"clip2": ["a", "b", "c"]}, "the folder of one clip, by its own name"
    assert find(tmp_path / "stills") == {}
    by_parent = ImageSpec(clip_pattern="^([^/]+)/")
    assert sorted(find(tmp_path, by_parent)) == ["clip1", "clip2", "stills"], "ids begin below the folder"
    for without in (None, ImageSpec(), ImageSpec(frames="all")):
        assert find(tmp_path, without) == {}


class Halving:
    """Stands for the loaded model: halves the levels of an image, and fails for one name."""

    def predict(self, columns: dict[str, list[str]], params: object) -> None:
        path = columns["path"][0]
        if "broken" in path:
            raise InputError("cannot be restored")
        Image.fromarray(np.asarray(Image.open(path)) // 2).save(columns["output"][0])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
    """A function that predicts the folder ``in``; returns what is said of clips."""
    metadata = {**TAKES_PICTURES, **clip_facts(BY_FOLDER)}
    version = ModelVersion("m", "1", (), {}, "", {}, inputs=("path", "output"), metadata=metadata)
    monkeypatch.setattr(predicting, "find_version", lambda uri, root: version)
    monkeypatch.setattr(predicting, "_load", lambda uri, server: Halving())
    monkeypatch.setenv("UNETFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    caplog.set_level("INFO")

    def predict() -> list[str]:
        caplog.clear()
        predicting.predict(
            "models:/m/1", str(tmp_path / "in"), str(tmp_path / "out"), ComputeSpec(num_workers=1), str(tmp_path)
        )
        return [message for message in caplog.messages if "change" in message]

    return predict


def test_a_prediction_says_how_much_the_frames_of_a_clip_change(tmp_path: Path, run: Any) -> None:
    write_frames(tmp_path / "in/clip1", a=0, b=100, c=160)
    write_frames(tmp_path / "in/clip2", a=10, broken=20)
    write_frames(tmp_path / "in/stills", a=0, b=255)
    assert run() == ["clip1: 3 frames; mean change from frame to frame 40.00 of 255, before 80.00"]
    assert {path.stem for path in (tmp_path / "out").glob("clip1*")} == {"clip1_a", "clip1_b", "clip1_c"}
    assert run() == [], "nothing of the clip is new"
    write_frames(tmp_path / "in/clip1", c=100)
    assert run() == ["clip1: 3 frames; mean change from frame to frame 25.00 of 255, before 50.00"]


def test_a_clip_that_cannot_be_measured_is_predicted_all_the_same(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_frames(tmp_path / "in/clip1", a=0, b=100)

    def leave_no_image(model: Halving, columns: dict[str, list[str]], params: object) -> None:
        Path(columns["output"][0]).write_bytes(b"no image")

    monkeypatch.setattr(Halving, "predict", leave_no_image)
    (message,) = run()
    assert message.startswith("clip1: the change from frame to frame is not measured: ")
