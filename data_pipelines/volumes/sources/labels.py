"""Declarations of classes, in a configuration or beside the data, to ``Labels``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from data_pipelines.errors import DataError, broken_rule
from data_pipelines.volumes.classes import BACKGROUND, IGNORE, Labels, Region
from data_pipelines.volumes.specs import DataSpec

MAX_VALUE = (1 << 24) - 1
"""Largest value of a class, in either direction: that of the colour white."""
_COLOUR = re.compile("#[0-9a-fA-F]{6}")
_REMEDY = (
    'give each class its value, or a list of them: {"background": 0, "liver": 1}; of colours {"road": "#ff00ff"}; '
    '"ignore" names the value of voxels without annotation'
)

_ORDER = "give regions_class_order one class per region, in their order"

_ORDER = "give regions_class_order one class per region, in their order"

Where = str | Path
"""File, or field of the configuration, that declares something."""


def read_labels(declared: object, where: Where) -> Labels:
    """Read class name -> value, or list of values. The background is the class of that name, else the one of value 0.

    Raises DataError where the declaration is unusable.
    """
    values = _values_by_name(declared, where)
    is_colour = _check_kind(declared, where)
    ignored = values.pop(IGNORE, ())
    _check_distinct([*values.values(), ignored], where)
    background = BACKGROUND if BACKGROUND in values else next((n for n, found in values.items() if 0 in found), None)
    if background is None or len(values) < 2:
        raise _bad(where, f"a background (value 0, or of that name) and another class are needed, got {declared!r}")
    others = sorted((name for name in values if name != background), key=lambda name: min(values[name]))
    names = (background, *others)
    return Labels(names=names, values=tuple(values[n] for n in names), is_colour=is_colour, ignored=ignored)


def with_regions(
    labels: Labels, regions: Mapping[str, Sequence[str | int]], order: Sequence[str | int] | None, where: Where
) -> Labels:
    """Add regions: name -> its classes, each by name or value; later ones are written over earlier ones.

    ``order`` names, for each region, the class that it is written as (nnU-Net's ``regions_class_order``); by default
    the first class that no later region has. Raises DataError where they are unusable.
    """
    sets = {name: _region_classes(labels, name, members, where) for name, members in regions.items()}
    if missing := set(range(1, labels.num_classes)).difference(*sets.values()):
        names = ", ".join(labels.names[number] for number in sorted(missing))
        message = f"no region has class {names}: it could never be predicted"
        raise broken_rule("bad-regions", where, message, "add it to a region, or its value to the background's values")
    if order is not None and len(order) != len(sets):
        message = f"{len(order)} classes to write {len(sets)} regions as: {list(order)}"
        raise broken_rule("bad-regions", where, message, _ORDER)
    built = []
    for place, (name, classes) in enumerate(sets.items()):
        later = set().union(*list(sets.values())[place + 1 :])
        own = sorted(classes - later)
        written = own[0] if own else None
        if order is not None:
            written = _class_of(labels, order[place], name, where)
        if written not in classes:
            message = f"region {name} cannot be told in the label map: later regions cover it"
            if order is not None:
                message = f"regions_class_order writes region {name} as {order[place]}, which is none of its classes"
            remedy = "name larger regions first, or write each as a class of its own (regions_class_order)"
            raise broken_rule("bad-regions", where, message, remedy)
        built.append(Region(name=name, classes=tuple(sorted(classes)), written=written))
    return labels.model_copy(update={"regions": tuple(built)})


def labels_of(spec: DataSpec, read_declared: Callable[[], Labels]) -> Labels:
    """Return the classes and regions that the configuration declares, else those of the data set."""
    labels = read_declared() if spec.classes is None else read_labels(spec.classes, "data.classes")
    if spec.regions is None:
        return labels
    return with_regions(labels, spec.regions, spec.regions_class_order, "data.regions")


def read_regions(declared: Mapping[str, object], order: object, where: Where) -> Labels:
    """Read regions as nnU-Net declares them, name -> value or list of values, with ``ignore`` and the background.

    The classes are the values: named as the region that is one value alone, else by the value.
    """
    regions = _values_by_name(declared, where)
    fixed = {name: regions.pop(name) for name in (BACKGROUND, IGNORE) if name in regions}
    of_one = {values[0]: name for name, values in regions.items() if len(values) == 1}
    used = sorted({value for values in regions.values() for value in values})
    named = {of_one.get(value, str(value)): value for value in used}
    labels = read_labels(fixed | named, where)
    if order is not None and not isinstance(order, list):
        raise broken_rule("bad-regions", where, f'"regions_class_order" must be a list, got {order!r:.200}', _ORDER)
    return with_regions(labels, regions, order, where)


def value_of(value: object, where: Where) -> int:
    """Read one value: a whole number, its digits, or a colour ``#rrggbb``. Raises DataError for anything else."""
    if isinstance(value, str) and _COLOUR.fullmatch(value):
        return int(value[1:], 16)
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_VALUE:
        raise _bad(where, f"the value of a class is a whole number up to {MAX_VALUE} or a colour, got {value!r}")
    return value


def _values_by_name(declared: object, where: Where) -> dict[str, tuple[int, ...]]:
    if not isinstance(declared, Mapping) or not all(isinstance(name, str) and name for name in declared):
        raise _bad(where, f"expected class names and values, got {declared!r:.200}")
    found = {}
    for name, given in declared.items():
        found[name] = tuple(value_of(value, where) for value in (given if isinstance(given, list | tuple) else [given]))
        if not found[name]:
            raise _bad(where, f"class {name} has no value")
    return found


def _check_kind(declared: object, where: Where) -> bool:
    """Tell whether the values are colours. Raises DataError for a mixture: 255 would be the number of a blue."""
    assert isinstance(declared, Mapping)
    kinds = {isinstance(value, str) and value.startswith("#") for value in _flat(declared)}
    if len(kinds) > 1:
        raise _bad(where, f"either all values are colours or none, got {list(_flat(declared))}")
    return kinds == {True}


def _flat(declared: Mapping[str, object]) -> Iterator[object]:
    for given in declared.values():
        yield from given if isinstance(given, list | tuple) else [given]


def _check_distinct(values: Sequence[Sequence[int]], where: Where) -> None:
    counts = Counter(value for found in values for value in found)
    if twice := [value for value, count in counts.items() if count > 1]:
        raise _bad(where, f"a value stands for one class alone (data.regions overlap), given twice: {twice}")


def _region_classes(labels: Labels, name: str, members: Sequence[str | int], where: Where) -> set[int]:
    classes = {_class_of(labels, member, name, where) for member in members}
    if not classes or 0 in classes or name in (BACKGROUND, IGNORE):
        message = f"region {name} must hold classes, the background not among them, got {list(members)}"
        raise broken_rule("bad-regions", where, message, "give it the names or values of its classes")
    return classes


def _class_of(labels: Labels, member: str | int, region: str, where: Where) -> int:
    """Return the number of a class that is given by its name or by its only value."""
    if member in labels.names:
        return labels.numbers[str(member)]
    single = {labels.value_text(values[0]): i for i, values in enumerate(labels.values) if len(values) == 1}
    if (number := single.get(str(member).lower())) is None:
        message = f"region {region}: {member!r} is no class, nor the only value of one; classes are {labels.describe()}"
        raise broken_rule("bad-regions", where, message, "give it the names or values of its classes")
    return number


def _bad(where: Where, message: str) -> DataError:
    return broken_rule("bad-classes", where, message, _REMEDY)
