"""Sharding volumes against reading and writing them bare."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np

from data_pipelines.digests import digest_of
from data_pipelines.volumes.sharding import Work, shard_one
from data_pipelines.volumes.sources.find import find_cases
from data_pipelines.volumes.specs import DataSpec
from tests.benchmarks.timing import alternate, table

NUM_CASES = 48


def run(folder: Path) -> None:
    """Print volumes per second of one process; Ray Data spreads the same function over the cluster."""
    spec = DataSpec(layout="phantoms", num_phantoms=NUM_CASES)
    dataset = find_cases(spec, folder / "raw")
    digests = tuple(digest_of(case.case_id) for case in dataset.cases)

    def ours() -> int:
        shutil.rmtree(folder / "shards", ignore_errors=True)
        uri = str(folder / "shards" / "0.tar")
        work = Work(uri=uri, cases=dataset.cases, digests=digests, dataset=dataset, spec=spec, spacing=None)
        rows, problems = shard_one(work)
        assert len(rows) == NUM_CASES
        assert not problems
        return NUM_CASES

    def bare() -> int:
        target = folder / "bare"
        target.mkdir(exist_ok=True)
        for case in dataset.cases:
            image = np.asarray(nibabel.load(case.images[0]).dataobj, dtype=np.float32)
            label = np.asarray(nibabel.load(case.label).dataobj, dtype=np.uint8)
            np.save(target / f"{case.case_id}.npy", image)
            np.save(target / f"{case.case_id}-label.npy", label)
        return NUM_CASES

    rates = alternate({"unetflow (checks, preprocessing, tar, index)": ours, "nibabel + np.save": bare})
    print(table("sharding, one process", "volumes/s", rates, "unetflow (checks, preprocessing, tar, index)", "-"))
