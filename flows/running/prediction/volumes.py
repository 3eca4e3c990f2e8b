"""Volumes to predict: the files of a folder, a glob or a data set, and which of them are channels of one image.

A file is one image, named after its full stem. Only where the model was trained on several files per image are
``NAME_0000``, ``NAME_0001``, ... one image, and only where the numbers are exactly 0..C-1.
"""

from __future__ import annotations

import glob
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipelines.errors import InputError
from flows.running.prediction.items import Item

logger = logging.getLogger(__name__)

_CHANNEL = re.compile(r"(?P<name>.+)_(?P<channel>\d{4})")
_IMAGE_FOLDERS = ("images", "imagesTs", "imagesTr")
"""Folders that hold the images of a data set."""


@dataclass(frozen=True, slots=True)
class Naming:
    """Facts about the images that a model was trained on, by which names are understood."""

    ndim: int | None = None
    """Number of spatial axes; None for a model that does not say."""
    files_per_image: int = 1
    has_channel_numbers: bool = False
    """True where the names of its training images ended in _0000."""
    label_suffixes: Sequence[str] = (".nii.gz", ".png")
    """Suffixes that it writes label maps with."""

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Naming:
        """Read the facts that a model was registered with."""
        return cls(**{name: metadata[name] for name in cls.__slots__ if name in metadata})


@dataclass(slots=True)
class Found:
    """Images that a source names, and what was skipped."""

    images: list[tuple[str, list[Path]]] = field(default_factory=list)
    """Name of each image with its files, or its folder of slices."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Path of each file or folder that is not predicted, with the reason."""


def plan_volumes(source: str, folder: Path, naming: Naming, suffix: str = "") -> tuple[list[Item], dict[str, str]]:
    """List the predictions to make in ``folder``, and what is skipped with the reason.

    Label maps have the format that ``suffix`` names, by default that of their input. Raises InputError where there is
    nothing to predict, two images would become one file, or the model does not write the format.
    """
    _check_suffix(suffix, naming)
    found = find_images(source, naming)
    if not found.images:
        raise InputError(_nothing(source, found.skipped))
    if suffix == ".dcm" and (others := [paths[0] for _, paths in found.images if not paths[0].is_dir()]):
        raise InputError(f"--format dcm: {others[0]} is no series of DICOM slices, which a segmentation refers to")
    items: dict[str, Item] = {}
    for name, paths in found.images:
        output = folder / f"{name}{suffix or _output_suffix(paths[0], naming)}"
        item = Item({"path": "|".join(map(str, paths))}, str(output), paths)
        if (other := items.setdefault(item.output.casefold(), item)) is not item:
            raise InputError(f"{other.files[0]} and {paths[0]} have the same name; predict them into different folders")
    _warn_of_loss(suffix, [item.files[0] for item in items.values()])
    return list(items.values()), found.skipped


def find_images(source: str, naming: Naming) -> Found:
    """Find the images that ``source`` names: a file, a series, the content of a folder, or the matches of a glob."""
    path = Path(source).expanduser().absolute()
    if path.is_file():
        return Found(list(_name_files([path], naming)))
    if not path.is_dir():
        return _of_entries((Path(match).absolute() for match in glob.glob(str(path), recursive=True)), naming)
    if (series := _series_of(path)) is not None:
        return Found([(path.parent.name if path.name == "image" else path.name, [series])])
    if listed := _listed_images(path):
        return Found(listed)
    found = _of_entries(path.iterdir(), naming)
    return found if found.images else _of_data_set(path, naming) or found


def _of_entries(entries: Iterable[Path], naming: Naming) -> Found:
    """Sort files and folders into images and what is skipped; hidden ones are neither."""
    from data_pipelines.files.reading import is_file_or_broken_link
    from data_pipelines.volumes.files import is_volume_name, source_files

    found, files, others = Found(), [], []
    for entry in sorted(path for path in entries if not path.name.startswith(".")):
        if entry.is_dir() and (series := _series_of(entry)) is not None:
            found.images.append((_normal(entry.name), [series]))
        elif is_file_or_broken_link(entry) and is_volume_name(entry.name):
            files.append(entry)
        else:
            others.append(entry)
    found.images += _name_files(files, naming)
    used = {part for file in files for part in source_files(file)} if others else set()
    found.skipped = {str(entry): _reason(entry) for entry in others if entry not in used}
    return found


def _reason(entry: Path) -> str:
    if entry.is_dir():
        return "the folder holds no DICOM slices"
    if entry.is_symlink() and not entry.exists():
        return "links to nothing"
    return f"{entry.suffix or 'a name without an ending'} is no supported format"


