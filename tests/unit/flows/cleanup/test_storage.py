"""Attempts and checkpoints: what a record or a registered version needs stays, and what is being written."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from flows.cleanup.garbage import remove
from flows.cleanup.storage import find_in_storage
from flows.stages import status

DAY = 86400.0
KEYS = {name: letter * 64 for name, letter in (("finished", "a"), ("unfinished", "b"), ("damaged", "c"))}
ATTEMPTS = [f"2026010{number}-000000-00000{number}" for number in (1, 2, 3)]


def write(path: Path, days_old: float = 30, text: str = "0123456789") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    then = time.time() - days_old * DAY
    for each in (path, path.parent):
        os.utime(each, (then, then))
    return path


def age(root: Path, days_old: float = 30) -> None:
    """Make everything below a folder old, folders too."""
    then = time.time() - days_old * DAY
    for path in root.rglob("*"):
        os.utime(path, (then, then))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A storage with a finished training of three attempts, an unfinished one, and one with a damaged record."""
    finished = tmp_path / "train" / KEYS["finished"]
    for attempt, steps in zip(ATTEMPTS, ((1,), (2, 3), (4, 5)), strict=True):
        for step in steps:
            write(finished / attempt / f"step-0000000{step}" / "model.safetensors")
        write(finished / attempt / "notes.txt")
    outputs = {"weights": {"uri": f"{ATTEMPTS[1]}/step-00000003/model.safetensors"}}
    figures = {
        "step": 3,
        "resumes": [{"unusable": [{"name": f"{ATTEMPTS[2]}/step-00000005"}]}],
        "unusable_checkpoints": [{"name": f"{ATTEMPTS[0]}/step-00000001"}],
        "other": {"folder": f"train/{KEYS['finished']}/{ATTEMPTS[2]}/notes.txt"},
    }
    write(finished / "record.json", text=json.dumps({"outputs": outputs, "figures": figures}))
    write(tmp_path / "train" / KEYS["unfinished"] / ATTEMPTS[0] / "step-00000001" / "model.safetensors")
    write(tmp_path / "train" / KEYS["damaged"] / ATTEMPTS[0] / "step-00000001" / "model.safetensors")
    write(tmp_path / "train" / KEYS["damaged"] / "record.json", text="{")
    write(tmp_path / "shards" / ("d" * 64) / "shard-000000.tar")
    write(tmp_path / "mlartifacts" / "1" / ATTEMPTS[0] / "model")
    write(tmp_path / "mlflow.db")
    age(tmp_path)
    return tmp_path


def found(root: Path, registered: set[str] | None = None, keep_days: float = 7) -> dict[str, str]:
    garbage = find_in_storage(str(root), registered or set(), time.time() - keep_days * DAY)
    return {str(Path(each.uri).relative_to(root / "train")): each.kind for each in garbage}


def test_what_no_record_names_is_found_and_nothing_else(root: Path) -> None:
    assert found(root) == {
        f"{KEYS['finished']}/{ATTEMPTS[0]}": "attempt",  # named among unusable checkpoints alone
        f"{KEYS['finished']}/{ATTEMPTS[1]}/step-00000002": "checkpoint",
        f"{KEYS['finished']}/{ATTEMPTS[2]}/step-00000004": "checkpoint",
        f"{KEYS['finished']}/{ATTEMPTS[2]}/step-00000005": "checkpoint",
        f"{KEYS['unfinished']}/{ATTEMPTS[0]}": "attempt",
    }


def test_sizes_are_those_of_all_files(root: Path) -> None:
    sizes = {each.uri: each.size for each in find_in_storage(str(root), set(), time.time())}
    assert sizes[str(root / "train" / KEYS["finished"] / ATTEMPTS[0])] == 20


def test_a_damaged_record_is_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    found(root)
    assert f"{KEYS['damaged']}/record.json is damaged: nothing beside it is removed" in caplog.text


def test_stages_of_registered_versions_stay_even_without_their_record(root: Path) -> None:
    assert KEYS["unfinished"] not in "".join(found(root, registered={KEYS["unfinished"]}))


def test_a_record_of_another_stage_protects_what_it_names(root: Path) -> None:
    """A training names the weights of another one that it started from."""
    uri = f"{root}/train/{KEYS['unfinished']}/{ATTEMPTS[0]}/step-00000001/model.safetensors"
    record = {"outputs": {}, "figures": {"init": {"origin": {"uri": uri}}}}
    write(root / "evaluate" / ("e" * 64) / "record.json", text=json.dumps(record))
    assert f"{KEYS['unfinished']}/{ATTEMPTS[0]}" not in found(root)


def test_what_was_written_lately_stays(root: Path) -> None:
    write(root / "train" / KEYS["unfinished"] / ATTEMPTS[0] / "step-00000002" / "model.safetensors", days_old=6)
    write(root / "train" / KEYS["finished"] / ATTEMPTS[2] / "step-00000005" / "model.safetensors", days_old=6)
    assert set(found(root)) == {
        f"{KEYS['finished']}/{ATTEMPTS[0]}",
        f"{KEYS['finished']}/{ATTEMPTS[1]}/step-00000002",
        f"{KEYS['finished']}/{ATTEMPTS[2]}/step-00000004",
    }
    assert len(found(root, keep_days=5)) == 5


def test_a_stage_that_is_being_computed_is_left_alone(root: Path) -> None:
    with (root / "train" / KEYS["unfinished"] / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert f"{KEYS['unfinished']}/{ATTEMPTS[0]}" not in found(root, keep_days=0)
    assert f"{KEYS['unfinished']}/{ATTEMPTS[0]}" in found(root, keep_days=0)


def test_an_empty_storage_holds_nothing(tmp_path: Path) -> None:
    assert found(tmp_path / "none") == {}


def test_the_status_of_a_run_that_was_never_tried_again_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is recent, or its stage is computed now."""
    then = time.time() - 30 * DAY
    for stage in ("old", "held", "recent"):
        folder = tmp_path / stage / ("e" * 64)
        write(folder / ".lock", days_old=0)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(status.time, "time", lambda stage=stage: then if stage != "recent" else then + 29 * DAY)
            with status.keep_status(str(folder), "", ""):
                raise KeyboardInterrupt
    with (tmp_path / "held" / ("e" * 64) / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (found,) = find_in_storage(str(tmp_path), set(), before=time.time() - 7 * DAY)
    assert (found.kind, Path(found.uri).name) == ("status", f"old-{'e' * 12}.json")
    remove(found)
    assert not Path(found.uri).exists()
