"""Settings that do not go together are refused, with the field to change."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from data_pipelines.errors import ConfigError, InputError
from flows.pipelines.restoration.champion import task_to_compare
from flows.pipelines.restoration.config import RestorationConfig
from flows.pipelines.restoration.train import check_sizes
from flows.sharding.images import ImageShardFigures
from tests.support.records import finished
from unet_models.specs.restoration import ColourisationSpec, DenoisingSpec, SuperResolutionSpec


@pytest.mark.parametrize(
    ("given", "norm", "channels"),
    [
        ({"channels": [8, 16]}, "none", (8, 16)),
        ({"num_blocks": 3}, "none", (32, 64, 128)),
        ({"norm": "batch"}, "batch", (32, 64, 128)),
        ({"preset": "unet"}, "batch", (64, 128, 256, 512, 1024)),
    ],
)
def test_a_field_of_the_network_leaves_the_others_at_their_defaults_here(
    given: dict[str, Any], norm: str, channels: tuple[int, ...]
) -> None:
    model = RestorationConfig.model_validate({"train": {"model": given}}).train.model
    assert (model.norm, model.channels) == (norm, channels)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"task": {"name": "sharpening"}}, "'denoising', 'super_resolution', 'inpainting', 'colourisation'"),
        ({"task": {"name": "super_resolution", "factor": 3}}, r"\(64\) must be a multiple of task.factor \(3\)"),
        ({"train": {"model": {"norm": "instance"}}}, "set evaluate.tile to null, or train.model.norm to none or batch"),
        ({"train": {"model": {"norm": "none", "deep_supervision": 1}}}, "images have one output; set it to 0"),
        ({"train": {"model": {"norm": "none", "fusion": {}}}}, "inputs of segmentation networks; leave it out"),
        ({"train": {"model": {"preset": "unet_2015"}}}, "restored images keep their size; set it to same"),
        ({"train": {"loss": {"terms": {"l1": 0.0}}}}, "one beside adversarial needs a weight above 0"),
        ({"task": {"name": "colourisation", "rebalance": 0}}, "greater than 0"),
        ({"train": {"loss": {"terms": {"adversarial": 1.0}}}}, "denoising takes one or more of charbonnier, l1, l2"),
        (
            {"task": {"name": "colourisation", "output": "classes"}, "train": {"loss": {"terms": {"l1": 1}}}},
            "one or more of cross_entropy, and adversarial",
        ),
        ({"data": {"crop": "square", "resolution": 32}}, r"data.resolution \(32\) must be at least train.patch_size"),
        ({"data": {"crop": "buckets", "bucket_multiple": 16}}, "choose none or square"),
        ({"train": {"loss": {"terms": {"l1": -1.0}}}}, "weights must be 0 or more, got l1: -1.0"),
        ({"task": {"sigma": [50, 5]}}, r"give a positive number, or a range \[a, b\]"),
        ({"train": {"global_batch_size": 1}}, "smaller than compute.num_workers"),
    ],
)
def test_contradictions_are_refused(values: dict[str, Any], words: str) -> None:
    if "task" in values:
        values["task"] = {"name": "denoising"} | values["task"]
    with pytest.raises(ValidationError, match=words):
        RestorationConfig.model_validate(values)


def test_every_task_has_a_loss_of_its_own() -> None:
    tasks = ({"name": "denoising"}, {"name": "colourisation"}, {"name": "colourisation", "output": "classes"})
    configs = [RestorationConfig.model_validate({"task": task}) for task in tasks]
    terms = [config.training.loss.terms for config in configs]
    assert terms == [{"charbonnier": 1.0}, {"l2": 1.0}, {"cross_entropy": 1.0}]
    given = RestorationConfig.model_validate({"train": {"loss": {"terms": {"l1": 2.0}}}})
    assert given.training == given.train


def test_networks_that_normalise_over_the_image_see_it_as_a_whole() -> None:
    values = {"train": {"model": {"norm": "instance"}}, "evaluate": {"tile": None}}
    assert RestorationConfig.model_validate(values).evaluate.tile is None


def test_images_smaller_than_a_patch_are_named(tmp_path: Any) -> None:
    import pyarrow as pa

    from data_pipelines.shards.index import write_table

    figures = ImageShardFigures(
        num_train=1, num_val=1, num_new=2, shards="s", shard_sizes={}, dataset="d", num_quarantined=0, left_out={},
        buckets={}, resolution=64,
    )  # fmt: skip
    write_table(str(tmp_path / "index.parquet"), pa.table({"case_id": ["a", "b"], "bucket": ["64x20", "64x64"]}))
    shards = finished("shard", figures, uri=str(tmp_path), index="index.parquet")
    check_sizes(shards, 20)
    with pytest.raises(ConfigError, match=r"1 of 2 images are smaller than 32 pixels, such as a \(64x20\); leave them"):
        check_sizes(shards, 32)


def test_a_champion_is_compared_on_the_new_degradation_or_not_at_all() -> None:
    wide = DenoisingSpec(sigma=50)
    assert task_to_compare(wide, DenoisingSpec(sigma=5)) == wide
    resized = SuperResolutionSpec(upsample="resize")
    assert task_to_compare(SuperResolutionSpec(), resized) == resized, "its network sees enlarged images"
    classes = ColourisationSpec(output="classes")
    assert task_to_compare(ColourisationSpec(), classes) == classes
    for ours, theirs in ((SuperResolutionSpec(), SuperResolutionSpec(factor=4)), (wide, classes)):
        with pytest.raises(InputError, match=r"it restores .*, the new version"):
            task_to_compare(ours, theirs)
