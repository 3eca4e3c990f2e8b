"""Declarations of regions, which may overlap, to ``Labels``; and whose declarations count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from data_pipelines.errors import DataError, broken_rule
from data_pipelines.volumes.classes import BACKGROUND, IGNORE, MEAN, Labels, Region
from data_pipelines.volumes.sources.labels import Where, read_labels, read_values
from data_pipelines.volumes.specs import DataSpec

_MEMBERS = "give it the names or values of its classes"
_ORDER = "give regions_class_order one class per region, in their order"
_RENAME = "give it another name"
_LARGER_FIRST = "name larger regions first, or write each as a class of its own (regions_class_order)"


def with_regions(
    labels: Labels, regions: Mapping[str, Sequence[str | int]], order: Sequence[str | int] | None, where: Where
) -> Labels:
    """Add regions: name -> its classes, each by name or value; later ones are written over earlier ones.

    ``order`` names, for each region, the class that it is written as (nnU-Net's ``regions_class_order``); by default
    the first class that no later region has. Raises DataError where they are unusable.
    """
    if MEAN in regions:
        raise _bad(where, f"no region can be named {MEAN}: scores under it are the mean over the regions", _RENAME)
    sets = {name: _classes_of(labels, name, members, where) for name, members in regions.items()}
    if missing := set(range(1, labels.num_classes)).difference(*sets.values()):
        names = ", ".join(labels.names[number] for number in sorted(missing))
        message = f"no region has class {names}: it could never be predicted"
        raise _bad(where, message, "add it to a region, or its value to the background's values")
    written = _first_classes(sets, where) if order is None else _ordered_classes(labels, sets, order, where)
    built = [
        Region(name=name, classes=tuple(sorted(classes)), written=number)
        for (name, classes), number in zip(sets.items(), written, strict=True)
    ]
    return labels.model_copy(update={"regions": tuple(built)})


def read_regions(declared: Mapping[str, object], order: object, where: Where) -> Labels:
    """Read regions as nnU-Net declares them, name -> value or list of values, with ``ignore`` and the background.

    The classes are the values: named as the region that is one value alone, else by the value.
    """
    if order is not None and not isinstance(order, list):
        raise _bad(where, f'"regions_class_order" must be a list, got {order!r:.200}', _ORDER)
    regions = read_values(declared, where)
    fixed = {name: regions.pop(name) for name in (BACKGROUND, IGNORE) if name in regions}
    of_one = {values[0]: name for name, values in regions.items() if len(values) == 1}
    used = sorted({value for values in regions.values() for value in values})
    named = {of_one.get(value, str(value)): value for value in used}
    return with_regions(read_labels(fixed | named, where), regions, order, where)


def labels_of(spec: DataSpec, read_declared: Callable[[], Labels]) -> Labels:
    """Return the classes and regions that the configuration declares, else those of the data set."""
    labels = read_declared() if spec.classes is None else read_labels(spec.classes, "data.classes")
    if spec.regions is None:
        return labels
    return with_regions(labels, spec.regions, spec.regions_class_order, "data.regions")


def _first_classes(sets: Mapping[str, set[int]], where: Where) -> list[int]:
    """Find the first class of each region that no later one has. Raises DataError where there is none."""
    written, later = [], set[int]()
    for name, classes in reversed(list(sets.items())):
        if not (own := classes - later):
            raise _bad(where, f"region {name} cannot be told in the label map: later regions cover it", _LARGER_FIRST)
        written.append(min(own))
        later |= classes
    return written[::-1]


def _ordered_classes(
    labels: Labels, sets: Mapping[str, set[int]], order: Sequence[str | int], where: Where
) -> list[int]:
    """Find the classes that ``order`` names. Raises DataError where one is none of its region."""
    if len(order) != len(sets):
        raise _bad(where, f"{len(order)} classes to write {len(sets)} regions as: {list(order)}", _ORDER)
    written = [_class_of(labels, member, name, where) for name, member in zip(sets, order, strict=True)]
    for (name, classes), number, member in zip(sets.items(), written, order, strict=True):
        if number not in classes:
            message = f"regions_class_order writes region {name} as {member}, which is none of its classes"
            raise _bad(where, message, _LARGER_FIRST)
    return written


def _classes_of(labels: Labels, name: str, members: Sequence[str | int], where: Where) -> set[int]:
    classes = {_class_of(labels, member, name, where) for member in members}
    if not classes or 0 in classes or name in (BACKGROUND, IGNORE):
        message = f"region {name} must hold classes, the background not among them, got {list(members)}"
        raise _bad(where, message, _MEMBERS)
    return classes


def _class_of(labels: Labels, member: str | int, region: str, where: Where) -> int:
    """Return the number of a class that is given by its name or by its only value."""
    if member in labels.names:
        return labels.numbers[str(member)]
    single = {labels.value_text(values[0]): i for i, values in enumerate(labels.values) if len(values) == 1}
    if (number := single.get(str(member).lower())) is None:
        message = f"region {region}: {member!r} is no class, nor the only value of one; classes are {labels.describe()}"
        raise _bad(where, message, _MEMBERS)
    return number


def _bad(where: Where, message: str, remedy: str) -> DataError:
    return broken_rule("bad-regions", where, message, remedy)
