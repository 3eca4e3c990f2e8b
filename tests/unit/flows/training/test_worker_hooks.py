"""Checkpoints of a worker on their way to Ray Train."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow.fs import LocalFileSystem

from data_pipelines import temporary
from flows.training import worker_hooks
from flows.training.worker_hooks import RayHooks
from tests.support.training import SPEC, fresh
from unet_models.training.checkpoint import check_checkpoint


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Checkpoints that were reported; temporary folders lie below ``tmp_path``."""
    reported: list[Any] = []
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "_held", None)
    monkeypatch.setattr(worker_hooks.ray.train, "report", lambda *_, checkpoint, **__: reported.append(checkpoint))
    return reported


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(
    reports: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_disk(folder: Path, *_: object, **__: object) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(worker_hooks, "save_checkpoint", fill_disk)
    hooks = RayHooks(SPEC, lambda model: {}, rank=0)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            hooks.checkpoint(fresh(SPEC), {})
    assert reports == []
    assert list(tmp_path.glob("unetflow-*/checkpoint-*")) == []


@pytest.mark.parametrize("is_initialized", [True, False])
def test_memory_is_reported_where_a_gpu_is_used(monkeypatch: pytest.MonkeyPatch, is_initialized: bool) -> None:
    rows: list[dict[str, Any]] = []
    monkeypatch.setattr(worker_hooks.ray.train, "report", rows.append)
    monkeypatch.setattr(worker_hooks.torch.cuda, "is_initialized", lambda: is_initialized)
    monkeypatch.setattr(worker_hooks.torch.cuda, "max_memory_allocated", lambda: 3 << 29)
    RayHooks(SPEC, lambda model: {}, rank=0).log(7, {"train/loss": 0.5})
    (row,) = rows
    assert row.get("gpu_memory") == (1.5 if is_initialized else None)


@pytest.mark.parametrize(("metrics", "score"), [({}, 1e9), ({"val/loss": 0.5}, 0.5)])
def test_a_checkpoint_without_a_score_is_the_worst(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, metrics: dict[str, float], score: float
) -> None:
    """Ray Train takes a missing score for minus infinity, and keeps scores as JSON, which has neither that nor NaN."""
    rows: list[dict[str, Any]] = []
    monkeypatch.setattr(worker_hooks.ray.train, "report", lambda row, **_: rows.append(row))
    monkeypatch.setattr(worker_hooks, "save_checkpoint", lambda folder, state, **_: None)
    RayHooks(SPEC, lambda model: {}, 0, "val/loss").checkpoint(fresh(SPEC), metrics)
    assert rows[0]["val/loss"] == score


def test_only_the_first_rank_writes(reports: list[Any], tmp_path: Path) -> None:
    for rank in (0, 1):
        RayHooks(SPEC, lambda model: {}, rank).checkpoint(fresh(SPEC), {})
    first, second = reports
    assert second is None
    assert Path(first.path).parent.parent == tmp_path
    assert check_checkpoint(Path(first.path)).step == 0


@pytest.mark.parametrize(("number", "is_removed"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_checkpoint_that_fills_the_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_removed: bool
) -> None:
    """After other errors Ray may try again, with the files of the temporary folder."""
    local, copied = tmp_path / "local", tmp_path / "step-00000001"
    for folder in (local, copied):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")

    def fill_disk(*_: object) -> None:
        raise OSError(number, "cannot write")

    target = SimpleNamespace(
        persist_current_checkpoint=fill_disk,
        storage_filesystem=LocalFileSystem(),
        build_checkpoint_path_from_name=lambda name: str(tmp_path / name),
    )
    monkeypatch.setattr(worker_hooks.ray.train, "get_context", lambda: SimpleNamespace(get_storage=lambda: target))
    with pytest.raises(OSError, match="cannot write"):
        worker_hooks._upload(worker_hooks.ray.train.Checkpoint(str(local)), copied.name)
    assert [local.exists(), copied.exists()] == [not is_removed] * 2
