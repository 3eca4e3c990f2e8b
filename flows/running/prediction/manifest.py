"""Contents of a folder of predictions: of which model, and from what content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from data_pipelines import storage
from data_pipelines.digests import digest_of, uri_digests
from data_pipelines.errors import ConfigError, InputError
from data_pipelines.specs import Spec
from data_pipelines.volumes.files import source_files
from flows.pipelines.segmentation.maps import MAPS, MapName, map_path
from flows.registry.models import ModelVersion
from flows.running.prediction.items import Item

MANIFEST = "predictions.json"


class Manifest(Spec):
    """Contents of ``predictions.json``."""

    model_uri: str
    lineage: dict[str, str] = Field(default={})
    """Digests and keys of the stages that the model comes from."""
    inputs: dict[str, str] = Field(default={})
    """Name of each output file to the digest of its input."""


def claim_folder(folder: Path, version: ModelVersion, items: Sequence[Item]) -> None:
    """Write down which version predicts what into the folder; predictions of changed inputs are removed.

    An input has changed where its row or the content of its files has. Raises ConfigError for a folder of another
    version's predictions, and where a file that this command did not write would be taken for a prediction.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MANIFEST
    known = _read_manifest(path) if path.exists() else Manifest(model_uri=version.uri)
    if known.model_uri != version.uri:
        raise ConfigError(
            f"{folder} holds predictions of {known.model_uri}, this is {version.uri}: name another output folder"
        )
    inputs = input_digests(items)
    new = [file.name for name in inputs.keys() - known.inputs.keys() for file in output_files(name, MAPS)]
    if foreign := [name for name in new if (folder / name).exists()]:
        raise ConfigError(f"{folder / min(foreign)} exists and is no prediction of ours: name another output folder")
    for name in inputs.keys() & known.inputs.keys():
        if inputs[name] != known.inputs[name]:
            for file in output_files(folder / name, MAPS):
                file.unlink(missing_ok=True)
    manifest = Manifest(model_uri=version.uri, lineage=version.tags, inputs=known.inputs | inputs)
    storage.write_bytes(str(path), manifest.model_dump_json(indent=1).encode())


def output_files(output: str | Path, maps: Sequence[MapName]) -> list[Path]:
    """Return the file of a prediction, and those of maps beside it."""
    return [Path(output), *(map_path(output, name) for name in maps)]


def check_distinct(items: Sequence[Item], maps: Sequence[MapName]) -> None:
    """Raise InputError where the map of one image would be the label map of another."""
    outputs = {Path(item.output).name.casefold() for item in items}
    for item in items:
        for file in output_files(item.output, maps)[1:]:
            if file.name.casefold() in outputs:
                raise InputError(f"{file} would be a map of {Path(item.output).name} and a prediction: rename an input")


def input_digests(items: Sequence[Item]) -> dict[str, str]:
    """Compute the digest of each item's row and of the content of its files, by the name of its output."""
    files = {item.output: [file for path in item.files for file in source_files(path)] for item in items}
    digests = uri_digests(str(file) for paths in files.values() for file in paths)
    return {
        Path(item.output).name: digest_of([item.row, [digests.get(str(file), "") for file in files[item.output]]])
        for item in items
    }


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(path.read_text())
    except ValidationError:
        raise ConfigError(f"{path}: is not a manifest of this version; name another output folder") from None
