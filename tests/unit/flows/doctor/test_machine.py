"""Checks of this machine, each broken once: versions, storage, CPUs, GPUs, files with secrets."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from flows.doctor import machine
from flows.pipelines.segmentation.config import SegmentationConfig
from tests.support.findings import states, the_bad
from unet_models import precision

PREFECT, RAY = importlib.metadata.version("prefect"), importlib.metadata.version("ray")


def test_versions_beside_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "constraints.txt"
    monkeypatch.setattr(machine, "lock_file", lambda: lock if lock.exists() else None)
    assert the_bad(machine.check_versions()).state == "warning"
    lock.write_text(f"# made by make lock\nRay=={RAY}\nnot-installed==1\n")
    assert states(machine.check_versions()) == {"versions": "ok"}
    lock.write_text(f"prefect==0.0.1\nray=={RAY}\n")
    found = the_bad(machine.check_versions())
    assert f"1 of 2 differ from the lock: prefect {PREFECT} (lock: 0.0.1)" in found.text
    assert found.remedy == f"pip install --constraint {lock} --editable {tmp_path}"


def test_modules_compiled_by_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    absent = importlib.util.spec_from_file_location("ray", "/nowhere/ray.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: absent)
    assert the_bad(machine.check_bytecode()).remedy.startswith("unset PYTHONDONTWRITEBYTECODE")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert states(machine.check_bytecode()) == {"bytecode": "ok"}


def test_storage_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETFLOW_STORAGE", "/proc/unetflow")
    found = the_bad(machine.check_storage(None))
    assert found.text.startswith("/proc/unetflow cannot be written")
    assert "UNETFLOW_STORAGE" in found.remedy


def test_storage_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETFLOW_STORAGE", str(tmp_path))
    assert states(machine.check_storage(None)) == {"storage": "ok"}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10 << 30, 9 << 30, 1 << 30))
    found = the_bad(machine.check_storage(None))
    assert "1 GiB left" in found.text
    assert list(tmp_path.iterdir()) == []


def test_precision_that_the_cpu_emulates(monkeypatch: pytest.MonkeyPatch) -> None:
    has_bf16 = [False]
    monkeypatch.setattr(precision, "computes_bf16", lambda device: has_bf16[-1])
    asked = SegmentationConfig.model_validate({"train": {"precision": "bf16"}})
    assert the_bad(machine.check_cpu(asked)).remedy == "--set train.precision=auto"
    (found,) = machine.check_cpu(SegmentationConfig())
    assert (found.state, "in float32" in found.text) == ("ok", True)
    on_gpu = asked.model_copy(update={"compute": asked.compute.model_copy(update={"use_gpu": True})})
    assert states(machine.check_cpu(on_gpu)) == states(machine.check_cpu(None)) == {"cpu": "ok"}
    has_bf16.append(True)
    (found,) = machine.check_cpu(asked)
    assert "with instructions for bf16" in found.text


def test_gpus_asked_for_and_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    config = SegmentationConfig.model_validate({"compute": {"use_gpu": True}})
    assert the_bad(machine.check_gpu(config)).remedy == "--set compute.use_gpu=false"
    assert states(machine.check_gpu(None)) == {"gpu": "ok"}
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'Driver/library version mismatch'; exit 18\n")
    driver.chmod(0o755)
    assert "nvidia-smi fails: Driver/library version mismatch" in the_bad(machine.check_gpu(config)).text


def test_secrets_that_others_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o640)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    found = the_bad(machine.check_secrets())
    assert found.remedy == f"chmod 600 {token}"
    token.chmod(0o600)
    assert states(machine.check_secrets()) == {"secrets": "ok"}


def test_the_lock_of_this_checkout_is_found() -> None:
    """Whatever versions are installed: the finding counts the lock's lines."""
    (found,) = machine.check_versions()
    assert "no lock" not in found.text
