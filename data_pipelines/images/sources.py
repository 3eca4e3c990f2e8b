"""A folder of images in any of the known layouts to its examples, before a pixel is read."""

from __future__ import annotations

import logging
import os
import posixpath
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from data_pipelines.atomic import atomic_folder
from data_pipelines.digests import digest_of
from data_pipelines.errors import ConfigError, Problem, name_some
from data_pipelines.images.classes import with_classes
from data_pipelines.images.examples import Examples, assemble
from data_pipelines.images.folders import METADATA_NAMES, find_imagefolder
from data_pipelines.images.frames import with_frames
from data_pipelines.images.kinds import is_image
from data_pipelines.images.parquet import find_parquet
from data_pipelines.images.plain import PLAIN, find_plain
from data_pipelines.images.sidecars import find_sidecars, has_sidecars
from data_pipelines.images.specs import ImageSpec
from data_pipelines.images.tars import COMPRESSED_TARS, find_tars

logger = logging.getLogger(__name__)

GENERATED_NAME = "generated shapes"
"""Name of the generated data set, for reports."""


def find_examples(spec: ImageSpec, generated_folder: str | os.PathLike[str]) -> Examples:
    """Find the examples of ``spec.root``; what names and captions alone show to be wrong is in ``Examples.problems``.

    ``layout: shapes`` writes its images below ``generated_folder`` first, or finds them there. Hidden files and folders
    are skipped. Raises ConfigError where the folder is missing or of no known layout.
    """
    if spec.layout == "shapes":
        root = _write_shapes(Path(generated_folder), spec)
        found = find_imagefolder(root, list_files(root), spec.class_from)
        return replace(with_classes(found, spec.class_from), name=GENERATED_NAME)
    if spec.layout not in ("auto", *_LAYOUTS):
        known = ", ".join(("auto", *_LAYOUTS, "shapes"))
        raise ConfigError(f"data.layout: unknown layout {spec.layout!r}; choose one of {known}")
    if not spec.root:
        raise ConfigError("data.root: name the folder of images, or choose data.layout=shapes")
    root = Path(spec.root)
    if not root.is_dir():
        raise ConfigError(f"data.root: there is no folder {root}; correct the path")
    names = list_files(root)
    if spec.layout == PLAIN and spec.min_caption_chars:
        raise ConfigError(f"data.layout: {PLAIN} has no captions, which this pipeline needs; choose another layout")
    layout = spec.layout
    if layout == "auto":
        layout = recognise_layout(root, names, is_captioned=spec.min_caption_chars > 0)
    if not _LAYOUTS[layout].fits(names):
        raise ConfigError(
            f"{root}: has nothing of layout `{layout}`. It holds: {_listing(names)}. Layouts:\n{_LOOKED_FOR}\n"
            "  -> correct data.root, or name another data.layout"
        )
    find = _LAYOUTS[layout].find
    found = find_imagefolder(root, names, spec.class_from) if find is find_imagefolder else find(root, names)
    found = with_classes(found, spec.class_from)
    if spec.frames == "all":
        named = assemble(found.name, with_frames(found.examples), found.problems, layout)
        found = replace(found, examples=named.examples, problems=named.problems)
    if found.examples or found.problems:
        return found
    remedy = "check data.root, and that the data set has been unpacked"
    return replace(found, problems=(Problem("empty-folder", str(root), "no image in it", remedy),))


def list_files(root: Path) -> list[str]:
    """List all files below ``root``, relative to it, sorted, ``/`` between parts.

    Skips hidden names. Links to folders are followed, after all other folders; one that leads to a folder that was
    listed already is skipped, with a warning, so links that form cycles end. Makes no stat call for ordinary files.
    """
    names: list[str] = []
    folders, links = deque([""]), deque[str]()
    listed: dict[tuple[int, int], str] = {}
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        found = (root / folder).stat()
        first = listed.setdefault((found.st_dev, found.st_ino), folder or ".")
        if first != (folder or "."):
            logger.warning("%s: links to a folder that is part of the data set already (%s), skipped", folder, first)
            continue
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    _sort_in(entry, posixpath.join(folder, entry.name), names, folders, links)
    return sorted(names)


def _sort_in(entry: os.DirEntry[str], name: str, names: list[str], folders: deque[str], links: deque[str]) -> None:
    """Append the name of an entry to the list that it belongs to; what is neither file nor folder is left out."""
    if entry.is_dir(follow_symlinks=False):
        folders.append(name)
    elif entry.is_file():
        names.append(name)
    elif entry.is_dir():
        links.append(name)
    elif entry.is_symlink():
        logger.warning("%s: links to nothing, skipped", name)


# --- layouts ---------------------------------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """One layout of a raw folder."""

    fits: Callable[[list[str]], bool]
    """Recognises the layout by the names of all files."""
    find: Callable[[Path, list[str]], Examples]


def _has_metadata(names: list[str]) -> bool:
    return any(posixpath.basename(name) in METADATA_NAMES for name in names)


def _has_tars(names: list[str]) -> bool:
    return any(name.endswith((".tar", *COMPRESSED_TARS)) for name in names)


def _has_parquet(names: list[str]) -> bool:
    return any(name.endswith(".parquet") for name in names)


_LAYOUTS: dict[str, _Layout] = {
    "imagefolder": _Layout(_has_metadata, find_imagefolder),
    "sidecar": _Layout(has_sidecars, find_sidecars),
    "webdataset": _Layout(_has_tars, find_tars),
    "parquet": _Layout(_has_parquet, find_parquet),
    PLAIN: _Layout(lambda names: any(map(is_image, names)), find_plain),
}
"""In the order in which they are tried: img2dataset puts a Parquet of URLs beside its tars and its loose images."""

_LOOKED_FOR = """\
  imagefolder  metadata.jsonl or metadata.csv with `file_name` and `caption` or `text`, beside images
  sidecar      a.png with a.txt or a.caption, or with a.json that holds `caption` or `text`
  webdataset   00000.tar with key.jpg and key.txt or key.json
  parquet      NAME.parquet with image bytes in `image` and captions in `caption` or `text`
  images       loose images, for pipelines that need no captions"""


def recognise_layout(root: Path, names: list[str], *, is_captioned: bool = True) -> str:
    """Return the name of the layout of ``root``. Where captions are not needed, loose images are taken without any.

    Raises ConfigError listing the known layouts where there is none.
    """
    if not is_captioned and _LAYOUTS[PLAIN].fits(names):
        return PLAIN
    for name, layout in _LAYOUTS.items():
        if name != PLAIN and layout.fits(names):
            return name
    images = sum(map(is_image, names))
    without = f"{images} images without any caption. " if images else ""
    raise ConfigError(
        f"{root}: the folder has none of the known layouts. It holds: {without}{_listing(names)}. Looked for:\n"
        f"{_LOOKED_FOR}\n  -> correct data.root, or name the layout in data.layout"
    )


def _listing(names: list[str]) -> str:
    return name_some(names, 12) or "nothing"


# --- generated images ------------------------------------------------------------------------------------------------


def _write_shapes(generated_folder: Path, spec: ImageSpec) -> Path:
    """Return the folder of the generated set, written once, complete or not at all."""
    from data_pipelines.images import shapes

    # The name carries all that the content depends on, the generator's own text included.
    wanted = [spec.num_shapes, spec.shapes_seed, spec.resolution, Path(shapes.__file__).read_text(encoding="utf-8")]
    folder = generated_folder / digest_of(wanted)[:20]
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            shapes.write_shapes(temporary, spec.num_shapes, spec.shapes_seed, spec.resolution)
    return folder
