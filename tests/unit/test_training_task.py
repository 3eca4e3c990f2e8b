"""What the training tasks share."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from data_pipelines.batches import ImageBatch
from flows.training.task import HeldOutLoss
from unet_models.specs import LoopSpec


def _rows_as_images(rows: Sequence[int], slots: Sequence[int], step: int) -> ImageBatch:
    images = torch.tensor(rows, dtype=torch.float32).view(-1, 1, 1, 1)
    return ImageBatch(images, tuple(slots), tuple(map(str, rows)), step)


def _own_value(model: nn.Module, batch: ImageBatch) -> torch.Tensor:
    assert batch.step == 7, "a step that training never has"
    return batch.images.flatten()


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_held_out_loss_is_the_mean_over_samples_however_they_are_batched(batch_size: int) -> None:
    loss = HeldOutLoss(LoopSpec(num_steps=7), _own_value, _rows_as_images, [3, 5, 10], torch.device("cpu"), batch_size)
    assert loss(nn.Identity()) == {"val/loss": 6.0}


def test_without_held_out_samples_there_is_no_loss() -> None:
    loss = HeldOutLoss(LoopSpec(), _own_value, _rows_as_images, [], torch.device("cpu"))
    assert loss(nn.Identity()) == {}
