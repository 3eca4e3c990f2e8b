"""Sharding of volumes: what was skipped is said in every run, once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import storage
from data_pipelines.errors import DataError
from data_pipelines.volumes.formats.images import write_picture
from data_pipelines.volumes.specs import DataSpec
from flows.config.run_id import RUN_ID_VARIABLE
from flows.pipelines.segmentation.shard import VolumeShardFigures, shard_stage
from flows.stages.record import Record, write_record
from flows.stages.stage import find_record, run_stage


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


def test_cases_that_cannot_be_read_are_left_out_or_stop_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, root, original = tmp_path / "data", str(tmp_path / "storage"), storage.digest
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    for seed, name in enumerate("abcd"):
        write_picture(data / "images" / f"{name}.png", np.random.default_rng(seed).integers(0, 99, (8, 8), np.uint8))
        write_picture(data / "masks" / f"{name}.png", np.eye(8, dtype=np.uint8))
    (data / "classes.json").write_text(json.dumps({"background": 0, "line": 1}))

    def digest(uri: str) -> str:
        if uri.endswith("masks/c.png"):
            raise PermissionError(13, "Permission denied")
        return original(uri)

    monkeypatch.setattr(storage, "digest", digest)
    spec = DataSpec(root=str(data), ndim=2, num_folds=2)
    with pytest.raises(DataError, match=r"no-permission, 1 file\n.*masks/c\.png: may not be read"):
        run_stage(shard_stage(spec, root), root)
    record = run_stage(shard_stage(spec.model_copy(update={"on_error": "quarantine"}), root), root).record
    assert (record.figures.num_quarantined, record.figures.num_train + record.figures.num_val) == (1, 3)
