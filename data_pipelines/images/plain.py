"""Folders of images without captions: every image below the root, whatever else lies there."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.images.examples import Examples, assemble
from data_pipelines.images.kinds import is_image
from data_pipelines.images.loose import foreign_problems, loose_example

PLAIN = "images"
"""Name of the layout."""


def find_plain(root: Path, names: list[str]) -> Examples:
    """Find all images below ``root``; ``names`` are all its files, relative to it."""
    examples = [loose_example(root, name, ("",)) for name in names if is_image(name)]
    return assemble(root.resolve().name, examples, foreign_problems(root, names), PLAIN)
