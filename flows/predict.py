"""A registered model over many inputs: on every actor of a cluster, gone on with where it stopped.

A segmentation model takes a file, a glob or a folder of volumes and writes a label map for each; a text-to-image model
takes a file of prompts and writes an image for each. ``predictions.json`` in the output folder says which version made
them.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines import storage
from data_pipelines.errors import UserError
from data_pipelines.progress import track
from flows.config import ComputeSpec
from flows.models import ModelVersion, find_version

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

MANIFEST = "predictions.json"
CHANNEL = re.compile(r"_\d{4}$")
PROMPT_COLUMNS = ("prompt", "seed", "num_inference_steps", "guidance_scale", "negative_prompt")


@dataclass(frozen=True, slots=True)
class Item:
    """One prediction that is due."""

    row: dict[str, Any]
    """The model's input."""
    output: str
    """Path of the file it becomes."""


def predict(
    model_uri: str, source: str, output: str, compute: ComputeSpec, root: str, options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Predict what is not there yet; returns counts and failures.

    ``options`` are further columns of a text-to-image model's input. Raises UserError where there is no such model or
    input, or the output folder holds another version's predictions.
    """
    version = find_version(model_uri, root)
    folder = Path(output).expanduser().absolute()
    items = plan_items(source, folder, takes_prompts=_takes_prompts(version), options=options or {})
    _claim(folder, version)
    due = [item for item in items if not Path(item.output).exists()]
    logger.info("predict: %s, %d inputs, %d of them done already", version.uri, len(items), len(items) - len(due))
    failures: dict[str, str] = {}
    for result in _predict_all(version, due, compute) if due else ():
        if result["error"]:
            failures[result["output"]] = result["error"]
            logger.warning("predict: %s", result["error"])
    return {
        "model_uri": version.uri,
        "output": str(folder),
        "num_predicted": len(due) - len(failures),
        "num_found_done": len(items) - len(due),
        "failures": failures,
    }


def plan_items(source: str, folder: Path, *, takes_prompts: bool, options: dict[str, Any]) -> list[Item]:
    """What is to be predicted, sorted by output. Raises UserError where there is nothing, or two share an output."""
    items = _prompts(Path(source).expanduser(), folder, options) if takes_prompts else _volumes(source, folder)
    if not items:
        raise UserError(f"{source}: nothing to predict; name a file, a folder or a glob of .nii.gz, .png, .jpg or .tif")
    outputs = [item.output for item in items]
    twice = sorted({output for output in outputs if outputs.count(output) > 1})
    if twice:
        raise UserError(f"{source}: several inputs would become {twice[0]}; predict them into different folders")
    return items


def _volumes(source: str, folder: Path) -> list[Item]:
    """Volumes by name; files ``NAME_0000``, ``NAME_0001`` are the channels of one."""
    from data_pipelines.volumes import IMAGE_SUFFIXES, strip_suffix

    cases: dict[str, list[Path]] = {}
    for path in sorted(_paths(source)):
        stem = strip_suffix(path.name)
        cases.setdefault(CHANNEL.sub("", stem), []).append(path)
    items = []
    for name, paths in cases.items():
        if len(paths) > 1 and not all(CHANNEL.search(strip_suffix(path.name)) for path in paths):
            raise UserError(f"{paths[0]} and {paths[1]} have the same name; predict them into different folders")
        suffix = ".png" if paths[0].name.lower().endswith(IMAGE_SUFFIXES) else ".nii.gz"
        row = {"path": "|".join(str(path) for path in paths)}
        items.append(Item(row, str(folder / f"{name}{suffix}")))
    return items


def _paths(source: str) -> Iterator[Path]:
    """Volumes that ``source`` names: itself, those in the folder, or those of the glob."""
    import glob

    from data_pipelines.volumes import is_volume_name

    path = Path(source).expanduser().absolute()
    if path.is_dir() and _is_series(path):
        yield path
    elif path.is_dir():
        yield from (
            p for p in path.iterdir() if (p.is_file() and is_volume_name(p.name)) or (p.is_dir() and _is_series(p))
        )
    elif path.is_file():
        yield path
    else:
        yield from (Path(found).absolute() for found in glob.glob(str(path), recursive=True))


def _is_series(folder: Path) -> bool:
    """Whether the folder holds slices of a DICOM series."""
    return any(name.lower().endswith(".dcm") for name in os.listdir(folder))


def _prompts(path: Path, folder: Path, options: dict[str, Any]) -> list[Item]:
    """A prompt a line (``.txt``), or rows with a ``prompt`` column and options (``.jsonl``, ``.csv``)."""
    import csv

    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no readable file of prompts ({error}); give a .txt, .jsonl or .csv") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in lines]
    elif path.suffix == ".csv":
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(lines)]
    else:
        rows = [{"prompt": line.strip()} for line in lines]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or "prompt" not in row or set(row) - set(PROMPT_COLUMNS):
            raise UserError(f"{path}: row {number}: needs `prompt` and may have {PROMPT_COLUMNS[1:]}, found {row}")
    width = len(str(len(rows)))
    return [
        Item({"seed": number, **options, **row}, str(folder / f"{number:0{width}d}.png"))
        for number, row in enumerate(rows)
    ]


def _takes_prompts(version: ModelVersion) -> bool:
    return "prompt" in version.inputs


def _claim(folder: Path, version: ModelVersion) -> None:
    """Write down whose predictions the folder holds; refuse another version's."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / MANIFEST
    if manifest.exists():
        other = json.loads(manifest.read_text())["model_uri"]
        if other != version.uri:
            raise UserError(f"{folder} holds predictions of {other}, this is {version.uri}: name another output folder")
        return
    storage.write_bytes(str(manifest), json.dumps({"model_uri": version.uri, **version.tags}, indent=1).encode())


def _predict_all(version: ModelVersion, due: Sequence[Item], compute: ComputeSpec) -> Iterator[dict[str, Any]]:
    from flows.cluster import iter_on_actors

    items = [{"model": version.uri, "row": json.dumps(item.row), "output": item.output} for item in due]
    results = iter_on_actors(Predictor, items, compute)
    yield from track(((1, result) for result in results), "predict", "inputs", len(due))


class Predictor:
    """An actor that loads the model with its first item."""

    model: Any = None

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Predict one item into its file, which appears complete or not at all; a failure is told, not raised."""
        output = Path(item["output"])
        try:
            if self.model is None:
                self.model = _load(item["model"])
            row = json.loads(item["row"])
            partial = output.with_name(f".partial-{output.name}")
            if "prompt" in row:
                _write_image(partial, self.model.predict({name: [value] for name, value in row.items()})[0])
            else:
                self.model.predict({"path": [row["path"]], "output": [str(partial)]})
            partial.replace(output)
        except (ValueError, OSError) as error:  # this input's fault; the others go on
            return {"output": str(output), "error": f"{output.name}: {error}"}
        return {"output": str(output), "error": ""}


def _load(uri: str) -> Any:
    import mlflow

    return mlflow.pyfunc.load_model(uri)


def _write_image(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path, format="PNG")
