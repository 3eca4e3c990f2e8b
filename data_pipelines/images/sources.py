"""A folder of captioned images in any of the known layouts -> its examples, before a pixel is read."""

from __future__ import annotations

import os
import posixpath
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from data_pipelines.images.archives import find_parquet, find_tars
from data_pipelines.images.examples import Examples
from data_pipelines.images.folders import METADATA_NAMES, find_imagefolder, find_sidecars, has_sidecars, is_image
from data_pipelines.digests import digest_of
from data_pipelines.errors import Problem, UserError
from data_pipelines.images.specs import CaptionedSpec

_FINDERS: dict[str, Callable[[Path, list[str]], Examples]] = {
    "imagefolder": find_imagefolder,
    "sidecar": find_sidecars,
    "parquet": find_parquet,
    "webdataset": find_tars,
}

_LOOKED_FOR = """\
  imagefolder  metadata.jsonl or metadata.csv with `file_name` and `caption` or `text`, beside images
  sidecar      a.png with a.txt, or with a.json that holds `caption` or `text`
  webdataset   00000.tar with key.jpg and key.txt or key.json
  parquet      NAME.parquet with image bytes in `image` and captions in `caption` or `text`"""


def find_examples(spec: CaptionedSpec, generated_folder: str | os.PathLike[str]) -> Examples:
    """The examples of ``spec.root`` and everything that names and captions alone show to be wrong.

    ``layout: shapes`` writes its images below ``generated_folder`` first, or finds them there. Hidden files and folders
    are no data. Raises UserError where the folder is missing or of no known layout.
    """
    if spec.layout == "shapes":
        root = _write_shapes(Path(generated_folder), spec)
        return find_imagefolder(root, list_files(root))
    if not spec.root:
        raise UserError("data.root: name the folder of captioned images, or choose data.layout=shapes")
    root = Path(spec.root)
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder {root}; correct the path")
    names = list_files(root)
    layout = recognise_layout(root, names) if spec.layout == "auto" else spec.layout
    if spec.layout != "auto" and not _LAYOUT_TESTS[layout](names):
        raise UserError(
            f"{root}: has nothing of layout `{layout}`. It holds: {_listing(names)}. Layouts:\n{_LOOKED_FOR}\n"
            "  -> correct data.root, or name another data.layout"
        )
    found = _FINDERS[layout](root, names)
    if found.examples or found.problems:
        return found
    remedy = "check data.root, and that the data set has been unpacked"
    return Examples(found.name, (), (Problem("empty-folder", str(root), "no captioned image in it", remedy),))


def list_files(root: Path) -> list[str]:
    """Sorted paths of all files below ``root``, relative to it, ``/`` between parts.

    Nothing hidden, and no links to folders, which may lead round in circles. No stat call for ordinary files.
    """
    names: list[str] = []
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                name = posixpath.join(folder, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)
                elif entry.is_file():
                    names.append(name)
    return sorted(names)


# --- layouts ---------------------------------------------------------------------------------------------------------

_LAYOUT_TESTS: dict[str, Callable[[list[str]], bool]] = {
    "imagefolder": lambda names: any(posixpath.basename(name) in METADATA_NAMES for name in names),
    "sidecar": has_sidecars,
    "webdataset": lambda names: any(name.endswith(".tar") for name in names),
    "parquet": lambda names: any(name.endswith(".parquet") for name in names),
}
"""In the order in which they are tried: img2dataset puts a Parquet of URLs beside its tars and its loose images."""


def recognise_layout(root: Path, names: list[str]) -> str:
    """Name of the layout of ``root``; UserError listing what was looked for where there is none."""
    for layout, fits in _LAYOUT_TESTS.items():
        if fits(names):
            return layout
    images = sum(map(is_image, names))
    without = f"{images} images without any caption. " if images else ""
    raise UserError(
        f"{root}: the folder has none of the known layouts. It holds: {without}{_listing(names)}. Looked for:\n"
        f"{_LOOKED_FOR}\n  -> correct data.root, or name the layout in data.layout"
    )


def _listing(names: list[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "nothing"


# --- generated images ------------------------------------------------------------------------------------------------


def _write_shapes(generated_folder: Path, spec: CaptionedSpec) -> Path:
    """The folder of the generated set; written once, and there complete or not at all."""
    from data_pipelines.images import shapes

    # The name carries all that the content depends on, the generator's own text included.
    wanted = [spec.num_shapes, spec.shapes_seed, spec.resolution, Path(shapes.__file__).read_text(encoding="utf-8")]
    folder = generated_folder / digest_of(wanted)[:20]
    if folder.is_dir():
        return folder
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        temporary.mkdir(parents=True)
        shapes.write_shapes(temporary, spec.num_shapes, spec.shapes_seed, spec.resolution)
        try:
            temporary.rename(folder)  # fails on a folder that is not empty
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
