"""Names of classes that are told apart by their side: mirrored right-left, they would be wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

WORDS = {"left", "right"}
LETTERS = {"l", "r", "lh", "rh", "lt", "rt"}
"""Abbreviations: of a side, of a hemisphere."""
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
"""Words of ``kidney_left``, ``KidneyLeft`` and ``hippocampusR``."""


def sided_names(names: Sequence[str]) -> list[str]:
    """Return the names that hold a side as a word of its own, or that differ from another name in the side alone."""
    lower = {name.lower() for name in names}
    return [name for name in names if _has_word(name) or _other_side(name.lower()) in lower - {name.lower()}]


def _has_word(name: str) -> bool:
    tokens = [*_TOKEN.findall(name.strip()), ""]
    # A letter before a number is no side: L1 to L5 are vertebrae.
    return any(
        token.lower() in WORDS or (token.lower() in LETTERS and not after.isdigit())
        for token, after in pairwise(tokens)
    )


def _other_side(name: str) -> str:
    """Exchange left and right in a name in small letters, such as ``leftkidney``."""
    return re.sub("left|right", lambda found: "right" if found[0] == "left" else "left", name)
