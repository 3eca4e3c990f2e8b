"""Images to restore: a file, the images of a folder and of the folders in it, or the matches of a glob."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from data_pipelines.errors import InputError
from data_pipelines.images.kinds import IMAGE_SUFFIXES, is_image
from flows.running.prediction.items import Item

TAKES_PICTURES = {"takes": "pictures"}
"""Metadata of a registered model that makes an image of an image."""


def plan_pictures(source: str, folder: Path) -> tuple[list[Item], dict[str, str]]:
    """List the predictions to make in ``folder``, PNG files of the images' names, and what is skipped with the reason.

    Raises InputError where there is nothing to predict, and where two images would become one file.
    """
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        root, entries = path, [entry for entry in path.rglob("*") if entry.is_file()]
    else:
        root, entries = path.parent, [Path(match).absolute() for match in glob.glob(str(path), recursive=True)]
    entries = [entry for entry in entries if not entry.is_relative_to(folder)]  # earlier results are no input
    visible = sorted(entry for entry in entries if not _is_hidden(entry, root))
    items, skipped = _plan(visible, root, folder), {str(e): "is no image" for e in visible if not is_image(e.name)}
    if not items:
        known = ", ".join(IMAGE_SUFFIXES)
        raise InputError(f"{source}: nothing to predict; name a file, a folder or a glob of images ({known})")
    return items, skipped


def _plan(entries: Iterable[Path], root: Path, folder: Path) -> list[Item]:
    items: dict[str, Item] = {}
    for entry in filter(lambda each: is_image(each.name), entries):
        # The manifest knows outputs by name: folders become part of it.
        relative = entry.relative_to(root) if entry.is_relative_to(root) else Path(entry.name)
        name = "_".join(relative.with_suffix("").parts)
        item = Item({"path": str(entry)}, str(folder / f"{name}.png"), [entry])
        if (other := items.setdefault(item.output.casefold(), item)) is not item:
            raise InputError(f"{other.files[0]} and {entry} have the same name; predict them into different folders")
    return list(items.values())


def _is_hidden(entry: Path, root: Path) -> bool:
    parts = entry.relative_to(root).parts if entry.is_relative_to(root) else (entry.name,)
    return any(part.startswith(".") for part in parts)
