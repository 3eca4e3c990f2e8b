"""SIGTERM to a run: a checkpoint of its last step, exit code 143, nothing left running, and the same stage resumes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import psutil

from data_pipelines.storage import cache_folder
from tests.support.commands import without_servers
from tests.support.serving import BIN, wait_for

CONFIG = """
pipeline: segmentation
data: {layout: phantoms, num_phantoms: 8}
train:
  patch_size: [16, 16, 16]
  num_steps: 100000
  checkpoint_every_steps: 100000
  validate_every_steps: 100000
  log_every_steps: 1
  model: {channels: [4, 8]}
compute: {num_workers: 1}
"""


def test_sigterm_saves_a_checkpoint_and_the_stage_alone_resumes(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    first = stopped_run(tmp_path, "run")  # with a Prefect server of its own
    (folder,) = (tmp_path / "storage").glob(f"train/*/*/step-{first:08d}")
    assert json.loads((folder / "checkpoint.json").read_text())["step"] == first
    assert list((tmp_path / "tmp").glob("unetflow-*/*-*")) == [], (
        "checkpoints or reports; a worker's empty folder goes later"
    )
    assert stopped_run(tmp_path, "train") > first
    assert f"train: resumed at step {first}; no checkpoint unusable; 0 steps repeated" in log_of(tmp_path)


def stopped_run(folder: Path, command: str) -> int:
    """Train, send SIGTERM after a few steps as `kill` does, and return the step at which it says it stopped."""
    log, temporary = folder / "log", folder / "tmp"
    temporary.mkdir(exist_ok=True)
    variables = {"UNETFLOW_STORAGE": str(folder / "storage"), "UNETFLOW_CACHE": str(cache_folder())}
    with log.open("w") as stream:
        run = subprocess.Popen(
            [str(BIN / "unetflow"), command, str(folder / "config.yaml")],
            env=without_servers() | variables | {"TMPDIR": str(temporary)},
            stdout=stream,
            stderr=stream,
        )
    wait_for(lambda: '"train/loss"' in reports_of(temporary), log.read_text, 300, alive=run)
    family = psutil.Process(run.pid).children(recursive=True)
    assert len(family) > 5, "Ray's processes and the workers"
    run.send_signal(signal.SIGTERM)
    assert run.wait(timeout=120) == 128 + signal.SIGTERM, log.read_text()
    assert psutil.wait_procs(family, timeout=30)[1] == []
    found = re.search(r"train: stopped at step (\d+) by SIGTERM; the same command resumes from there", log.read_text())
    assert found, log.read_text()
    assert "Traceback" not in log.read_text()
    return int(found[1])


def reports_of(temporary: Path) -> str:
    return "".join(path.read_text() for path in temporary.glob("unetflow-*/train-*/reports.jsonl"))


def log_of(folder: Path) -> str:
    return (folder / "log").read_text()
