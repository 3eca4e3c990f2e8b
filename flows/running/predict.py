"""A registered model over many inputs: on every actor of a cluster, gone on with where it stopped.

A segmentation model takes a file, a glob or a folder of volumes and writes a label map for each; a text-to-image model
takes a file of prompts and writes an image for each. ``predictions.json`` in the output folder says which version made
them, and of what: an input that is another now is predicted again.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.errors import UserError
from data_pipelines.progress import track
from data_pipelines.specs import Spec
from flows.registry.models import ModelVersion, find_version
from flows.config.specs import ComputeSpec

logger = logging.getLogger(__name__)

MANIFEST = "predictions.json"
CHANNEL = re.compile(r"_\d{4}$")


class Prompt(Spec):
    """A row of a file of prompts; what it leaves out is as the model was evaluated."""

    prompt: str
    negative_prompt: str | None = None
    seed: int
    """The row's number where none is given."""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One prediction that is due."""

    row: dict[str, Any]
    """The model's input."""
    output: str
    """Path of the file it becomes."""


def predict(model_uri: str, source: str, output: str, compute: ComputeSpec, root: str) -> dict[str, Any]:
    """Predict what is not there yet; returns counts and failures.

    Raises UserError where there is no such model or input, the model cannot be loaded, or the output folder holds
    another version's predictions.
    """
    if remote := [place for place in (source, output) if "://" in place]:
        raise UserError(f"{remote[0]}: input and output are paths here; copy them, or mount the store")
    version = find_version(model_uri, root)
    folder = Path(output).expanduser().absolute()
    items = plan_items(source, folder, takes_prompts="prompt" in version.inputs)
    if unknown := sorted({name for item in items for name in item.row} - set(version.inputs)):
        known = ", ".join(version.inputs)
        raise UserError(f"{source}: {version.uri} has no input {', '.join(unknown)}; it takes {known}")
    claim_folder(folder, version, items)
    due = [item for item in items if not Path(item.output).exists()]
    logger.info("predict: %s, %d inputs, %d of them done already", version.uri, len(items), len(items) - len(due))
    failures: dict[str, str] = {}
    for result in _predict_all(version, due, compute) if due else ():
        if result["is_fatal"]:
            raise UserError(f"{version.uri}: the model cannot be loaded: {result['error']}")
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


def plan_items(source: str, folder: Path, *, takes_prompts: bool) -> list[Item]:
    """What is to be predicted, sorted by output. Raises UserError where there is nothing, or two share an output."""
    items = _prompts(Path(source).expanduser(), folder) if takes_prompts else _volumes(source, folder)
    if not items:
        raise UserError(f"{source}: nothing to predict; name a file, a folder or a glob of .nii.gz, .png, .jpg or .tif")
    output, count = Counter(item.output for item in items).most_common(1)[0]
    if count > 1:
        raise UserError(f"{source}: several inputs would become {output}; predict them into different folders")
    return items


def _volumes(source: str, folder: Path) -> list[Item]:
    """Volumes by name; files ``NAME_0000``, ``NAME_0001`` are the channels of one."""
    from data_pipelines.volumes.formats.base import IMAGE_SUFFIXES
    from data_pipelines.volumes.files import strip_suffix

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

    from data_pipelines.volumes.files import is_volume_name

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


def _prompts(path: Path, folder: Path) -> list[Item]:
    """A prompt a line (``.txt``), or rows with a ``prompt`` column and options (``.jsonl``, ``.csv``)."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no readable file of prompts ({error}); give a .txt, .jsonl or .csv") from None
    items = []
    for number, row in enumerate(_rows(text, path.suffix)):
        try:
            prompt = Prompt.model_validate({"seed": number} | row if isinstance(row, dict) else row)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the row"
            raise UserError(
                f"{path}: row {number + 1}: {where}: {first['msg']}; each needs `prompt`, and may have "
                f"{', '.join(name for name in Prompt.model_fields if name != 'prompt')}"
            ) from None
        items.append(prompt.model_dump(exclude_none=True))
    width = len(str(len(items)))
    return [Item(row, str(folder / f"{number:0{width}d}.png")) for number, row in enumerate(items)]


def _rows(text: str, suffix: str) -> list[Any]:
    """What the file says, not yet checked; a line that is no JSON as it stands."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if suffix == ".csv":
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(text.splitlines())]
    if suffix == ".jsonl":
        return [_parsed(line) for line in lines]
    return [{"prompt": line} for line in lines]


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line


def claim_folder(folder: Path, version: ModelVersion, items: Sequence[Item]) -> None:
    """Write down whose predictions of what the folder holds; those of other inputs are removed.

    Refuses a folder of another version's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / MANIFEST
    claim: dict[str, Any] = json.loads(manifest.read_text()) if manifest.exists() else {"model_uri": version.uri}
    if (other := claim["model_uri"]) != version.uri:
        raise UserError(f"{folder} holds predictions of {other}, this is {version.uri}: name another output folder")
    known = claim.get("inputs", {})
    inputs = {Path(item.output).name: digest_of(item.row) for item in items}
    for name in inputs.keys() & known.keys():
        if inputs[name] != known[name]:
            (folder / name).unlink(missing_ok=True)
    claim |= {**version.tags, "inputs": known | inputs}
    storage.write_bytes(str(manifest), json.dumps(claim, indent=1).encode())


def _predict_all(version: ModelVersion, due: Sequence[Item], compute: ComputeSpec) -> Iterator[dict[str, Any]]:
    from flows.cluster.actors import iter_on_actors

    items = [{"model": version.uri, "row": json.dumps(item.row), "output": item.output} for item in due]
    results = iter_on_actors(Predictor, items, compute)
    yield from track(((1, result) for result in results), "predict", "inputs", len(due))


class Predictor:
    """An actor that loads the model with its first item."""

    model: Any = None

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Predict one item into its file, which appears complete or not at all; a failure is told, not raised."""
        try:
            self.model = self.model or _load(item["model"])
        except Exception as error:  # of MLflow, its store, or a package that the model needs
            return {"output": item["output"], "error": str(error), "is_fatal": True}
        row, output = json.loads(item["row"]), Path(item["output"])
        partial = output.with_name(f".partial-{output.name}")
        try:
            self.model.predict({name: [value] for name, value in row.items()} | {"output": [str(partial)]})
            partial.replace(output)
        except Exception as error:  # this input's fault; the others go on
            return {"output": str(output), "error": f"{row.get('path', output.name)}: {error}", "is_fatal": False}
        finally:
            partial.unlink(missing_ok=True)
        return {"output": str(output), "error": "", "is_fatal": False}


def _load(uri: str) -> Any:
    import mlflow

    return mlflow.pyfunc.load_model(uri)
