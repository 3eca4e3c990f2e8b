"""Raw cases -> checked, preprocessed, sharded samples, spread over a Ray cluster; only new cases cost anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from data_pipelines import storage
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.checks import CheckedCase, check_case, check_dataset
from data_pipelines.volumes.cases import case_digests
from data_pipelines.digests import digest_of
from data_pipelines.errors import Problem
from data_pipelines.volumes.fingerprint import case_statistics
from data_pipelines.shards.incremental import Sharded, Task, group_by_size, sample_key, shard_missing
from data_pipelines.shards.index import build_index
from data_pipelines.volumes.preprocess import Prepared, prepare
from data_pipelines.shards.writer import npy_bytes, shard_name, write_shard
from data_pipelines.volumes.specs import DataSpec
from data_pipelines.files.reading import VolumeError
from data_pipelines.volumes.files import read_geometry

__all__ = [
    "Sharded",
    "Work",
    "build_index",
    "sample_digests",
    "sample_key",
    "shard_cases",
    "shard_one",
    "shards_folder",
    "target_spacing",
]

FORMAT = 1
"""Raise when samples change for the same source and spec: former shards are then left alone and not reused."""
MAX_CASES_PER_SHARD = 24
NUM_FOREGROUND_VOXELS = 2000
"""Voxel positions kept per class and case, to centre patches on."""


@dataclass(frozen=True, slots=True)
class Work:
    """One shard to be written: everything a task needs, small enough to send."""

    uri: str
    cases: tuple[Case, ...]
    digests: tuple[str, ...]
    dataset: Dataset
    spec: DataSpec
    spacing: tuple[float, ...] | None

    def to_json(self) -> str:
        """As text: what travels between processes is data, not pickles."""
        return json.dumps(asdict(self) | {"spec": self.spec.model_dump(mode="json")})

    @classmethod
    def from_json(cls, text: str) -> Work:
        """The inverse of ``to_json``."""
        values = json.loads(text)
        return cls(
            uri=values["uri"],
            cases=tuple(Case(**{**case, "images": tuple(case["images"])}) for case in values["cases"]),
            digests=tuple(values["digests"]),
            dataset=Dataset(
                values["dataset"]["name"], (), values["dataset"]["classes"], tuple(values["dataset"]["channels"])
            ),
            spec=DataSpec.model_validate(values["spec"]),
            spacing=None if values["spacing"] is None else tuple(values["spacing"]),
        )


def sample_digests(dataset: Dataset, spec: DataSpec, spacing: tuple[float, ...] | None) -> dict[str, str]:
    """case_id -> digest of its id, its source bytes and everything that shapes the sample."""
    shaping = _shaping(dataset, spec, spacing)
    return {case_id: digest_of([shaping, case_id, source]) for case_id, source in case_digests(dataset.cases).items()}


def shards_folder(dataset: Dataset, spec: DataSpec, spacing: tuple[float, ...] | None) -> str:
    """Folder, below storage, of all shards whose samples are shaped alike."""
    return f"shards/{digest_of(_shaping(dataset, spec, spacing))[:12]}"


def _shaping(dataset: Dataset, spec: DataSpec, spacing: tuple[float, ...] | None) -> dict[str, Any]:
    """Everything but the source that decides a sample's bytes."""
    return {
        "format": FORMAT,
        "preprocess": spec.preprocess.model_dump(mode="json"),
        "spacing": spacing,
        "classes": dataset.classes,
        "channels": dataset.channels,
        "ndim": spec.ndim,
    }


def target_spacing(dataset: Dataset, spec: DataSpec) -> tuple[float, ...] | None:
    """The spacing in mm to resample to, canonical axes; the median is rounded so that few new cases do not move it."""
    if spec.preprocess.spacing != "median":
        return spec.preprocess.spacing
    from data_pipelines.volumes.preprocess import canonical_axes

    spacings = []
    for case in dataset.cases:
        try:
            geometry = read_geometry(case.images[0], spec.max_voxels)
        except VolumeError:
            continue  # found again, and reported, when the case is read
        axes, _ = canonical_axes(geometry)
        spacings.append([geometry.spacing[axis] for axis in axes])
    if not spacings:
        return None
    return tuple(float(f"{value:.2g}") for value in np.median(spacings, axis=0))


