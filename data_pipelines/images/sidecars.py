"""Images with captions in files of their name: a.png with a.txt or a.caption, or with a.json."""

from __future__ import annotations

import posixpath
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_pipelines.errors import broken_rule, printable
from data_pipelines.images.examples import (
    CAPTION_EXTENSIONS,
    MAX_CAPTION_BYTES,
    Examples,
    assemble,
    file_captions,
)
from data_pipelines.images.kinds import foreign_format, is_image
from data_pipelines.images.loose import foreign_problems, loose_example, no_caption, one_form, strip_suffix

NO_CAPTIONS = re.compile(
    r"(readme|license|licence|notice|copying|dataset_info|requirement)s?"
    r"([-_. (]+([^\W\d_]+\d*|\d(\.\d+)+|\d)\)?)*"
)
"""Stems of text and JSON files that are about the data set, not about one image: with further words (``v10``, ``CC0``)
and versions such as ``2.0``. Other numbers are those of images: ``license_plate_042``."""


def has_sidecars(names: list[str]) -> bool:
    """Tell whether any image has a caption's file of its name."""
    known = _sidecar_stems(names)
    return any(one_form(strip_suffix(name)) in known for name in names if is_image(name) or foreign_format(name))


def find_sidecars(root: Path, names: list[str]) -> Examples:
    """Find the images below ``root`` with the ``.txt`` (first choice), ``.caption`` or ``.json`` of the same name."""
    known = _sidecar_stems(names)
    images = [name for name in names if is_image(name)]
    sidecars = {name: known[stem] for name in images if (stem := one_form(strip_suffix(name))) in known}
    examples, problems = [], foreign_problems(root, names)
    for name in images:
        with problems.collecting():
            if name not in sidecars:
                raise no_caption(root, name, f"no .{', .'.join(CAPTION_EXTENSIONS)} of its name")
    stems = {one_form(strip_suffix(name)) for name in names if is_image(name) or foreign_format(name)}
    for name in names:
        with problems.collecting():
            _check_not_orphaned(root, name, stems)
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = {name: pool.submit(_read_sidecar, root, name, sidecar) for name, sidecar in sidecars.items()}
        for name, captions in found.items():
            with problems.collecting():
                examples.append(loose_example(root, name, captions.result()))
    return assemble(root.resolve().name, examples, problems, "sidecar")


def _sidecar_stems(names: list[str]) -> dict[str, str]:
    """Map stem to caption's file; of several of one stem, the first of ``CAPTION_EXTENSIONS``."""
    found: dict[str, str] = {}
    for extension in reversed(CAPTION_EXTENSIONS):
        found |= {one_form(strip_suffix(name)): name for name in names if name.lower().endswith(f".{extension}")}
    return found


def _read_sidecar(root: Path, image: str, sidecar: str) -> tuple[str, ...]:
    """Read the captions of an image. Raises DataError where they are unusable."""
    example_id, where = printable(strip_suffix(image)), printable(str(root / sidecar))
    try:
        with (root / sidecar).open("rb") as stream:
            data = stream.read(MAX_CAPTION_BYTES + 1)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise broken_rule("unreadable", where, reason, "restore the file", example_id) from None
    return file_captions(posixpath.splitext(sidecar)[1].removeprefix("."), data, where, example_id)


def _check_not_orphaned(root: Path, name: str, stems: set[str]) -> None:
    """Raise DataError for a caption without an image; files about the whole set and img2dataset's statistics pass."""
    base = posixpath.basename(name).lower()
    is_caption = base.endswith(tuple(f".{extension}" for extension in CAPTION_EXTENSIONS))
    if not is_caption or NO_CAPTIONS.fullmatch(strip_suffix(base)) or base.endswith("_stats.json"):
        return
    if one_form(strip_suffix(name)) not in stems:
        shown, example_id = printable(str(root / name)), printable(strip_suffix(name))
        remedy = "add the image under the same name, or move this file out of the folder"
        raise broken_rule("image-missing", shown, "caption without an image", remedy, example_id)
