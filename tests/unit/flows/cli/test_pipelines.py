"""Commands that run pipelines: what they refuse, and what they print of a plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli import run_command
from flows.cli.base import print_json


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(f"data: {{layout: phantoms, num_phantoms: 4, num_folds: 2}}\nstorage: {tmp_path / 'storage'}\n")
    return path


def test_demo_names_what_there_is(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["demo", "diffusion", "video"]) == 2
    assert "demo video: unknown demo; choose segmentation or diffusion or restoration" in capfd.readouterr().err


def test_stage_of_the_other_pipeline(capfd: pytest.CaptureFixture[str], config: Path) -> None:
    assert run_command(["encode", str(config)]) == 2
    message = capfd.readouterr().err
    assert "pipeline segmentation has no stage encode; it has shard, train, evaluate, register" in message


@pytest.mark.parametrize("verb", ["run", "shard", "submit", "serve"])
def test_missing_file_is_named(capfd: pytest.CaptureFixture[str], tmp_path: Path, verb: str) -> None:
    assert run_command([verb, str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: cannot be read" in capfd.readouterr().err


def test_a_dry_run_prints_each_stage_and_runs_nothing(
    capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path
) -> None:
    assert run_command(["run", str(config), "--dry-run", "--json"]) == 0
    planned = json.loads(capfd.readouterr().out)
    assert planned["pipeline"] == "segmentation"
    assert [(stage["name"], stage["done"]) for stage in planned["stages"]] == [
        ("shard", False),
        ("train", False),
        ("evaluate", False),
        ("register", False),
    ]
    assert [stage["key"] is None for stage in planned["stages"]] == [False, True, True, True]
    assert run_command(["train", str(config), "--dry-run"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [["shard", "to", "run"], ["train", "to", "run"]]
    assert lines[0].endswith(planned["stages"][0]["key"][:12])
    assert not (tmp_path / "storage" / "shard").exists()


def test_a_result_is_one_line_of_json_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    print_json({"a": 1})
    assert capfd.readouterr().out == '{"a":1}\n'
