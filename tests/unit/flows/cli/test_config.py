"""The command ``config`` prints a template that ``run`` accepts, the reference, or the table of metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli import run_command
from flows.metrics import METRICS
from flows.pipelines.catalog import PIPELINES, load_config


@pytest.mark.parametrize("name", PIPELINES)
def test_a_template_is_a_configuration(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["config", name]) == 0
    path = tmp_path / "my.yaml"
    path.write_text(capfd.readouterr().out)
    assert load_config(path) == PIPELINES[name].config()


def test_reference_and_metrics(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["config", "--reference"]) == 0
    text = capfd.readouterr().out
    assert text.startswith("# Configuration\n")
    assert all(f"## Pipeline `{name}`" in text for name in PIPELINES)
    assert run_command(["config", "--metrics"]) == 0
    table = capfd.readouterr().out
    assert all(f"| `{name}` |" in table for name, metric in METRICS.items() if metric.meaning)
    assert table in text


@pytest.mark.parametrize("arguments", [[], ["video"]])
def test_what_there_is_no_template_of(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["config", *arguments]) == 2
    assert (
        "name a pipeline (segmentation or diffusion or restoration), --reference or --metrics" in capfd.readouterr().err
    )
