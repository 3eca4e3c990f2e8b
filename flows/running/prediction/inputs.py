"""Inputs of a prediction: volumes or pictures by path, or prompts by row."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from data_pipelines.errors import InputError
from data_pipelines.images.specs import ImageSpec
from data_pipelines.specs import Spec
from flows.running.prediction.items import Item
from flows.running.prediction.pictures import find_frames, find_root, plan_pictures
from flows.running.prediction.volumes import Naming, plan_volumes


class Prompt(Spec):
    """A row of a file of prompts; absent options default to those of the evaluation.

    ``image`` is a path. Which conditions a model needs, it checks itself.
    """

    model_config = ConfigDict(populate_by_name=True)

    prompt: str | None = None
    class_name: str | None = Field(default=None, alias="class")
    image: str | None = None
    negative_prompt: str | None = None
    seed: int
    """Default: the row's number."""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Predictions to make, and what is left out."""

    items: list[Item]
    skipped: dict[str, str] = field(default_factory=dict)
    """Path of each file or folder of the source that is not predicted, with the reason."""
    clips: dict[str, list[Item]] = field(default_factory=dict)
    """Clip to its frames in order, where frames are images of their own."""


def plan_items(
    source: str,
    folder: Path,
    *,
    takes_prompts: bool,
    takes_pictures: bool = False,
    images: ImageSpec | None = None,
    naming: Naming | None = None,
    suffix: str = "",
) -> Plan:
    """List what is to be predicted, sorted by output. Raises InputError for nothing, and for two of one output.

    ``images`` says which pictures are frames of a clip; by default none is. ``naming`` says how the names of volumes
    are understood; by default each file is an image. ``suffix`` is that of label maps, by default that of each input.
    """
    if suffix and (takes_pictures or takes_prompts):
        raise InputError(f"--format {suffix.lstrip('.')}: this model writes images as PNG; leave --format out")
    if takes_pictures:
        items, skipped = plan_pictures(source, folder)
        return Plan(items, skipped, find_frames(items, find_root(source), images.clips if images else ""))
    if not takes_prompts:
        items, skipped = plan_volumes(source, folder, naming or Naming(), suffix)
        return Plan(sorted(items, key=lambda item: item.output), skipped)
    items = _prompts(Path(source).expanduser(), folder)
    if not items:
        raise InputError(f"{source}: nothing to predict; the file holds no prompt")
    return Plan(items)


def _prompts(path: Path, folder: Path) -> list[Item]:
    """Read one prompt per line (``.txt``), or rows with a ``prompt`` column and options (``.jsonl``, ``.csv``)."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # as Excel writes it, too
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no readable file of prompts ({error}); give a .txt, .jsonl or .csv") from None
    rows = [_prompt(path, number, row) for number, row in enumerate(_rows(text, path.suffix))]
    width = len(str(len(rows)))
    return [
        Item(
            prompt.model_dump(exclude_none=True, by_alias=True),
            str(folder / f"{number:0{width}d}.png"),
            [Path(prompt.image)] if prompt.image else [],
        )
        for number, prompt in enumerate(rows)
    ]


def _prompt(path: Path, number: int, row: Any) -> Prompt:
    if isinstance(row, dict) and None in row:
        raise InputError(f"{path}: row {number + 1} has more cells than the header; quote prompts that hold commas")
    try:
        prompt = Prompt.model_validate({"seed": number} | row if isinstance(row, dict) else row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the row"
        raise InputError(
            f"{path}: row {number + 1}: {where}: {first['msg']}; a row may have "
            f"{', '.join(info.alias or name for name, info in Prompt.model_fields.items())}"
        ) from None
    if prompt.image:  # a worker on another machine has another working folder
        prompt = prompt.model_copy(update={"image": str(Path(prompt.image).expanduser().absolute())})
    return prompt


def _rows(text: str, suffix: str) -> list[Any]:
    """Parse the file without validating it; a line that is not JSON stays text."""
    if suffix == ".csv":
        rows = csv.DictReader(io.StringIO(text, newline=""))
        return [{name: value for name, value in row.items() if value} for row in rows]
    lines = [line.strip() for line in io.StringIO(text) if line.strip()]  # splitlines() would also cut at U+2028
    if suffix == ".jsonl":
        return [_parse(line) for line in lines]
    return [{"prompt": line} for line in lines]


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line
