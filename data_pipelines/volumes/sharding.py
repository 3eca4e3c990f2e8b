"""Raw cases to checked, preprocessed samples in shards, over a Ray cluster; only new cases cost anything."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.errors import DataError, Problem, ProblemList
from data_pipelines.notices import Notice, notice, of_case
from data_pipelines.random_streams import Stream, numpy_generator
from data_pipelines.shards.incremental import Sharded, Task, group_by_size, sample_key, shard_missing
from data_pipelines.shards.index import ANNOTATED, FOREGROUND, GEOMETRY, IMAGE, MASK, SOUND, TEXT, TRUTH, Row
from data_pipelines.shards.writer import Sample, npy_bytes, shard_name, write_shard
from data_pipelines.specs import Spec
from data_pipelines.volumes.cases import Case, Dataset, case_digests
from data_pipelines.volumes.checks import CheckedCase, check_case, check_dataset
from data_pipelines.volumes.files import read_geometry
from data_pipelines.volumes.fingerprint import case_statistics, count_classes
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.leaks import copy_problems
from data_pipelines.volumes.preprocess import Preprocessing, StoredGeometry, canonical_axes, prepare, sample_axes
from data_pipelines.volumes.spacing import typical_spacing
from data_pipelines.volumes.specs import DataSpec, Spacing

FORMAT = 5
"""Version of the samples; raise it when they change for the same source and spec, and shards are made anew."""
MAX_CASES_PER_SHARD = 24
NUM_FOREGROUND_VOXELS = 2000
"""Voxel positions kept per class and case, to centre patches on."""


class Work(Spec):
    """One shard to be written: everything a task needs, small enough to send."""

    uri: str
    """URI of the shard."""
    cases: tuple[Case, ...]
    digests: tuple[str, ...]
    """Digest of each case's sample."""
    dataset: Dataset
    """Declarations of the data set; its list of cases may be empty."""
    spec: DataSpec
    spacing: Spacing | None
    """Target spacing in mm along canonical axes; None: each case keeps its own."""


def sample_digests(dataset: Dataset, spec: DataSpec, spacing: Spacing | None) -> tuple[dict[str, str], list[Problem]]:
    """Compute case_id -> digest of its id, its source bytes and everything that shapes the sample.

    Also returns the problems of cases without a digest, one of whose files cannot be read.
    """
    shaping = _shaping(dataset, spec, spacing)
    sources, problems = case_digests(dataset.cases)
    return {case_id: digest_of([shaping, case_id, source]) for case_id, source in sources.items()}, problems


def shards_folder(dataset: Dataset, spec: DataSpec, spacing: Spacing | None) -> str:
    """Return the folder, below storage, of all shards whose samples are shaped alike, and were checked alike: another
    tolerance checks every case anew."""
    return f"shards/{digest_of([_shaping(dataset, spec, spacing), tolerances(spec)])[:12]}"


def tolerances(spec: DataSpec) -> dict[str, float]:
    """Return the settings that decide whether a case is accepted, and change nothing of its sample."""
    return {"grid_tolerance": spec.grid_tolerance, "slice_tolerance_mm": spec.slice_tolerance_mm}


def _shaping(dataset: Dataset, spec: DataSpec, spacing: Spacing | None) -> dict[str, object]:
    """Return everything but the source that decides a sample's bytes."""
    return {
        "format": FORMAT,
        "preprocess": spec.preprocess.model_dump(mode="json"),
        "spacing": spacing,
        "classes": dataset.labels.model_dump(exclude={"regions"}),  # which do not change masks
        "channels": dataset.channels,
        "ndim": spec.ndim,
    }


def target_spacing(dataset: Dataset, spec: DataSpec) -> Spacing | None:
    """Return the spacing in mm to resample to, along the axes of a sample; None: each case keeps its own."""
    if spec.preprocess.spacing != "median":
        return spec.preprocess.spacing
    spacings = []
    for case in dataset.cases:
        geometry = _read_geometry(case, spec)
        if geometry is None:
            continue
        axes, _ = canonical_axes(geometry)
        spacings.append([geometry.spacing[axis] for axis in axes])
    if not spacings:
        return None
    return tuple(typical_spacing(along) for along in zip(*spacings, strict=True))


