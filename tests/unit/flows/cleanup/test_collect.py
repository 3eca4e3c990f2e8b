"""What is collected, and how it is removed."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from data_pipelines.errors import ConfigError
from flows.cleanup import collect
from flows.cleanup.collect import find_garbage, registered_keys, remove_all
from flows.cleanup.garbage import Garbage
from flows.registry.models import ModelVersion
from flows.stages.record import RECORD


def test_the_keys_of_registered_versions_are_those_of_their_lineage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert registered_keys(str(tmp_path)) == set()
    assert not (tmp_path / "mlflow.db").exists(), "looking makes no database"
    (tmp_path / "mlflow.db").touch()
    tags = {"unetflow.train_key": "t", "unetflow.shard_key": "s", "unetflow.code": "c", "unetflow.train_digest": "d"}
    versions = [ModelVersion("m", "1", (), {}, "", tags), ModelVersion("m", "2", (), {}, "", {})]
    monkeypatch.setattr(collect, "list_versions", lambda root: versions)
    assert registered_keys(str(tmp_path)) == {"t", "s"}


def test_on_an_object_store_nothing_young_is_removed() -> None:
    with pytest.raises(ConfigError, match=r"--keep-days 0\.5: on an object store"):
        find_garbage("s3://bucket/runs", keep_days=0.5)


def test_what_only_its_age_tells_is_kept_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(collect.time, "time", lambda: 1_000_000.0)
    for name in ("find_temporary", "find_sessions"):
        monkeypatch.setattr(collect, name, lambda before: asked.append(before) or [])
    for keep_days in (0, 2):
        assert find_garbage(str(tmp_path), keep_days) == []
    assert asked == [1_000_000.0 - 86400] * 2 + [1_000_000.0 - 2 * 86400] * 2


def test_what_a_record_names_since_it_was_found_stays(tmp_path: Path) -> None:
    stage, attempt = tmp_path / "train" / "key", "20260101-000000-abcdef"
    (stage / attempt / "step-7").mkdir(parents=True)
    garbage = [Garbage("checkpoint", str(stage / attempt / "step-7"), 1), Garbage("attempt", str(stage / attempt), 1)]
    (stage / RECORD).write_text(json.dumps({"outputs": {"weights": f"{attempt}/step-7/model"}, "figures": {}}))
    removed: list[Garbage] = []
    assert remove_all(garbage, removed.append) == 0
    assert removed == []
    assert (stage / attempt / "step-7").is_dir()
    (stage / RECORD).unlink()
    remove_all(garbage, removed.append)
    assert removed == garbage


def test_what_is_found_is_removed_but_for_what_runs_again(tmp_path: Path) -> None:
    idle, running = tmp_path / "idle", tmp_path / "running"
    for stage in (idle, running):
        (stage / "attempt" / "step-1").mkdir(parents=True)
    (running / ".lock").touch()
    garbage = [
        Garbage("checkpoint", str(idle / "attempt" / "step-1"), 1),
        Garbage("attempt", str(idle / "attempt"), 1),
        Garbage("attempt", str(running / "attempt"), 1),
        Garbage("temporary folder", str(tmp_path / "gone"), 1),
    ]
    removed: list[Garbage] = []
    with (running / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_all(garbage, removed.append) == 1
    assert removed == garbage[:2]
    assert not (idle / "attempt").exists()
    assert (running / "attempt").is_dir()
