"""JSON file beside a model's weights: what prediction needs to know."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from data_pipelines.specs import Spec

BUNDLE_ARTIFACT = "bundle"
"""Artifact of every registered model: the folder of its files."""
BUNDLE_FILE = "unetflow.json"
WEIGHTS = "model.safetensors"

S = TypeVar("S", bound=Spec)


def write_bundle(folder: Path, bundle: Spec) -> None:
    """Write the JSON file into the model's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BUNDLE_FILE).write_text(bundle.model_dump_json(indent=1))


def read_bundle(folder: Path, kind: type[S]) -> S:
    """Read what ``write_bundle`` wrote."""
    return kind.model_validate_json((folder / BUNDLE_FILE).read_text())
