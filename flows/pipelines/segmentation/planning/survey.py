"""Survey of a folder of cases: every case is read and checked once, as sharding does."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from data_pipelines.cores import count_cpus
from data_pipelines.errors import ConfigError, DataError, Problem, ProblemList
from data_pipelines.loading.order import evenly_spaced
from data_pipelines.progress import track
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.checks import check_case
from data_pipelines.volumes.files import read_geometry
from data_pipelines.volumes.fingerprint import CaseStatistics, Fingerprint, case_statistics, merge_statistics, ras_axes
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.preprocess import find_foreground
from data_pipelines.volumes.sources.find import find_cases
from data_pipelines.volumes.specs import DataSpec
from data_pipelines.volumes.splits import assign_splits
from flows.pipelines.segmentation.planning.candidates import Images
from flows.pipelines.segmentation.planning.masks import guess_classes

AIR, MIN_AIR = (-1100, -900), 0.01
"""Hounsfield units of air, and the share of a CT's voxels that have them at least."""
NUM_HEADERS = 25
"""Cases whose headers say whether the data set is of images or of volumes."""
UNNAMED = re.compile(r"channel_\d+|image")
"""Names of channels that nothing declares; ``image`` is that of a DICOM series."""
CROPPED_SHARE = 0.95
"""Share of the median image that a foreground crop must leave at most to be planned."""


@dataclass(frozen=True, slots=True)
class SurveyedCase:
    """Usable case."""

    statistics: CaseStatistics
    cropped: tuple[int, ...]
    """Voxels per axis, in RAS order, that a foreground crop leaves."""
    air: tuple[bool, ...] = ()
    """True for each channel that has as many voxels of air as a CT."""
    right_left: int | None = 0
    """Axis of the sample that runs from right to left; None: none does, as in a sagittal slice."""

    @property
    def kept_share(self) -> float:
        """Share of the voxels that a foreground crop leaves."""
        return math.prod(self.cropped) / math.prod(self.statistics.shape)


@dataclass(frozen=True, slots=True)
class Survey:
    """Data set as planning sees it."""

    dataset: Dataset
    spec: DataSpec
    """How it is read: number of axes, and classes where nothing declares them."""
    cases: tuple[SurveyedCase, ...]
    fingerprint: Fingerprint
    problems: tuple[Problem, ...]
    """Problems of the cases that are left out."""
    num_held_out: int
    """Usable cases that fold 0 holds out; where sharding will refuse the split, a fold's usual share."""

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return self.spec.ndim

    @property
    def guessed_ct(self) -> tuple[bool, ...]:
        """Which channels, named by nothing, must be CT: those with air, in Hounsfield units, in every case."""
        names = enumerate(self.dataset.channels)
        return tuple(
            bool(UNNAMED.fullmatch(name)) and all(case.air[index] for case in self.cases) for index, name in names
        )

    @property
    def kept_share(self) -> float:
        """Median share of voxels that a foreground crop leaves."""
        return median(case.kept_share for case in self.cases)

    @property
    def is_cropped(self) -> bool:
        """Tell whether a foreground crop is worth it."""
        return self.ndim == 3 and self.kept_share <= CROPPED_SHARE

    def images(self) -> Images:
        """Return what sizes are planned for."""
        shapes = [case.cropped if self.is_cropped else case.statistics.shape for case in self.cases]
        return Images([case.statistics.spacing for case in self.cases], shapes, self.dataset.labels.num_outputs)


def survey(root: Path) -> Survey:
    """Read all cases of a folder. Raises DataError where none is usable, ConfigError where the layout is unknown."""
    spec = DataSpec(root=str(root), ndim=2 if _is_flat(root) else 3, classes=guess_classes(root))
    dataset = find_cases(spec)
    problems = ProblemList(dataset.problems)
    found = list(_iter_statistics(dataset, spec, problems))
    if not found:
        raise DataError(problems) if problems else ConfigError(f"{root}: there is no case to plan for")
    fingerprint = merge_statistics([case.statistics for case in found], dataset.labels.numbers, dataset.channels)
    held_out = _count_held_out(dataset, spec, {case.statistics.case_id for case in found})
    return Survey(dataset, spec, tuple(found), fingerprint, tuple(problems), held_out)


def _count_held_out(dataset: Dataset, spec: DataSpec, usable: set[str]) -> int:
    left_out = {case.case_id for case in dataset.cases} - usable
    try:
        sides = assign_splits(dataset, spec, left_out).sides
    except (ConfigError, DataError):
        return math.ceil(len(usable) / spec.num_folds)
    return sum(side == "val" for side in sides.values())


def _is_flat(root: Path) -> bool:
    """Tell images from volumes: what most cases are by their headers, of which a few are read."""
    spec = DataSpec(root=str(root))
    votes = []
    for case in evenly_spaced(find_cases(spec).cases, NUM_HEADERS):
        try:
            shape = read_geometry(case.images[0], spec.max_voxels, spec.slice_tolerance_mm).shape
        except DataError:
            continue  # reported when all cases are read
        votes.append(len(shape) == 2 or shape[2] == 1)
    return sum(votes) * 2 > len(votes)


def _iter_statistics(dataset: Dataset, spec: DataSpec, problems: ProblemList) -> Iterator[SurveyedCase]:
    """Yield the statistics of the cases that keep every rule; what the others break goes to ``problems``."""
    declared = Dataset(dataset.name, (), dataset.labels, dataset.channels)
    read = partial(_statistics, dataset=declared, spec=spec)
    with ProcessPoolExecutor(count_cpus()) as pool:
        results = ((1, result) for result in pool.map(read, dataset.cases))
        for result in track(results, "plan", "cases", len(dataset.cases)):
            if isinstance(result, SurveyedCase):
                yield result
            else:
                problems += result


def _statistics(case: Case, dataset: Dataset, spec: DataSpec) -> SurveyedCase | list[Problem]:
    try:
        checked = check_case(case, dataset, spec)
        statistics = case_statistics(checked, dataset.labels.num_classes)
        stored = [stop - start for start, stop in find_foreground(checked.image)]
        air = [float(((channel >= AIR[0]) & (channel <= AIR[1])).mean()) >= MIN_AIR for channel in checked.image]
        cropped = tuple(stored[axis] for axis in ras_axes(checked.geometry))
        return SurveyedCase(statistics, cropped, tuple(air), _right_left(checked.geometry))
    except DataError as error:
        return list(error.problems)


def _right_left(geometry: Geometry) -> int | None:
    """Return the axis of a sample that runs from right to left: of a volume the first, of a picture its columns, of a
    slice with an affine, whose axes stay as they are stored, the one that says so."""
    if geometry.ndim == 3:
        return 0
    if geometry.affine is None:
        return 1
    from nibabel.orientations import io_orientation

    nearest = io_orientation(geometry.affine_array())[:2, 0].tolist()
    return nearest.index(0) if 0 in nearest else None
