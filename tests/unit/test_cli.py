"""What the command line refuses, and how it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

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
