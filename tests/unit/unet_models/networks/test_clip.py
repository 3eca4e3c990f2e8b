"""The small CLIP: unit vectors, and pairs that training brings together."""

from __future__ import annotations

import pytest
import torch

from data_pipelines.batches import CaptionedBatch
from tests.support.encoders import CAPTIONS, CLIP
from unet_models.networks.clip import TrainableClip, build_clip
from unet_models.networks.tokenizer import tokenize, train_tokenizer
from unet_models.training.objectives import Alignment


def test_vectors_have_length_one_and_padding_says_nothing() -> None:
    tokenizer = train_tokenizer(CAPTIONS, 560, 12)
    model = TrainableClip(build_clip(CLIP, tokenizer, 16)).eval()
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    image_vectors, text_vectors, scale = model(images, tokenize(tokenizer, ["a cat", "a cat", "a small red circle"]))
    torch.testing.assert_close(image_vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(text_vectors[0], text_vectors[1])
    assert not torch.allclose(text_vectors[0], text_vectors[2])
    assert scale.item() == pytest.approx(1 / 0.07, rel=1e-3)  # Radford 2021, section 2.5


def test_training_brings_pairs_together() -> None:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, 560, 12)
    model = TrainableClip(build_clip(CLIP, tokenizer, 16))
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    batch = CaptionedBatch(images, tokenize(tokenizer, CAPTIONS[:4]), (0, 1, 2, 3), ("a", "b", "c", "d"), 0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(50):
        loss = Alignment()(model, batch)
        losses.append(loss.mean().item())
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    assert losses[-1] < 0.1 < 1 < losses[0]  # log 4 is chance
