"""One prediction to make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Item:
    """One prediction to make."""

    row: dict[str, Any]
    """The model's input: column to value."""
    output: str
    """Path of the file it becomes."""
    files: Sequence[Path] = ()
    """Files or folders that it is made from, beside the row."""
