"""Classes of masks that nothing declares: the values that they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from data_pipelines.cores import count_cpus
from data_pipelines.errors import DataError
from data_pipelines.volumes.classes import BACKGROUND, pack_colours
from data_pipelines.volumes.files import read_volume
from data_pipelines.volumes.sources.find import find_cases, recognise_layout
from data_pipelines.volumes.sources.folders import CLASSES_FILE, ONE_CLASS
from data_pipelines.volumes.specs import DataSpec, LabelValue, ValuesByClass

MAX_CLASSES = 32
"""Values of masks up to which each is a class: of soft or compressed masks there are more."""


def guess_classes(root: Path) -> ValuesByClass | None:
    """Name the values of the masks of a folder of images; None where classes are declared, or these cannot be told.

    Values are 0 and others, or black and other colours. Masks that cannot be read are left to the checks.
    """
    if recognise_layout(root) != "folders" or (root / CLASSES_FILE).is_file():
        return None
    spec = DataSpec(root=str(root))
    labels = [case.label for case in find_cases(spec).cases]
    with ProcessPoolExecutor(count_cpus()) as pool:
        found = set().union(*pool.map(partial(_values, max_voxels=spec.max_voxels), labels))
    is_colour = {kind for kind, _ in found}
    values = sorted(value for _, value in found)
    if len(is_colour) != 1 or 0 not in values or not 2 <= len(values) <= MAX_CLASSES:
        return None
    classes: ValuesByClass = dict(_name_colours(values) if is_colour == {True} else _name_values(values))
    return None if classes == ONE_CLASS else classes


def _name_values(values: Iterable[int]) -> Iterator[tuple[str, LabelValue]]:
    others = [value for value in values if value]
    yield BACKGROUND, 0
    for value in others:
        yield "foreground" if len(others) == 1 else f"class {value}", value


def _name_colours(values: Iterable[int]) -> Iterator[tuple[str, LabelValue]]:
    for value in values:
        yield f"colour {value:06x}" if value else BACKGROUND, f"#{value:06x}"


def _values(path: str, max_voxels: int) -> set[tuple[bool, int]]:
    """Return the values of a mask, each with whether it is a colour; of none that the checks refuse."""
    try:
        volume = read_volume(path, max_voxels, label="values")
    except DataError:
        return set()
    array, is_colour = volume.array, volume.array.ndim > volume.geometry.ndim
    if is_colour and (array.shape[-1] != 3 or array.dtype != np.uint8):
        return set()
    values = np.unique(pack_colours(array) if is_colour else array)[: MAX_CLASSES + 1]
    return {(is_colour, int(value)) for value in values} if np.isfinite(values).all() else set()
