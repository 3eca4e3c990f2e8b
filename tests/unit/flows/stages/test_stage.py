"""A stage is computed once, a cache hit ever after, and computed again when what it left was touched."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from data_pipelines.digests import VERIFY_VARIABLE
from flows.stages.attempt import Attempt
from flows.stages.context import RunContext
from flows.stages.stage import FORMAT, Stage, find_record, run_stage
from tests.support.records import CountFigures, CountingStages, finished, record_file


@pytest.fixture
def stages() -> CountingStages:
    return CountingStages()


def test_finished_work_is_a_cache_hit(stages: CountingStages, tmp_path: Path) -> None:
    first = run_stage(stages.plan({"a": 1}), str(tmp_path))
    second = run_stage(stages.plan({"a": 1}), str(tmp_path))
    assert (first.cached, second.cached, len(stages.attempts)) == (False, True, 1)
    assert first.record == second.record
    assert second.record.figures == CountFigures(num_runs=1)


@pytest.mark.parametrize("uses_gpu", [True, False])
def test_a_record_says_what_the_stage_reserved(
    stages: CountingStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uses_gpu: bool
) -> None:
    """Attempts before the one that finished cost something, too."""
    monkeypatch.setattr(CountFigures, "earlier_seconds", lambda self: 100.0)
    context = RunContext(num_cpus=4, num_gpus=2)
    record = run_stage(stages.plan(uses_gpu=uses_gpu), str(tmp_path), context).record
    assert record.cpu_seconds == pytest.approx(4 * (100 + record.seconds), abs=0.01)
    assert record.gpu_seconds == pytest.approx(2 * (100 + record.seconds) * uses_gpu, abs=0.01)


def test_another_spec_is_another_stage(stages: CountingStages, tmp_path: Path) -> None:
    run_stage(stages.plan({"a": 1}), str(tmp_path))
    run_stage(stages.plan({"a": 2}), str(tmp_path))
    assert len(stages.attempts) == 2


@pytest.mark.parametrize("damage", ["remove", "change", "cut"])
def test_a_damaged_output_is_made_again(stages: CountingStages, tmp_path: Path, damage: str) -> None:
    record = run_stage(stages.plan(), str(tmp_path)).record
    path = Path(record.output("out"))
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(b"resulT" if damage == "change" else b"resu")
    assert find_record(stages.plan(), str(tmp_path)) is None
    assert not run_stage(stages.plan(), str(tmp_path)).cached
    assert len(stages.attempts) == 2


def test_a_change_of_size_or_time_is_noticed(stages: CountingStages, tmp_path: Path) -> None:
    path = Path(run_stage(stages.plan(), str(tmp_path)).record.output("out"))
    assert find_record(stages.plan(), str(tmp_path)) is not None
    stamp = path.stat()
    path.write_bytes(b"result and more")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert find_record(stages.plan(), str(tmp_path)) is None, "another size at the same time"
    path.write_bytes(b"resulT")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1_000_000))
    assert find_record(stages.plan(), str(tmp_path)) is None, "the same size at another time"
    path.write_bytes(b"result")
    assert find_record(stages.plan(), str(tmp_path)) is not None, "touched, but the same bytes"


def test_a_change_under_the_same_size_and_time_is_noticed_when_asked_to_verify(
    stages: CountingStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(run_stage(stages.plan(), str(tmp_path)).record.output("out"))
    assert find_record(stages.plan(), str(tmp_path)) is not None
    stamp = path.stat()
    with path.open("r+b") as stream:
        stream.write(b"R")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert find_record(stages.plan(), str(tmp_path)) is not None, "size and time are trusted"
    monkeypatch.setenv(VERIFY_VARIABLE, "1")
    assert VERIFY_VARIABLE == "UNETFLOW_VERIFY"
    assert find_record(stages.plan(), str(tmp_path)) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda text: '{"stage": "count", "key"',
        lambda text: json.dumps(json.loads(text) | {"surprise": 1}),
        lambda text: json.dumps(json.loads(text) | {"figures": {"num_runs": "many"}}),
        lambda text: json.dumps(json.loads(text) | {"figures": {"other": 1}}),
    ],
    ids=["cut", "unknown field", "wrong figure", "other figures"],
)
def test_a_broken_record_is_no_record(stages: CountingStages, tmp_path: Path, change: object) -> None:
    path = record_file(run_stage(stages.plan(), str(tmp_path)).record)
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    assert not run_stage(stages.plan(), str(tmp_path)).cached


def test_a_failed_attempt_leaves_no_record(tmp_path: Path) -> None:
    def fail(attempt: Attempt) -> CountFigures:
        attempt.write("half", "half.txt", b"half")
        raise RuntimeError("power cut")

    stage = Stage("count", {}, (), fail, CountFigures)
    with pytest.raises(RuntimeError, match="power cut"):
        run_stage(stage, str(tmp_path))
    assert find_record(stage, str(tmp_path)) is None


def test_an_output_that_was_not_written_is_an_error(tmp_path: Path) -> None:
    def forget(attempt: Attempt) -> CountFigures:
        attempt.add("out", attempt.uri("out.txt"))
        return CountFigures()

    with pytest.raises(FileNotFoundError, match="output 'out' was not written"):
        run_stage(Stage("count", {}, (), forget, CountFigures), str(tmp_path))


def test_an_effect_that_is_gone_makes_the_stage_run_again(stages: CountingStages, tmp_path: Path) -> None:
    run_stage(stages.plan(), str(tmp_path))
    gone = stages.plan(is_valid=lambda record: record.figures.num_runs > 1)
    assert find_record(gone, str(tmp_path), check_external=False) is not None
    assert find_record(gone, str(tmp_path)) is None
    assert not run_stage(gone, str(tmp_path)).cached
    assert run_stage(gone, str(tmp_path)).cached


def test_two_at_once_compute_once(stages: CountingStages, tmp_path: Path) -> None:
    threads = [threading.Thread(target=run_stage, args=(stages.plan(), str(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stages.attempts) == 1


def test_storage_may_move_as_a_whole(stages: CountingStages, tmp_path: Path) -> None:
    run_stage(stages.plan(), str(tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "new")
    found = run_stage(stages.plan(), str(tmp_path / "new"))
    assert found.cached
    assert found.record.output("out").startswith(str(tmp_path / "new"))


def test_the_key_is_stable_across_versions_of_python() -> None:
    """A golden value: changing what a key is made of makes every finished stage run again."""
    stage = Stage("count", {"b": [1, 2.5, None], "a": "ä"}, (), lambda attempt: CountFigures(), CountFigures)
    assert FORMAT == 3
    assert stage.key == "65a80c300b3d50f0bb7e695f8a77f8893adff77b201249bde4d207c34a80805e"


def test_the_key_depends_on_the_inputs_but_not_on_where_they_lie() -> None:
    def key(uri: str, **outputs: str) -> str:
        record = finished("shard", CountFigures(), uri, **outputs)
        return Stage("count", {}, (record,), lambda attempt: CountFigures(), CountFigures).key

    assert key("/a/shard/k", index="i") == key("/b/shard/k", index="i")
    assert key("/a/shard/k", index="i") != key("/a/shard/k", index="j")
    assert key("/a/shard/k", index="i", curves="c") == key("/a/shard/k", index="i", checkpoint="d"), "observations"
