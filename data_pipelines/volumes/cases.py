"""Cases: the files of one subject's image and label, before anything is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from data_pipelines.digests import digest_of, try_file_digests
from data_pipelines.errors import Problem, ProblemList
from data_pipelines.files.reading import named_errors
from data_pipelines.notices import Notice
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.files import source_files


@dataclass(frozen=True, slots=True)
class Case:
    """One image (one file per channel, or one folder of DICOM slices) and its label."""

    case_id: str
    images: tuple[str, ...]
    """Paths, one per channel file; a colour PNG is one path that brings three channels."""
    label: str
    """Path of the label map."""
    subject: str
    """Cases of one subject never end up on both sides of a split."""
    text: str = ""
    """Path of a text about the image, a further input; empty: none."""
    sound: str = ""
    """Path of a WAV file, a further input; empty: none."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of everything that shapes the sample, in order."""
        return (*self.images, self.label, *filter(None, (self.text, self.sound)))


@dataclass(frozen=True, slots=True)
class Dataset:
    """Content and declarations of a raw folder, and the problems that its file names alone show."""

    name: str
    """Name of the data set, for reports."""
    cases: tuple[Case, ...]
    """Cases without a problem."""
    labels: Labels
    """Classes, and the values that stand for them in the files."""
    channels: tuple[str, ...]
    """Names of the image channels."""
    problems: tuple[Problem, ...] = ()
    splits_path: str | None = None
    """A ``splits_final.json`` found beside the data."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Licence, reference, release and the like, as the data set states them."""
    notices: tuple[Notice, ...] = ()
    """Files that the folder holds and nothing reads."""


def case_digests(cases: Iterable[Case]) -> tuple[dict[str, str], list[Problem]]:
    """Compute case_id -> digest over the bytes of its files, in order; the files of a DICOM folder by name.

    Also returns the problems of cases without a digest, one of whose files or folders cannot be read.
    """
    files: dict[str, list[Path]] = {}
    problems = ProblemList()
    for case in cases:
        with problems.collecting(case.case_id):
            files[case.case_id] = [file for path in case.paths for file in _source_files(Path(path))]
    known, errors = try_file_digests(path for paths in files.values() for path in paths)
    digests = {}
    for case_id, paths in files.items():
        unreadable = [path for path in paths if path in errors]
        for path in unreadable:
            with problems.collecting(case_id), named_errors(path):
                raise errors[path]
        if not unreadable:
            digests[case_id] = digest_of([known[path] for path in paths])
    return digests, problems


def _source_files(path: Path) -> list[Path]:
    """List the files of an image or label. Raises DataError where a folder may not be looked into."""
    try:
        return source_files(path)
    except OSError as error:
        with named_errors(path):
            raise error from None
