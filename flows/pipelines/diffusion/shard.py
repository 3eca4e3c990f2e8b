"""Stage ``shard`` of the second pipeline: captioned images -> WebDataset shards and their index."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from data_pipelines import storage
from data_pipelines.images.sharding import example_digests, examples_folder, shard_examples, split_examples
from data_pipelines.images.sources import find_examples
from data_pipelines.errors import DataError
from data_pipelines.shards.index import build_index
from data_pipelines.images.specs import CaptionedSpec
from flows.cluster.connection import ensure_ray
from flows.stages.shards import add_index, add_problems, shards_are_there
from flows.stages.attempt import Attempt
from flows.stages.stage import Stage

LOCATION = {"root", "layout", "shard_megabytes", "num_shapes", "shapes_seed"}
"""Fields that say where examples come from or how shards are cut; the digests of the examples stand for them."""


def shard_stage(spec: CaptionedSpec, root: str, num_cpus: int | None = None) -> Stage:
    """Plan the stage: look at the source files and their digests, decode nothing.

    ``num_cpus`` is what later stages will want of a Ray that is started here.
    """
    examples = find_examples(spec, storage.cache_folder() / "generated")
    if spec.on_error == "stop" and not examples.examples and examples.problems:
        raise DataError(examples.problems)
    digests = example_digests(examples, spec)
    folder = examples_folder(spec)
    unused = {"bucket_multiple"} if spec.crop == "square" else set()
    identity = {
        "examples": digests,
        "problems": [asdict(problem) for problem in examples.problems],
        "rules": spec.model_dump(mode="json", exclude=LOCATION | unused),
    }

    def compute(attempt: Attempt) -> None:
        ensure_ray(num_cpus)
        sharded = shard_examples(examples, spec, storage.join(root, folder), digests)
        if sharded.problems and spec.on_error == "stop":
            raise DataError(sharded.problems)
        splits = split_examples(sharded.rows, spec)
        add_index(attempt, build_index(sharded.rows, splits), root, folder)
        add_problems(attempt, sharded.problems)
        attempt.figures |= {
            "num_new": sharded.num_new,
            "num_quarantined": len({problem.case_id for problem in sharded.problems if problem.case_id}),
            "left_out": sharded.left_out,
            "buckets": dict(
                Counter(row["bucket"] for row in sharded.rows if splits[row["case_id"]] == "train").most_common()
            ),
            "resolution": spec.resolution,
            "dataset": examples.name,
        }

    return Stage("shard", identity, (), compute, still_holds=shards_are_there)
