"""Loose image files: their names, ids and what they share in every layout."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Collection
from pathlib import Path

from data_pipelines.errors import DataError, ProblemList, broken_rule, printable
from data_pipelines.images.examples import Example
from data_pipelines.images.kinds import foreign_format, is_image, not_supported


def strip_suffix(name: str) -> str:
    """Remove the suffix: ``a/b.png`` -> ``a/b``."""
    return posixpath.splitext(name)[0]


def no_caption(root: Path, name: str, reason: str) -> DataError:
    """Build the error of an image without a caption."""
    shown, example_id = printable(str(root / name)), printable(strip_suffix(name))
    remedy = "write its caption, or move the image out of the folder"
    return broken_rule("caption-missing", shown, f"image without a caption: {reason}", remedy, example_id)


def loose_example(root: Path, name: str, captions: tuple[str, ...]) -> Example:
    """Build the example of an image file with one caption or several."""
    first, *more = captions
    return Example(strip_suffix(name), str(root / name), part=None, caption=first, more_captions=tuple(more))


def foreign_problems(root: Path, names: list[str], named: Collection[str] = ()) -> ProblemList:
    """List the images of unsupported formats that are not ``named`` elsewhere.

    Beside a supported image of the same name, one is taken for its source, and passes.
    """
    stems = {strip_suffix(name) for name in names if is_image(name)}
    problems = ProblemList()
    for name in filter(foreign_format, names):
        with problems.collecting():
            if name not in named and strip_suffix(name) not in stems:
                raise not_supported(printable(str(root / name)), name, printable(strip_suffix(name)))
    return problems


def one_form(name: str) -> str:
    """Write a name in one form of Unicode: file systems differ in it."""
    return unicodedata.normalize("NFC", name)
