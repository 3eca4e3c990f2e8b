"""Cases: which files make one subject's image and label, before anything is read."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_pipelines.errors import Problem


@dataclass(frozen=True, slots=True)
class Case:
    """One image (one file per channel, or one folder of DICOM slices) and its label."""

    case_id: str
    images: tuple[str, ...]
    """Paths, one per channel file; a colour PNG is one path that brings three channels."""
    label: str
    subject: str
    """Cases of one subject never end up on both sides of a split."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a raw folder holds and declares, and what is already wrong with it by its file names alone."""

    name: str
    cases: tuple[Case, ...]
    classes: dict[str, int]
    """Class name to label value, background first with value 0; values are 0..K-1 without holes."""
    channels: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
    splits_path: str | None = None
    """A ``splits_final.json`` found beside the data."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Licence, reference, release and the like, as the data set states them."""
