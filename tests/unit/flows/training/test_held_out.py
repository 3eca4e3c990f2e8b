"""The samples of an index by split and bucket, and the loss of held-out ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from data_pipelines.batches import ImageBatch
from data_pipelines.shards.index import index_table, write_table
from data_pipelines.shards.writer import write_shard
from flows.pipelines.diffusion.encoders.autoencoder_task import AutoencoderTask
from flows.training.held_out import HeldOutLoss, SplitShards, validation_batch
from unet_models.specs.encoders import AutoencoderSpec
from unet_models.specs.loop import LoopSpec


def _rows_as_images(rows: Sequence[int], positions: Sequence[int], step: int) -> ImageBatch:
    images = torch.tensor(rows, dtype=torch.float32).view(-1, 1, 1, 1)
    return ImageBatch(images, tuple(positions), tuple(map(str, rows)), step)


def _own_value(model: nn.Module, batch: ImageBatch) -> torch.Tensor:
    assert batch.step == 7, "a step that training never has"
    return batch.images.flatten()


@pytest.mark.parametrize("batches", [[[3], [5], [10]], [[3, 10], [5]], [[3, 5, 10]]])
def test_held_out_loss_is_the_mean_over_samples_however_they_are_batched(batches: list[list[int]]) -> None:
    loss = HeldOutLoss(LoopSpec(num_steps=7), _own_value, _rows_as_images, batches, torch.device("cpu"))
    assert loss(nn.Identity()) == {"val/loss": 6.0}


def test_without_held_out_samples_there_is_no_loss() -> None:
    loss = HeldOutLoss(LoopSpec(), _own_value, _rows_as_images, [], torch.device("cpu"))
    assert loss(nn.Identity()) == {}


# --- samples of several sizes ----------------------------------------------------------------------------------------


def _shards(folder: Path, sizes: Sequence[list[int] | None]) -> SplitShards:
    """An index whose first four samples are held out, ``latent_shape`` as given."""
    sides = ["val" if i < 4 else "train" for i in range(len(sizes))]
    samples = [({"key": str(i), "split": side}, {"png": b"x"}) for i, side in enumerate(sides)]
    rows = write_shard(str(folder / "a.tar"), samples)
    if sizes[0]:
        rows = [row | {"latent_shape": size} for row, size in zip(rows, sizes, strict=True)]
    write_table(str(folder / "index.parquet"), index_table(rows))
    task = AutoencoderTask(
        spec=AutoencoderSpec(), index_uri=str(folder / "index.parquet"), shards_uri=str(folder), resolution=8
    )
    return SplitShards.open(task, bucket="latent_shape" if sizes[0] else "")


def test_batches_are_of_one_size(tmp_path: Path) -> None:
    wide, tall = [4, 2, 4], [4, 4, 2]
    sizes = [wide, tall, wide, wide, *[wide, tall, tall, tall] * 5]
    shards = _shards(tmp_path, sizes)
    assert shards.in_batches(shards.val_share(100, rank=0), size=2) == [[0, 2], [3], [1]]
    assert shards.in_batches([], size=2) == []
    batches = shards.batches(_rows_as_images, LoopSpec(global_batch_size=4), rank=0)
    seen = [[int(key) for key in batches[step].keys] for step in range(100)]
    assert all(len({str(sizes[row]) for row in rows}) == 1 for rows in seen)
    assert {row for rows in seen for row in rows} == set(range(4, 24))


def test_a_forward_pass_of_validation_is_no_larger_than_one_of_training() -> None:
    assert [validation_batch(LoopSpec(micro_batch_size=size)) for size in (None, 3, 64)] == [32, 3, 32]


def test_without_a_column_of_sizes_all_are_alike(tmp_path: Path) -> None:
    shards = _shards(tmp_path, [None] * 10)
    assert shards.in_batches(shards.val_share(100, rank=0), size=3) == [[0, 1, 2], [3]]
    batches = shards.batches(_rows_as_images, LoopSpec(global_batch_size=6), rank=0)
    assert sorted(map(int, batches[0].keys)) == list(range(4, 10))
