"""Folders of one case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Files:
    """A generator and the folders that it wrote."""

    script: Path
    out: Path
    """What the generator wrote."""
    encoders: Path
    """Encoders that another case made."""
    images: Path
    """Plain captioned images that another case made."""