def shard_cases(
    dataset: Dataset,
    spec: DataSpec,
    shards_uri: str,
    digests: Mapping[str, str],
    spacing: Spacing | None,
) -> Sharded:
    """Check and shard every case that is not in a shard yet. Needs an initialised Ray."""
    bad = {problem.case_id for problem in dataset.problems}
    cases = {case.case_id: case for case in dataset.cases if case.case_id not in bad}

    def plan(missing: list[str]) -> list[Task]:
        return _plan([cases[case_id] for case_id in missing], dataset, spec, shards_uri, digests, spacing)

    sharded = shard_missing({case_id: digests[case_id] for case_id in cases}, shards_uri, plan, _shard_text, "cases")
    problems = ProblemList([*dataset.problems, *sharded.problems])
    with problems.collecting():
        check_dataset(dataset, {row["case_id"]: row["class_voxels"] for row in sharded.rows})
    problems += copy_problems(sharded.rows, cases)
    return Sharded(sharded.rows, problems, sharded.num_new)


def _shard_text(text: str) -> tuple[list[Row], list[Problem]]:
    return shard_one(Work.model_validate_json(text))


def shard_one(work: Work) -> tuple[list[Row], list[Problem]]:
    """Check and preprocess some cases and write the good ones as one shard; the body of a cluster task."""
    problems = ProblemList()

    def samples() -> Iterator[Sample]:
        for case, digest in zip(work.cases, work.digests, strict=True):
            with problems.collecting(case.case_id):
                yield _build_sample(case, digest, work)

    rows = write_shard(work.uri, samples())
    return rows, problems


def _build_sample(case: Case, digest: str, work: Work) -> Sample:
    """Check and preprocess a case and build its index row and parts."""
    checked, path = check_case(case, work.dataset, work.spec), case.paths[0]
    prepared = prepare(
        checked.image,
        checked.geometry,
        work.spec.preprocess,
        work.spacing,
        checked.label,
        path,
        max_voxels=work.spec.max_voxels,
    )
    assert prepared.mask is not None
    row = _index_row(checked, prepared.done, work.dataset, digest)
    notices = [*checked.notices, *vanished_classes(checked, path, prepared.mask, work.dataset.labels.numbers)]
    row["notices"] = json.dumps([one.model_dump() for one in notices])
    return row, sample_parts(checked, prepared.image, prepared.mask, prepared.done, work.dataset.labels.num_classes)


def vanished_classes(checked: CheckedCase, path: str, mask: np.ndarray, classes: Mapping[str, int]) -> list[Notice]:
    """Build a notice for each class that the label has and the prepared mask (*spatial) has no voxel of any more.

    They name the file ``path``.
    """
    before = np.bincount(checked.label.ravel(), minlength=len(classes))
    after = np.bincount(mask.ravel(), minlength=len(classes))
    messages = [
        f"class {name} ({value}) has {before[value]} voxels, and none after preprocessing: choose a finer spacing"
        for name, value in classes.items()
        if before[value] and not after[value]
    ]
    return list(of_case((notice("vanished-class", path, message) for message in messages), checked.case_id))


def read_notices(rows: Iterable[Row]) -> list[Notice]:
    """Read the notices of the cases from their index rows."""
    return [Notice.model_validate(values) for row in rows for values in json.loads(row.get("notices") or "[]")]


def sample_parts(
    checked: CheckedCase, image: np.ndarray, mask: np.ndarray, done: Preprocessing, num_classes: int
) -> dict[str, bytes]:
    """Encode the parts of one sample from the prepared image (C, *spatial) and mask (*spatial).

    The label as stored is kept only where the prepared mask cannot give it back.
    """
    parts = {
        IMAGE: npy_bytes(image),
        MASK: npy_bytes(mask),
        FOREGROUND: npy_bytes(foreground_voxels(mask, num_classes)),
        GEOMETRY: StoredGeometry.of(checked.geometry, done).to_bytes(),
    }
    if not done.is_lossless:
        parts[TRUTH] = npy_bytes(checked.label)
    if checked.text is not None:
        parts[TEXT] = checked.text.encode()
    if checked.sound is not None:
        parts[SOUND] = npy_bytes(checked.sound)
    return parts