def shard_cases(
    dataset: Dataset,
    spec: DataSpec,
    shards_uri: str,
    digests: Mapping[str, str],
    spacing: tuple[float, ...] | None,
) -> Sharded:
    """Check and shard every case that is not in a shard yet. Needs an initialised Ray."""
    bad = {problem.case_id for problem in dataset.problems}
    cases = {case.case_id: case for case in dataset.cases if case.case_id not in bad}

    def plan(missing: list[str]) -> list[Task]:
        return _plan([cases[case_id] for case_id in missing], dataset, spec, shards_uri, digests, spacing)

    sharded = shard_missing({case_id: digests[case_id] for case_id in cases}, shards_uri, plan, _shard_text, "cases")
    problems = [*dataset.problems, *sharded.problems]
    problems += check_dataset(dataset, {row["case_id"]: row["class_voxels"] for row in sharded.rows})
    return Sharded(sharded.rows, problems, sharded.num_new)


def _shard_text(text: str) -> tuple[list[dict[str, Any]], list[Problem]]:
    return shard_one(Work.from_json(text))


def shard_one(work: Work) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Check and preprocess some cases and write the good ones as one shard; the body of a cluster task."""
    problems: list[Problem] = []

    def samples() -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
        for case, digest in zip(work.cases, work.digests, strict=True):
            checked = check_case(case, work.dataset, work.spec)
            if isinstance(checked, CheckedCase):
                prepared = prepare(checked.image, checked.geometry, work.spec.preprocess, work.spacing, checked.label)
                yield _index_row(checked, prepared, work, digest), sample_parts(checked, prepared)
            else:
                problems.extend(checked)

    rows = write_shard(work.uri, samples())
    return rows, problems


def sample_parts(checked: CheckedCase, prepared: Prepared) -> dict[str, bytes]:
    """The tar members of one sample: extension to bytes.

    ``truth.npy`` is the label as stored, kept only where the prepared mask cannot give it back.
    """
    assert prepared.mask is not None
    parts = {
        "image.npy": npy_bytes(prepared.image),
        "mask.npy": npy_bytes(prepared.mask),
        "foreground.npy": npy_bytes(foreground_voxels(prepared.mask)),
        "geometry.json": json.dumps({**prepared.done.to_json(), "affine": checked.geometry.affine}).encode(),
    }
    if not prepared.done.is_lossless:
        parts["truth.npy"] = npy_bytes(checked.label)
    return parts


def foreground_voxels(mask: np.ndarray) -> np.ndarray:
    """(N, 1 + ndim) int16 rows of class and voxel, up to ``NUM_FOREGROUND_VOXELS`` of each class, evenly spread."""
    rows = []
    for value in range(1, int(mask.max(initial=0)) + 1):
        voxels = np.argwhere(mask == value)
        step = max(-(-len(voxels) // NUM_FOREGROUND_VOXELS), 1)
        chosen = voxels[::step]
        rows.append(np.concatenate([np.full((len(chosen), 1), value), chosen], axis=1))
    return np.concatenate(rows).astype(np.int16) if rows else np.zeros((0, 1 + mask.ndim), np.int16)


def _index_row(checked: CheckedCase, prepared: Prepared, work: Work, digest: str) -> dict[str, Any]:
    assert prepared.mask is not None
    statistics = case_statistics(checked, len(work.dataset.classes))
    return {
        "key": sample_key(checked.case_id),
        "case_id": checked.case_id,
        "subject": checked.subject,
        "digest": digest,
        "shape": list(prepared.mask.shape),
        "spacing": list(prepared.done.spacing),
        "class_voxels": [int(n) for n in np.bincount(checked.label.ravel(), minlength=len(work.dataset.classes))],
        "statistics": statistics.model_dump_json(),
    }


def _plan(
    cases: Sequence[Case],
    dataset: Dataset,
    spec: DataSpec,
    shards_uri: str,
    digests: Mapping[str, str],
    spacing: tuple[float, ...] | None,
) -> list[Task]:
    """Group cases into shards of at most ``spec.shard_megabytes``, by their headers."""
    declared = Dataset(dataset.name, (), dataset.classes, dataset.channels)  # tasks need no list of all cases
    tasks = []
    expected = partial(_expected_megabytes, dataset=dataset, spec=spec, spacing=spacing)
    for group in group_by_size(cases, expected, spec.shard_megabytes, MAX_CASES_PER_SHARD):
        chosen = tuple(digests[case.case_id] for case in group)
        uri = storage.join(shards_uri, shard_name(chosen))
        work = Work(uri, tuple(group), chosen, declared, spec, spacing)
        tasks.append(Task(work.to_json(), len(group)))
    return tasks


def _expected_megabytes(case: Case, dataset: Dataset, spec: DataSpec, spacing: tuple[float, ...] | None) -> float:
    try:
        geometry = read_geometry(case.images[0], spec.max_voxels)
    except VolumeError:
        return 0.0  # found again, and reported, when the case is read
    voxels = float(np.prod(geometry.shape))
    if spacing is not None:
        voxels *= float(np.prod(geometry.spacing) / np.prod(spacing))
    return voxels * (4 * len(dataset.channels) + 1) / 1e6
