"""Stage ``shard``: images to WebDataset shards and their index."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Literal

from pydantic import Field

from data_pipelines import storage
from data_pipelines.errors import DataError
from data_pipelines.images.changes import CHANGES, TRAINED_ON
from data_pipelines.images.sharding import example_digests, examples_folder, shard_examples
from data_pipelines.images.sources import find_examples
from data_pipelines.images.specs import ImageSpec
from data_pipelines.images.splits import TEST, Side, count_trained_on, given_splits, split_examples
from data_pipelines.shards.index import build_index
from flows.cluster.connection import use_ray
from flows.stages.attempt import Attempt
from flows.stages.shards import ShardFigures, add_index, add_problems, shards_exist
from flows.stages.stage import Stage

logger = logging.getLogger(__name__)

LOCATION_FIELDS = {"root", "layout", "shard_megabytes", "num_shapes", "shapes_seed"}
"""Fields that say where examples come from or how shards are cut; the digests of the examples stand for them."""


class ImageShardFigures(ShardFigures):
    """Figures of sharded images."""

    left_out: dict[str, int]
    """Filter, or ``duplicate``, to the number of images that it left out."""
    buckets: dict[str, int]
    """Size such as ``640x384`` to the number of training images of that size, most first."""
    resolution: int
    """Side of the square, in pixels; of no meaning where images keep their size."""
    split: Literal["given", "drawn"] = "drawn"
    """Origin of the split: given by the data set, or drawn by ``data.val_fraction``."""
    changes: dict[str, int] = Field(default_factory=dict)
    """Name of a change, see ``data_pipelines.images.changes``, to the number of images that it was made in."""


def shard_stage(spec: ImageSpec, root: str, num_cpus: int | None = None) -> Stage[ImageShardFigures]:
    """Plan the stage from the source files and their digests, without decoding an image.

    ``num_cpus`` is what later stages need of a Ray that is started here.
    """
    examples = find_examples(spec, storage.generated_folder())
    if spec.on_error == "stop" and not examples.examples and examples.problems:
        raise DataError(examples.problems)
    given = given_splits(examples.examples) if spec.given_splits else {}
    if given:
        logger.info("shard: %s", describe_given(given))
    # Left out before any of it is read: a copy in a test set that is not used takes no training or held-out image away.
    used = tuple(example for example in examples.examples if given.get(example.example_id) != "test")
    num_test = len(examples.examples) - len(used)
    digests, unreadable = example_digests(replace(examples, examples=used), spec)
    examples = replace(examples, examples=used, problems=(*examples.problems, *unreadable))
    folder = examples_folder(spec)
    unused = {"none": {"bucket_multiple", "resolution"}, "square": {"bucket_multiple"}, "buckets": set()}[spec.crop]
    identity: dict[str, object] = {
        "examples": digests,
        "problems": [asdict(problem) for problem in examples.problems],
        "rules": spec.model_dump(mode="json", exclude=LOCATION_FIELDS | unused),
    }

    if num_test:
        identity["test"] = num_test
    if spec.class_from:
        identity["classes"] = [example.class_name for example in examples.examples]

    def compute(attempt: Attempt) -> ImageShardFigures:
        with use_ray(num_cpus):
            sharded = shard_examples(examples, spec, storage.join(root, folder), digests)
        if sharded.problems and spec.on_error == "stop":
            raise DataError(sharded.problems)
        splits = split_examples(sharded.rows, spec, given)
        left_out = sharded.left_out | ({TEST: num_test} if num_test else {})
        counts = add_index(attempt, build_index(sharded.rows, splits), root, folder)
        add_problems(attempt, sharded.problems)
        changes = sharded.changes
        if twins := count_trained_on(sharded.rows, splits):
            changes = changes | {TRAINED_ON: twins}
        for name, count in changes.items():
            logger.info("shard: %d images %s", count, CHANGES[name])
        trained_on = Counter(row["bucket"] for row in sharded.rows if splits.get(row["case_id"]) == "train")
        return ImageShardFigures(
            **counts,
            num_new=sharded.num_new,
            num_quarantined=len({problem.case_id for problem in sharded.problems if problem.case_id}),
            dataset=examples.name,
            left_out=left_out,
            buckets=dict(trained_on.most_common()),
            resolution=spec.resolution,
            split="given" if given else "drawn",
            changes=changes,
        )

    return Stage("shard", identity, (), compute, ImageShardFigures, shards_exist)


def describe_given(given: Mapping[str, Side]) -> str:
    """Describe how the splits that the data set gives are used."""
    counts = Counter(given.values())
    unused = f", {counts['test']} of its test set not used" if counts["test"] else ""
    return (
        f"the data set gives its split: {counts['train']} images to train on, {counts['val']} held out{unused} "
        "(data.given_splits=false generates one)"
    )
