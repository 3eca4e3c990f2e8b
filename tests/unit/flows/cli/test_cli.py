"""What the command line refuses, and how it says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.errors import UserError
from flows.cli import run_command


def test_demo_names_what_there_is(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["demo", "diffusion", "video"]) == 2
    assert "demo video: there is no such demo; choose segmentation or diffusion" in capfd.readouterr().err


def test_stage_of_the_other_pipeline(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("data: {layout: phantoms}")
    assert run_command(["encode", str(path)]) == 2
    message = capfd.readouterr().err
    assert "pipeline segmentation has no stage encode; it has shard, train, evaluate, register" in message


def test_missing_file_is_named(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_command(["run", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: cannot be read" in capfd.readouterr().err


def test_help_is_a_result_and_lists_the_verbs_in_data_order() -> None:
    done = subprocess.run([sys.executable, "-m", "flows.cli", "--help"], capture_output=True, text=True, check=True)
    places = [done.stdout.index(f"│ {verb} ") for verb in ("demo", "run", "shard", "register", "submit", "predict")]
    assert places == sorted(places)


def test_the_exit_code_tells_a_mistake_from_what_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> int:
        monkeypatch.setattr("flows.config.load_config", lambda *_: (_ for _ in ()).throw(error))
        return run_command(["run", "a.yaml"])

    assert fail(UserError("a wrong field")) == 2
    assert fail(FloatingPointError("diverged")) == 2
    assert fail(ConnectionError("the store is away")) == 1