def foreground_voxels(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """List class and voxel, (N, 1 + ndim) int32: of each class ``NUM_FOREGROUND_VOXELS`` drawn at random, or all.

    Where voxels of the mask are ignored, as many of those that are not are listed besides, as of class ``ANNOTATED``.
    The draw depends on the mask alone. Every n-th voxel instead would hit the same rows of regular structures.
    """
    highest = min(int(mask.max(initial=0)), num_classes - 1)
    places = {value: np.flatnonzero(mask == value) for value in range(1, highest + 1)}
    if (annotated := mask < num_classes).all():
        return _drawn_voxels(places, mask.shape)
    return _drawn_voxels({ANNOTATED: np.flatnonzero(annotated)} | places, mask.shape)


def _drawn_voxels(places: Mapping[int, np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """List class and voxel, (N, 1 + ndim) int32, of flat places by class."""
    rows = [np.zeros((0, 1 + len(shape)), np.int32)]
    for value, found in places.items():
        if len(found) > NUM_FOREGROUND_VOXELS:
            generator = numpy_generator(0, Stream.FOREGROUND, value)
            found = np.sort(generator.choice(found, NUM_FOREGROUND_VOXELS, replace=False))
        voxels = np.stack(np.unravel_index(found, shape), axis=1)
        rows.append(np.insert(voxels, 0, value, axis=1).astype(np.int32))
    return np.concatenate(rows)


def _index_row(checked: CheckedCase, done: Preprocessing, dataset: Dataset, digest: str) -> Row:
    num_classes = dataset.labels.num_classes
    return {
        "key": sample_key(checked.case_id),
        "case_id": checked.case_id,
        "subject": checked.subject,
        "digest": digest,
        "pixel_sha256": hashlib.sha256(checked.image.tobytes()).hexdigest(),
        "shape": list(done.shape),
        "spacing": list(done.spacing),
        "class_voxels": [int(n) for n in count_classes(checked.label, num_classes)],
        "statistics": case_statistics(checked, num_classes).model_dump_json(),
    }


def _plan(
    cases: Sequence[Case],
    dataset: Dataset,
    spec: DataSpec,
    shards_uri: str,
    digests: Mapping[str, str],
    spacing: Spacing | None,
) -> list[Task]:
    """Group cases into shards of at most ``spec.shard_megabytes``, by their headers."""
    declared = Dataset(dataset.name, (), dataset.labels, dataset.channels)  # tasks need no list of all cases
    tasks = []
    expected = partial(_expected_megabytes, dataset=dataset, spec=spec, spacing=spacing)
    for group in group_by_size(cases, expected, spec.shard_megabytes, MAX_CASES_PER_SHARD):
        chosen = tuple(digests[case.case_id] for case in group)
        uri = storage.join(shards_uri, shard_name(chosen))
        work = Work(uri=uri, cases=tuple(group), digests=chosen, dataset=declared, spec=spec, spacing=spacing)
        tasks.append(Task(text=work.model_dump_json(), num_samples=len(group)))
    return tasks


def _read_geometry(case: Case, spec: DataSpec) -> Geometry | None:
    """Read the geometry of a case's sample from its header: of an image that is stored as one slice, the two axes.

    None where it cannot be read or has another number of axes: found again, and reported, when the case is checked.
    """
    try:
        geometry = read_geometry(case.images[0], spec.max_voxels, spec.slice_tolerance_mm)
    except DataError:
        return None
    geometry = geometry.without_slice_axis() if spec.ndim == 2 else geometry
    return geometry if geometry.ndim == spec.ndim else None


def _expected_megabytes(case: Case, dataset: Dataset, spec: DataSpec, spacing: Spacing | None) -> float:
    geometry = _read_geometry(case, spec)
    if geometry is None:
        return 0.0
    voxels = float(np.prod(geometry.shape))
    if spacing is not None:
        axes, _ = sample_axes(geometry, spec.preprocess)
        voxels *= math.prod(geometry.spacing[axis] / s for axis, s in zip(axes, spacing, strict=True) if s)
    return voxels * (4 * len(dataset.channels) + 1) / 1e6
