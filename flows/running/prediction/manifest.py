"""Contents of a folder of predictions: of which model, and from what content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from data_pipelines import storage
from data_pipelines.atomic import remove_leftovers
from data_pipelines.digests import digest_of, uri_digests
from data_pipelines.errors import ConfigError, InputError
from data_pipelines.specs import Spec
from data_pipelines.volumes.files import source_files
from flows.config.locations import process_lock
from flows.pipelines.segmentation.maps import MAPS, MapName, map_path
from flows.registry.models import ModelVersion
from flows.running.prediction.items import Item

MANIFEST = "predictions.json"
PATH_COLUMNS = ("path", "image")
"""Columns of a row that name the files of its item."""


class Manifest(Spec):
    """Contents of ``predictions.json``."""

    model_uri: str
    lineage: dict[str, str] = Field(default={})
    """Digests and keys of the stages that the model comes from."""
    inputs: dict[str, str] = Field(default={})
    """Name of each output file to the digest of its input."""
    sources: dict[str, str] = Field(default={})
    """Name of each output file to where its input lay."""


def claim_folder(folder: Path, version: ModelVersion, items: Sequence[Item]) -> None:
    """Write down which version predicts what into the folder; predictions of changed inputs are removed.

    An input has changed where its row or the content of its files has. Commands that predict into one folder at once
    take turns here. Raises ConfigError for a folder of another version's predictions, where a file that this command
    did not write would be taken for a prediction, and where the prediction of another file of the same name lies there.
    """
    inputs = input_digests(items)  # of volumes, this takes minutes: before the lock
    # Rows of a table are numbered, and may name another image: outputs are named after these files alone.
    sources = {Path(item.output).name: item.row["path"] for item in items if "path" in item.row}
    with process_lock("predictions", str(folder)):
        remove_leftovers(folder)  # of predictions that were interrupted
        _claim(folder, version, inputs, sources)


def _claim(folder: Path, version: ModelVersion, inputs: dict[str, str], sources: dict[str, str]) -> None:
    path = folder / MANIFEST
    known = _read_manifest(path) if path.exists() else Manifest(model_uri=version.uri, lineage=version.tags)
    if known.model_uri != version.uri:
        raise ConfigError(
            f"{folder} holds predictions of {known.model_uri}, this is {version.uri}: name another output folder"
        )
    if known.lineage != version.tags:  # a registry that was begun anew counts its versions from 1 again
        raise ConfigError(
            f"{folder} holds predictions of another {known.model_uri}: this one was made by other trainings or in "
            "another registry; name another output folder"
        )
    new = [file.name for name in inputs.keys() - known.inputs.keys() for file in output_files(name, MAPS)]
    if foreign := [name for name in new if (folder / name).exists()]:
        raise ConfigError(
            f"{folder / min(foreign)} exists and is not one of these predictions: name another output folder"
        )
    changed = [name for name in inputs.keys() & known.inputs.keys() if inputs[name] != known.inputs[name]]
    for name in changed:
        _check_source(folder / name, known.sources.get(name), sources.get(name))
    for name in changed:
        for file in output_files(folder / name, MAPS):
            file.unlink(missing_ok=True)
    manifest = Manifest(
        model_uri=version.uri, lineage=version.tags, inputs=known.inputs | inputs, sources=known.sources | sources
    )
    storage.write_bytes(str(path), manifest.model_dump_json(indent=1).encode())


def _check_source(output: Path, known: str | None, source: str | None) -> None:
    """Raise ConfigError where the prediction that is there is of another file, not of an earlier state of this one."""
    if known is not None and source is not None and known != source and output.exists():
        raise ConfigError(
            f"{output} is the prediction of {known}; {source} has the same name and other content: name another output "
            "folder, or delete that prediction first"
        )


def output_files(output: str | Path, maps: Sequence[MapName]) -> list[Path]:
    """Return the file of a prediction, and those of maps beside it."""
    return [Path(output), *(map_path(output, name) for name in maps)]


def check_distinct(items: Sequence[Item], maps: Sequence[MapName]) -> None:
    """Raise InputError where a map of one image would be the label map or a map of another."""
    owners = {Path(item.output).name.casefold(): item for item in items}
    for item in items:
        for file in output_files(item.output, maps)[1:]:
            other = owners.setdefault(file.name.casefold(), item)
            if other is not item:
                raise InputError(
                    f"{file} would be a map of {Path(item.output).name} and of {Path(other.output).name}, or that "
                    "itself: rename an input, or predict them into different folders"
                )


def input_digests(items: Sequence[Item]) -> dict[str, str]:
    """Compute the digest of each item's row and of the content of its files, by the name of its output.

    Where an image lies is no part of it, if it can be read here: a folder that moved has the same content.
    """
    files = {item.output: [file for path in item.files for file in source_files(path)] for item in items}
    digests = uri_digests(str(file) for paths in files.values() for file in paths)
    return {
        Path(item.output).name: digest_of(
            [
                {name: value for name, value in item.row.items() if name not in PATH_COLUMNS},
                [digests.get(str(file), str(file)) for file in files[item.output]],
            ]
        )
        for item in items
    }


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(path.read_text())
    except ValidationError:
        raise ConfigError(f"{path}: is not a manifest of this version; name another output folder") from None
