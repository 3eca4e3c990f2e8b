"""Each pipeline to a registered model, its workers on a GPU that Ray reserves for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.support.configs import TINY_PHANTOMS, TINY_RESTORATION, TINY_SHAPES
from tests.support.project import Project

CONFIGS = {
    "segmentation": (TINY_PHANTOMS, ["train.precision=auto", "evaluate.precision=bf16"]),
    "compiled": (TINY_PHANTOMS, ["train.precision=auto", "train.compile=true", "train.optimizer.name=muon"]),
    "restoration": (TINY_RESTORATION, ["train.precision=auto"]),
    "colours": (TINY_RESTORATION, ["train.precision=auto", "task={name: colourisation, output: classes}"]),
    "diffusion": (TINY_SHAPES, ["train.precision=auto"]),
}
ON_GPU = "compute={num_workers: 1, use_gpu: true, loader_processes: 2}"


@pytest.mark.parametrize("name", CONFIGS)
def test_pipeline_registers_what_it_trained(gpu: torch.device, tmp_path: Path, name: str) -> None:
    text, settings = CONFIGS[name]
    project = Project(tmp_path, text)
    words = [word for setting in (*settings, ON_GPU) for word in ("--set", setting)]
    result = project.run("register", str(project.config), *words)
    assert result["alias"] == "champion"
    records = [json.loads(path.read_text()) for path in project.storage.rglob("record.json")]
    seconds = {record["stage"]: record["gpu_seconds"] for record in records}
    assert seconds["shard"] == 0, "reading files needs no GPU"
    assert seconds["evaluate"] > 0
    trainings = [record for record in records if "train" in record["stage"]]
    assert all(record["gpu_seconds"] > 0 for record in trainings)
    assert {record["figures"]["precision"] for record in trainings if record["stage"] == "train"} == {"bf16"}
