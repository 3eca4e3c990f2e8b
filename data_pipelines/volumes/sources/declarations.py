"""``dataset.json``, which the Decathlon and nnU-Net layouts share: classes, channels and facts about the data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from data_pipelines.errors import broken_rule
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.files import is_volume_name
from data_pipelines.volumes.formats.base import ALL_SUFFIXES
from data_pipelines.volumes.sources.labels import read_labels
from data_pipelines.volumes.sources.names import existing, read_json
from data_pipelines.volumes.sources.regions import read_regions
from data_pipelines.volumes.specs import DataSpec

Declared = Mapping[str, Any]
"""Content of ``dataset.json``, as another program wrote it."""


def read_dataset_json(root: Path) -> dict[str, Any]:
    """Read ``ROOT/dataset.json``. Raises DataError where it is missing or no JSON object."""
    path = root / "dataset.json"
    if not path.is_file():
        message = "missing; the Decathlon and nnU-Net layouts declare classes and channels there"
        raise broken_rule("declarations-missing", path, message, "restore the file, or name another data.layout")
    declared = read_json(path)
    if not isinstance(declared, dict):
        message = f"must hold a JSON object, got {type(declared).__name__}"
        raise broken_rule("bad-declarations", path, message, "correct the file")
    return declared


def declared_labels(declared: Declared, root: Path) -> Labels:
    """Return the classes of ``labels``: name -> value, or the older value -> name; ``ignore`` and regions as nnU-Net's.

    Lists that overlap, or that come with ``regions_class_order``, are regions. Raises DataError for unusable ones.
    """
    source, labels = root / "dataset.json", declared.get("labels")
    if not isinstance(labels, dict) or not labels:
        message = f'"labels" must map class names to values, got {labels!r:.200}'
        raise broken_rule("bad-classes", source, message, "correct dataset.json, or give data.classes")
    if all(str(key).isdigit() for key in labels):
        names = [str(name) for name in labels.values()]
        if len(set(names)) < len(names):
            message = f"two classes share a name: {names}"
            raise broken_rule("bad-classes", source, message, "give every class a name of its own")
        return read_labels({str(name): value for value, name in labels.items()}, source)
    order = declared.get("regions_class_order")
    if order is None and not _overlap(labels):
        return read_labels(labels, source)
    return read_regions(labels, order, source)


def _overlap(labels: Mapping[str, object]) -> bool:
    """Tell whether a value is in the lists of two classes."""
    values = [str(value) for given in labels.values() if isinstance(given, list) for value in given]
    values += [str(given) for given in labels.values() if not isinstance(given, list)]
    return len(set(values)) < len(values) and any(isinstance(given, list) for given in labels.values())


def declared_channels(declared: Declared, spec: DataSpec, root: Path) -> tuple[str, ...]:
    """Return the channel names, from the spec or from ``channel_names`` (before nnU-Net 2: ``modality``).

    Raises DataError where they are not numbered from 0.
    """
    if spec.channels:
        return spec.channels
    names = declared.get("channel_names", declared.get("modality"))
    if not isinstance(names, dict) or not names or set(names) != {str(index) for index in range(len(names))}:
        message = f'"channel_names" must be {{"0": name, "1": name, ...}}, got {names!r:.200}'
        remedy = "correct dataset.json, or give data.channels"
        raise broken_rule("bad-channels", root / "dataset.json", message, remedy)
    return tuple(str(names[str(index)]) for index in range(len(names)))


def dataset_metadata(declared: Declared) -> dict[str, str]:
    """Return what the data set says about itself: description, reference, licence, release."""
    keys = ("description", "reference", "licence", "license", "release")
    return {key: str(declared[key]) for key in keys if declared.get(key)}


def check_file_ending(declared: Declared, root: Path) -> None:
    """Raise DataError where nnU-Net's ``file_ending`` is of a format that is not read.

    Files of another supported format than the declared one are read all the same.
    """
    ending = declared.get("file_ending")
    if ending is None or (isinstance(ending, str) and is_volume_name(f"name{ending}")):
        return
    message = f'"file_ending" is {ending!r}; supported are {", ".join(ALL_SUFFIXES)}'
    raise broken_rule("unknown-format", root / "dataset.json", message, "convert the images, and correct file_ending")


def listed_file(root: Path, case_id: str, name: str) -> Path:
    """Return the file that ``dataset.json`` lists for a case. Raises DataError where it leads out of the data set."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        message = f"paths must lie inside the data set, got {name}"
        remedy = "write it relative to dataset.json"
        raise broken_rule("path-outside", root / "dataset.json", message, remedy, case_id)
    return existing(root / name)


def check_listed_file(kind: Literal["image", "label"], path: Path) -> None:
    """Raise DataError where a listed file does not exist."""
    if not path.is_file():
        message = f"dataset.json lists this {kind}, but there is no such file"
        remedy = "restore the file, or take the case out of dataset.json"
        raise broken_rule(f"{kind}-missing", path, message, remedy)
