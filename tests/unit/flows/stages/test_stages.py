"""A stage is done once, found ever after, and redone when what it left was touched."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from data_pipelines import storage
from flows.stages.attempt import Attempt
from flows.stages.stage import Stage, find_record, run_stage


def counting_stage(calls: list[str], spec: dict[str, int]) -> Stage:
    def compute(attempt: Attempt) -> None:
        calls.append(attempt.name)
        storage.write_bytes(attempt.uri("out.txt"), b"result")
        attempt.add("out", attempt.uri("out.txt"))

    return Stage("count", spec, (), compute)


def test_done_work_is_found(tmp_path: Path) -> None:
    calls: list[str] = []
    first = run_stage(counting_stage(calls, {"a": 1}), str(tmp_path))
    second = run_stage(counting_stage(calls, {"a": 1}), str(tmp_path))
    assert (first.cached, second.cached, len(calls)) == (False, True, 1)
    assert first.record == second.record


def test_another_spec_is_another_stage(tmp_path: Path) -> None:
    calls: list[str] = []
    run_stage(counting_stage(calls, {"a": 1}), str(tmp_path))
    run_stage(counting_stage(calls, {"a": 2}), str(tmp_path))
    assert len(calls) == 2


@pytest.mark.parametrize("damage", ["remove", "change", "cut"])
def test_a_damaged_output_is_made_again(tmp_path: Path, damage: str) -> None:
    calls: list[str] = []
    record = run_stage(counting_stage(calls, {}), str(tmp_path)).record
    path = Path(record.output("out"))
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(b"resulT" if damage == "change" else b"resu")
    assert find_record(counting_stage(calls, {}), str(tmp_path)) is None
    assert not run_stage(counting_stage(calls, {}), str(tmp_path)).cached
    assert len(calls) == 2


def test_a_broken_record_is_no_record(tmp_path: Path) -> None:
    calls: list[str] = []
    record = run_stage(counting_stage(calls, {}), str(tmp_path)).record
    (Path(record.uri) / "record.json").write_text('{"stage": "count", "key"')
    assert not run_stage(counting_stage(calls, {}), str(tmp_path)).cached


def test_a_failed_attempt_leaves_no_record(tmp_path: Path) -> None:
    def fail(attempt: Attempt) -> None:
        storage.write_bytes(attempt.uri("half.txt"), b"half")
        raise RuntimeError("power cut")

    stage = Stage("count", {}, (), fail)
    with pytest.raises(RuntimeError, match="power cut"):
        run_stage(stage, str(tmp_path))
    assert find_record(stage, str(tmp_path)) is None


def test_two_at_once_compute_once(tmp_path: Path) -> None:
    calls: list[str] = []
    threads = [threading.Thread(target=run_stage, args=(counting_stage(calls, {}), str(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_storage_may_move_as_a_whole(tmp_path: Path) -> None:
    calls: list[str] = []
    run_stage(counting_stage(calls, {}), str(tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "new")
    found = run_stage(counting_stage(calls, {}), str(tmp_path / "new"))
    assert found.cached
    assert found.record.output("out").startswith(str(tmp_path / "new"))


def test_the_key_is_stable_across_versions_of_python() -> None:
    """A golden value: changing what a key is made of makes every finished stage run again."""
    stage = Stage("count", {"b": [1, 2.5, None], "a": "ä"}, (), lambda attempt: None)
    assert stage.key == "35c906600c822216462e39bbd4a01c7a1640634d3116095e8c2ab8fa20c59d79"
