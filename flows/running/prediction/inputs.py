"""Inputs of a prediction: volumes by path, or prompts by row."""

from __future__ import annotations

import csv
import glob
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_pipelines.errors import InputError
from data_pipelines.specs import Spec

CHANNEL = re.compile(r"_\d{4}$")


class Prompt(Spec):
    """A row of a file of prompts; absent options default to those of the evaluation."""

    prompt: str
    negative_prompt: str | None = None
    seed: int
    """Default: the row's number."""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One prediction to make."""

    row: dict[str, Any]
    """The model's input: column to value."""
    output: str
    """Path of the file it becomes."""


def plan_items(source: str, folder: Path, *, takes_prompts: bool) -> list[Item]:
    """List what is to be predicted, sorted by output. Raises InputError for nothing, and for two of one output."""
    items = _prompts(Path(source).expanduser(), folder) if takes_prompts else _volumes(source, folder)
    if not items:
        raise InputError(
            f"{source}: nothing to predict; name a file, a folder or a glob of .nii.gz, .png, .jpg or .tif"
        )
    output, count = Counter(item.output for item in items).most_common(1)[0]
    if count > 1:
        raise InputError(f"{source}: several inputs would become {output}; predict them into different folders")
    return items


def _volumes(source: str, folder: Path) -> list[Item]:
    """List volumes by name; files ``NAME_0000``, ``NAME_0001`` are the channels of one."""
    from data_pipelines.volumes.files import strip_suffix
    from data_pipelines.volumes.formats.base import IMAGE_SUFFIXES

    cases: dict[str, list[Path]] = {}
    for path in sorted(_paths(source)):
        stem = strip_suffix(path.name)
        cases.setdefault(CHANNEL.sub("", stem), []).append(path)
    items = []
    for name, paths in cases.items():
        if len(paths) > 1 and not all(CHANNEL.search(strip_suffix(path.name)) for path in paths):
            raise InputError(f"{paths[0]} and {paths[1]} have the same name; predict them into different folders")
        suffix = ".png" if paths[0].name.lower().endswith(IMAGE_SUFFIXES) else ".nii.gz"
        row = {"path": "|".join(str(path) for path in paths)}
        items.append(Item(row, str(folder / f"{name}{suffix}")))
    return items


def _paths(source: str) -> Iterator[Path]:
    """Yield the volumes that ``source`` names: itself, those in the folder, or those of the glob."""
    from data_pipelines.volumes.files import is_volume_name

    path = Path(source).expanduser().absolute()
    if path.is_dir() and _is_series(path):
        yield path
    elif path.is_dir():
        for entry in path.iterdir():
            if (entry.is_file() and is_volume_name(entry.name)) or (entry.is_dir() and _is_series(entry)):
                yield entry
    elif path.is_file():
        yield path
    else:
        yield from (Path(found).absolute() for found in glob.glob(str(path), recursive=True))


def _is_series(folder: Path) -> bool:
    """Tell whether the folder holds slices of a DICOM series."""
    return any(name.lower().endswith(".dcm") for name in os.listdir(folder))


def _prompts(path: Path, folder: Path) -> list[Item]:
    """Read one prompt per line (``.txt``), or rows with a ``prompt`` column and options (``.jsonl``, ``.csv``)."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no readable file of prompts ({error}); give a .txt, .jsonl or .csv") from None
    rows = [_prompt(path, number, row) for number, row in enumerate(_rows(text, path.suffix))]
    width = len(str(len(rows)))
    return [
        Item(prompt.model_dump(exclude_none=True), str(folder / f"{number:0{width}d}.png"))
        for number, prompt in enumerate(rows)
    ]


def _prompt(path: Path, number: int, row: Any) -> Prompt:
    try:
        return Prompt.model_validate({"seed": number} | row if isinstance(row, dict) else row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the row"
        raise InputError(
            f"{path}: row {number + 1}: {where}: {first['msg']}; each needs `prompt`, and may have "
            f"{', '.join(name for name in Prompt.model_fields if name != 'prompt')}"
        ) from None


def _rows(text: str, suffix: str) -> list[Any]:
    """Parse the file without validating it; a line that is not JSON stays text."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if suffix == ".csv":
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(text.splitlines())]
    if suffix == ".jsonl":
        return [_parse(line) for line in lines]
    return [{"prompt": line} for line in lines]


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line
