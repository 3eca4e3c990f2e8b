"""Declarations of classes, in a configuration or beside the data, to ``Labels``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipelines.errors import DataError, broken_rule
from data_pipelines.volumes.classes import BACKGROUND, IGNORE, MEAN, Labels

MAX_VALUE = (1 << 24) - 1
"""Largest value of a class, in either direction: that of the colour white."""
_COLOUR = re.compile("#[0-9a-fA-F]{6}")
_REMEDY = (
    'give each class its value, or a list of them: {"background": 0, "liver": 1}; of colours {"road": "#ff00ff"}; '
    '"ignore" names the value of voxels without annotation'
)
_RENAME = "give it another name"

Where = str | Path
"""File, or field of the configuration, that declares something."""


def read_labels(declared: object, where: Where) -> Labels:
    """Read class name -> value, or list of values. The background is the class of that name, else the one of value 0.

    Raises DataError where the declaration is unusable.
    """
    values = read_values(declared, where)
    is_colour = _check_kind(declared, where)
    ignored = values.pop(IGNORE, ())
    _check_distinct([*values.values(), ignored], where)
    background = BACKGROUND if BACKGROUND in values else next((n for n, found in values.items() if 0 in found), None)
    if background is None or len(values) < 2:
        raise _bad(where, f"a background (value 0, or of that name) and another class are needed, got {declared!r}")
    others = sorted((name for name in values if name != background), key=lambda name: min(values[name]))
    names = (background, *others)
    return Labels(names=names, values=tuple(values[n] for n in names), is_colour=is_colour, ignored=ignored)


def read_values(declared: object, where: Where) -> dict[str, tuple[int, ...]]:
    """Read the values of each name, in order; colours as one number. Raises DataError for names without any."""
    if not isinstance(declared, Mapping) or not all(isinstance(name, str) and name for name in declared):
        raise _bad(where, f"expected class names and values, got {declared!r:.200}")
    if MEAN in declared:
        raise _bad(where, f"no class or region can be named {MEAN}: scores under it are the mean over all", _RENAME)
    found = {name: tuple(_value_of(value, where) for value in _listed(given)) for name, given in declared.items()}
    if empty := [name for name, values in found.items() if not values]:
        raise _bad(where, f"class {empty[0]} has no value")
    return found


def _value_of(value: object, where: Where) -> int:
    """Read one value: a whole number, its digits, or a colour ``#rrggbb``. Raises DataError for anything else."""
    if isinstance(value, str) and _COLOUR.fullmatch(value):
        return int(value[1:], 16)
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_VALUE:
        raise _bad(where, f"the value of a class is a whole number up to {MAX_VALUE} or a colour, got {value!r}")
    return value


def _listed(given: object) -> Sequence[object]:
    return given if isinstance(given, list | tuple) else [given]


def _check_kind(declared: object, where: Where) -> bool:
    """Tell whether the values are colours. Raises DataError for a mixture: 255 would be the number of a blue."""
    assert isinstance(declared, Mapping)
    values = [value for given in declared.values() for value in _listed(given)]
    kinds = {isinstance(value, str) and value.startswith("#") for value in values}
    if len(kinds) > 1:
        raise _bad(where, f"either all values are colours or none, got {values}")
    return kinds == {True}


def _check_distinct(values: Sequence[Sequence[int]], where: Where) -> None:
    counts = Counter(value for found in values for value in found)
    if twice := [value for value, count in counts.items() if count > 1]:
        raise _bad(where, f"a value belongs to one class only (data.regions may overlap), given twice: {twice}")


def _bad(where: Where, message: str, remedy: str = _REMEDY) -> DataError:
    return broken_rule("bad-classes", where, message, remedy)
