"""Tiny models, trained and called by the command line in a home of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml

from tests.support.commands import Outcome, run_installed

_TRAINING: dict[str, Any] = {
    "train": {
        "patch_size": [16, 16, 8],
        "num_steps": 4,
        "precision": "fp32",
        "validate_cases": 1,
        "model": {"channels": [4, 8]},
    },
    "evaluate": {"tta": False},
    "compute": {"num_workers": 1},
}


@dataclass(frozen=True, slots=True)
class Predicted:
    """Outcome of ``unetflow predict``."""

    outcome: Outcome
    folder: Path

    @property
    def record(self) -> dict[str, Any]:
        """The summary, also of a call that failed for some inputs."""
        record: dict[str, Any] = json.loads(self.outcome.out)
        return record

    @property
    def names(self) -> list[str]:
        """Names of the label maps."""
        return sorted(path.name for path in self.folder.iterdir() if path.name != "predictions.json")

    @property
    def failures(self) -> dict[str, str]:
        """Name of each label map that was refused, to the error."""
        return {Path(output).name: error for output, error in self.record["failures"].items()}

    def labels(self, name: str) -> np.ndarray:
        """Read one label map."""
        return np.asarray(nib.load(self.folder / name).dataobj)  # type: ignore[attr-defined]


class Model:
    """A model trained on a raw folder for a few steps."""

    def __init__(self, home: Path, root: Path, **data: Any) -> None:
        self.home = home / f"model-{root.name}"
        self.home.mkdir()
        config = {"registry": {"name": "tiny", "export": []}, "data": {"root": str(root), **data}, **_TRAINING}
        (self.home / "tiny.yaml").write_text(yaml.safe_dump(config))
        outcome = self._call("register", "tiny.yaml", "--json")
        self.uri = f"models:/tiny/{outcome.record['model_version']}"

    def predict(self, source: Path, output: Path) -> Predicted:
        """Predict everything that the source names."""
        return Predicted(self._call("predict", self.uri, str(source), str(output), "--json"), output)

    def _call(self, *words: str) -> Outcome:
        places = {"UNETFLOW_STORAGE": str(self.home / "storage"), "UNETFLOW_CACHE": str(self.home.parent / "cache")}
        return run_installed(*words, environment=places, folder=self.home)
