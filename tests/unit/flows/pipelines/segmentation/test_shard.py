"""Sharding of volumes: what was skipped is said in every run, once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.volumes.formats.images import write_picture
from data_pipelines.volumes.specs import DataSpec
from flows.config.run_id import RUN_ID_VARIABLE
from flows.pipelines.segmentation.shard import VolumeShardFigures, shard_stage
from flows.stages.record import Record, write_record
from flows.stages.stage import find_record


def test_files_that_are_skipped_are_said_of_a_cache_hit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    shard_figures: VolumeShardFigures,
) -> None:
    """A file that came later changes no sample: the stage does not run again."""
    data, root = tmp_path / "data", str(tmp_path / "storage")
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
        for name in "abcd":
            write_picture(data / folder / f"{name}.png", np.eye(8, dtype=np.uint8))
    (data / "classes.json").write_text(json.dumps({"background": 0, "line": 1}))
    spec = DataSpec(root=str(data), ndim=2)
    first = shard_stage(spec, root)
    record = Record[VolumeShardFigures](
        stage="shard", key=first.key, uri=first.uri(root), outputs={}, figures=shard_figures, seconds=1
    )
    write_record(record)
    (data / "images" / "notes.docx").write_bytes(b"later")
    for run, count in (("one", 1), ("one", 1), ("two", 2)):
        monkeypatch.setenv(RUN_ID_VARIABLE, run)
        assert shard_stage(spec, root).key == first.key
        assert find_record(shard_stage(spec, root), root) is not None
        assert caplog.text.count("notes.docx") == count
