"""Images to restore: a file, the images of a folder and of the folders in it, or the matches of a glob."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_pipelines.errors import InputError
from data_pipelines.images.kinds import IMAGE_SUFFIXES, is_image
from data_pipelines.images.sources import list_files
from flows.pipelines.restoration.clips import group_frames
from flows.running.prediction.items import Item

TAKES_PICTURES = {"takes": "pictures"}
"""Metadata of a registered model that makes an image of an image."""


def plan_pictures(source: str, folder: Path) -> tuple[list[Item], dict[str, str]]:
    """List the predictions to make in ``folder``, PNG files of the images' names, and what is skipped with the reason.

    A folder is read as training reads it: links to folders are followed. A name that is no file may be a glob.

    Raises InputError where there is nothing to predict, and where two images would become one file.
    """
    path, root = Path(source).expanduser().absolute(), find_root(source)
    if path.is_dir():
        entries = [path / name for name in list_files(path)]
    elif path.is_file():
        entries = [path]
    else:
        entries = [Path(match).absolute() for match in glob.glob(str(path), recursive=True)]
    if root == folder and not path.is_file():  # a folder, or a glob of its images
        raise InputError(f"{source}: predictions would lie among their inputs; name another output folder")
    if not path.is_relative_to(folder):
        entries = [entry for entry in entries if not entry.is_relative_to(folder)]  # earlier results are no input
    visible = sorted(entry for entry in entries if not _is_hidden(entry, root))
    items, skipped = _plan(visible, root, folder), {str(e): "is no image" for e in visible if not is_image(e.name)}
    if not items:
        known = ", ".join(IMAGE_SUFFIXES)
        raise InputError(f"{source}: nothing to predict; name a file, a folder or a glob of images ({known})")
    return items, skipped


def find_root(source: str) -> Path:
    """Return the folder that the ids of a source's images begin in: the source, or the folder of a file or glob."""
    path = Path(source).expanduser().absolute()
    return path if path.is_dir() else path.parent


def find_frames(items: Sequence[Item], root: Path, pattern: str) -> dict[str, list[Item]]:
    """Find the clips among images by the rule of training: name of each to its frames in order, two or more.

    ``pattern`` is searched in ids as training has them: paths below ``root`` without suffix. Where it is in none of
    them, ``root`` may itself be the folder of a clip, and its name is put before them. Images that it is not found in
    are no frames.
    """
    if not pattern:
        return {}
    ids = {number: _id(item.files[0], root) for number, item in enumerate(items)}
    found = _matching(ids, pattern) or _matching({n: f"{root.name}/{name}" for n, name in ids.items()}, pattern)
    groups = group_frames(found, pattern)
    return {clip: [items[number] for number in frames] for clip, frames in groups.items() if len(frames) > 1}


def _matching(ids: dict[int, str], pattern: str) -> dict[int, str]:
    return {number: name for number, name in ids.items() if re.search(pattern, name)}


def _id(entry: Path, root: Path) -> str:
    relative = entry.relative_to(root) if entry.is_relative_to(root) else Path(entry.name)
    return relative.with_suffix("").as_posix()


def _plan(entries: Iterable[Path], root: Path, folder: Path) -> list[Item]:
    items: dict[str, Item] = {}
    for entry in filter(lambda each: is_image(each.name), entries):
        name = _id(entry, root).replace("/", "_")  # the manifest knows outputs by name: folders become part of it
        item = Item({"path": str(entry)}, str(folder / f"{name}.png"), [entry])
        if (other := items.setdefault(item.output.casefold(), item)) is not item:
            raise InputError(f"{other.files[0]} and {entry} have the same name; predict them into different folders")
    return list(items.values())


def _is_hidden(entry: Path, root: Path) -> bool:
    parts = entry.relative_to(root).parts if entry.is_relative_to(root) else (entry.name,)
    return any(part.startswith(".") for part in parts)