def _name_files(paths: Iterable[Path], naming: Naming) -> Iterator[tuple[str, list[Path]]]:
    """Yield the images that the files are, by name: one file each, or the channels 0..C-1 together."""
    from data_pipelines.volumes.sources.names import case_id_of

    stems = {path: case_id_of(path) for path in paths}
    numbered = {path: match for path, stem in stems.items() if (match := _CHANNEL.fullmatch(stem))}
    if naming.files_per_image > 1:
        groups = list(_whole_groups(numbered, naming.files_per_image))
        yield from groups  # of the same name where they lie in different folders: refused by who plans the outputs
        grouped = {path for _, files in groups for path in files}
        yield from ((stem, [path]) for path, stem in stems.items() if path not in grouped)
        return
    # As nnU-Net: the number of the only channel is no part of the name, where every file has it.
    is_numbered = naming.has_channel_numbers and all(
        path in numbered and int(numbered[path]["channel"]) == 0 for path in stems
    )
    yield from ((numbered[path]["name"] if is_numbered else stem, [path]) for path, stem in stems.items())


def _whole_groups(numbered: Mapping[Path, re.Match[str]], count: int) -> Iterator[tuple[str, list[Path]]]:
    """Yield the images whose files, in one folder, have exactly the numbers 0..count-1, in order."""
    groups: dict[tuple[Path, str], list[tuple[int, Path]]] = defaultdict(list)
    for path, match in numbered.items():
        groups[path.parent, match["name"]].append((int(match["channel"]), path))
    for (_, name), channels in groups.items():
        if sorted(number for number, _ in channels) == list(range(count)):
            yield name, [path for _, path in sorted(channels)]


# --- folders ---------------------------------------------------------------------------------------------------------


def _series_of(folder: Path) -> Path | None:
    """Return the folder of slices of a case, FOLDER/image as in training or FOLDER itself; None where there is none."""
    return next((place for place in (folder / "image", folder) if place.is_dir() and _is_series(place)), None)


def _is_series(folder: Path) -> bool:
    """Tell whether the folder holds slices, and no files of volumes."""
    from data_pipelines.volumes.files import is_volume_name
    from data_pipelines.volumes.formats.dicom import is_series

    return is_series(folder) and not any(is_volume_name(entry.name) for entry in folder.iterdir())


def _listed_images(root: Path) -> list[tuple[str, list[Path]]]:
    """Return the images that ``dataset.json`` lists by case, as training reads it."""
    from data_pipelines.volumes.sources.nnunet import listed_images

    return [(name, paths) for name, paths in listed_images(root).items()]


def _of_data_set(root: Path, naming: Naming) -> Found | None:
    """Find the images of a data set as training reads it. Raises InputError where it has several folders of images."""
    folders = [root / name for name in _IMAGE_FOLDERS if (root / name).is_dir()]
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise InputError(f"{root}: holds several folders of images ({names}); name the one to predict")
    return _of_entries(folders[0].iterdir(), naming) if folders else None


# --- outputs and messages --------------------------------------------------------------------------------------------


def _output_suffix(path: Path, naming: Naming) -> str:
    """Return the suffix of the label map: that of its input's format, NIfTI for folders of slices."""
    from data_pipelines.volumes.formats.base import IMAGE_SUFFIXES, written_suffix

    suffix = ".nii.gz" if path.is_dir() else written_suffix(path.name)
    is_flat = naming.ndim != 3
    if suffix in naming.label_suffixes and (suffix != ".png" or is_flat):
        return suffix
    return ".png" if is_flat and path.name.lower().endswith(IMAGE_SUFFIXES) else ".nii.gz"


def _check_suffix(suffix: str, naming: Naming) -> None:
    """Raise InputError where a model does not write a format."""
    if suffix and suffix not in naming.label_suffixes:
        known = ", ".join(each.lstrip(".") for each in naming.label_suffixes)
        raise InputError(f"--format {suffix.lstrip('.')}: this model writes {known}; name one of them")
    if suffix == ".png" and naming.ndim == 3:
        raise InputError("--format png: PNG holds no volumes; name nii.gz, nrrd, mha or tif")


def _warn_of_loss(suffix: str, paths: Sequence[Path]) -> None:
    """Say where label maps lose the placement that their inputs have."""
    from data_pipelines.volumes.formats.base import IMAGE_SUFFIXES

    placed = [path for path in paths if not path.name.lower().endswith(IMAGE_SUFFIXES)]
    if placed and suffix in (".tif", ".png"):
        kept = "the voxel size" if suffix == ".tif" else "nothing of the geometry"
        logger.warning("predict: --format %s keeps %s of %d inputs", suffix.lstrip("."), kept, len(placed))


def _normal(name: str) -> str:
    from data_pipelines.volumes.sources.names import normal

    return normal(name)


def _nothing(source: str, skipped: Mapping[str, str]) -> str:
    from data_pipelines.volumes.formats.base import ALL_SUFFIXES

    reasons = ", ".join(f"{count} entries: {reason}" for reason, count in Counter(skipped.values()).most_common(5))
    lies_there = f" ({reasons})" if reasons else ""
    known = ", ".join(ALL_SUFFIXES)
    return f"{source}: nothing to predict{lies_there}; name a file, a folder or a glob of {known}, or DICOM folders"
