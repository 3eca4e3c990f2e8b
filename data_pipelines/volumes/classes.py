"""Classes of a data set: the values that stand for them in label files, the regions made of them, and what is ignored.

Masks hold the number of each voxel's class, 0 for the background. Files hold values; only this file knows both.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from data_pipelines.specs import Spec

BACKGROUND, IGNORE = "background", "ignore"
"""Names with a meaning: the class of everything else, and voxels that nobody has annotated."""
MEAN = "mean"
"""Name that no class or region may have: scores under it are the mean over all of them."""
_BLOCK_VOXELS = 1 << 20
"""Voxels looked up at a time: wide integers of a whole volume would take several times its size."""


class Region(Spec):
    """A class that may overlap others: a set of exclusive ones."""

    name: str
    classes: tuple[int, ...]
    """Numbers of its classes."""
    written: int
    """Number of the class that predictions write it as."""


class Labels(Spec):
    """Classes of a data set as files hold them, and as networks learn them."""

    names: tuple[str, ...]
    """Names of the exclusive classes, background first: the place of a class is its number."""
    values: tuple[tuple[int, ...], ...]
    """Values that stand for each class in files; predictions are written in the first. A colour is
    65536 red + 256 green + blue."""
    is_colour: bool = False
    """True where the values are colours."""
    ignored: tuple[int, ...] = ()
    """Values of voxels that nobody has annotated; in masks they have the number ``ignored_number``."""
    regions: tuple[Region, ...] = ()
    """Regions to predict instead of exclusive classes, in the order in which they are written over one another."""

    @property
    def num_classes(self) -> int:
        """Number of exclusive classes, background included."""
        return len(self.names)

    @property
    def ignored_number(self) -> int:
        """Number of ignored voxels in masks: one above the last class."""
        return self.num_classes

    @property
    def num_outputs(self) -> int:
        """Number of the network's outputs: one per region, else one per class."""
        return len(self.regions) or self.num_classes

    @property
    def numbers(self) -> dict[str, int]:
        """Numbers of the classes by name, background first."""
        return {name: number for number, name in enumerate(self.names)}

    @property
    def outputs(self) -> dict[str, int]:
        """Place among the network's outputs of each target, by name: the background of exclusive classes is none."""
        return {name: place for place, name in enumerate(self.targets, start=0 if self.regions else 1)}

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what the network's outputs stand for, in their order: regions, or classes with the background."""
        return tuple(region.name for region in self.regions) or self.names

    @property
    def targets(self) -> dict[str, tuple[int, ...]]:
        """Targets that are learned and scored, by name: numbers of each region's classes, else of each class."""
        if self.regions:
            return {region.name: region.classes for region in self.regions}
        return {name: (number,) for name, number in self.numbers.items() if number}

    def describe(self) -> str:
        """Write values and names: ``0 background, 1|2 tumour``, then what is ignored, then regions."""
        named = dict(zip(self.names, self.values, strict=True))
        if self.ignored:
            named[IGNORE] = self.ignored
        written = {name: "|".join(map(self.value_text, values)) for name, values in named.items()}
        text = ", ".join(name if values == name else f"{values} {name}" for name, values in written.items())
        regions = [f"{r.name} ({', '.join(self.names[number] for number in r.classes)})" for r in self.regions]
        return f"{text}; regions {', '.join(regions)}" if regions else text

    def value_text(self, value: int) -> str:
        """Write a value as a configuration has it: a number, or ``#rrggbb``."""
        return f"#{value:06x}" if self.is_colour else str(value)

    def read(self, stored: np.ndarray) -> np.ndarray:
        """Turn the values of a file (*spatial) into numbers of classes, in the smallest type.

        Values that are not declared have the number above that of ignored ones.
        """
        dtype = np.uint8 if self.num_classes + 2 <= 256 else np.int16
        if self._is_numbered and stored.min() >= 0 and stored.max() < self.num_classes:
            return stored.astype(dtype)
        first, table = _lookup(self)
        flat, numbers = stored.reshape(-1), np.empty(stored.size, dtype)
        for start in range(0, flat.size, _BLOCK_VOXELS):
            block = slice(start, start + _BLOCK_VOXELS)
            wide = flat[block].astype(np.float64 if stored.dtype.kind == "f" else np.int64)
            numbers[block] = table[np.clip(wide - first, 0, len(table) - 1).astype(np.intp)]
        return numbers.reshape(stored.shape)

    def write(self, numbers: np.ndarray) -> np.ndarray:
        """Turn numbers of classes (*spatial) into the values of files; colours have an axis more, (*spatial, 3) uint8.

        The inverse of ``read`` for numbers, but for classes of several values: they get the first.
        """
        written = np.array([values[0] for values in self.values])
        if self.is_colour:
            colours = np.stack([written >> 16, written >> 8 & 255, written & 255], axis=-1)
            return colours.astype(np.uint8)[numbers]
        return numbers if self._is_numbered else written.astype(_smallest_type(written))[numbers]

    def write_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """Do as ``write`` does for formats without colours: where values are colours, numbers of classes stay."""
        return numbers if self.is_colour else self.write(numbers)

    def read_numbers(self, written: np.ndarray) -> np.ndarray:
        """Invert ``write_numbers``."""
        return written if self.is_colour else self.read(written)

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """Turn a network's logits (outputs, *spatial) into numbers of classes (*spatial).

        Regions of a probability above one half are written in their order, later ones over earlier ones (nnU-Net's
        ``regions_class_order``); of exclusive classes the most probable wins, the first among equals.
        """
        if not self.regions:
            return np.asarray(logits.argmax(axis=0))
        numbers = np.zeros(logits.shape[1:], np.int16)
        for region, output in zip(self.regions, logits, strict=True):
            numbers[output > 0] = region.written
        return numbers

    @property
    def _is_numbered(self) -> bool:
        return not self.is_colour and self.values == tuple((number,) for number in range(self.num_classes))


@lru_cache(maxsize=16)
def _lookup(labels: Labels) -> tuple[int, np.ndarray]:
    """Return one below the lowest declared value, and the numbers of the values from there to one above the highest."""
    declared = [*labels.values, labels.ignored] if labels.ignored else labels.values
    first, last = min(map(min, declared)) - 1, max(map(max, declared)) + 1
    table = np.full(last - first + 1, labels.ignored_number + 1, np.int16)
    for number, values in enumerate(declared):
        table[np.array(values) - first] = number
    return first, table


def pack_colours(image: np.ndarray) -> np.ndarray:
    """Turn colours (*spatial, 3) of 8 bits into one number each, as ``Labels.values`` has them."""
    red, green, blue = np.moveaxis(image.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _smallest_type(values: np.ndarray) -> np.dtype:
    """Find the smallest integer type that label files have for ``values``."""
    for kind in (np.uint8, np.int16, np.uint16):
        if np.iinfo(kind).min <= values.min() and values.max() <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.int32)
