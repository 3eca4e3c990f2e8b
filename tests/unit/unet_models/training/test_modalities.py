from __future__ import annotations

from dataclasses import replace

import torch

from data_pipelines.batches import VolumeBatch
from unet_models.specs.networks import FusionSpec
from unet_models.training.modalities import draw_kept, hide_modalities

SPEC = FusionSpec(dropout=0.5)


def batch(positions: range, step: int = 3) -> VolumeBatch:
    count = len(positions)
    images = torch.ones(count, 1, 2, 2)
    keys = tuple(map(str, positions))
    texts, sounds = torch.full((count, 4), 97, dtype=torch.uint8), torch.ones(count, 6)
    return VolumeBatch(images, torch.zeros(count, 2, 2), tuple(positions), keys, step, texts, sounds)


def test_each_modality_is_hidden_as_often_as_asked_and_never_all() -> None:
    """Of three hidden with one half, all would be in an eighth of the samples; then each stays in a third of them."""
    kept = draw_kept(batch(range(4000)), SPEC, seed=0).float()
    assert kept.any(dim=1).all()
    torch.testing.assert_close(kept.mean(dim=0), torch.full((3,), 0.5 + 1 / 24), atol=0.03, rtol=0)


def test_the_only_modality_of_a_sample_stays() -> None:
    """Text and sound are missing, as of cases without these files."""
    alone = batch(range(200))
    assert alone.texts is not None
    assert alone.sounds is not None
    alone = replace(alone, texts=torch.zeros_like(alone.texts), sounds=torch.full_like(alone.sounds, torch.nan))
    assert draw_kept(alone, SPEC, seed=0).tolist() == [[True, False, False]] * 200


def test_what_is_hidden_does_not_depend_on_the_workers() -> None:
    whole = draw_kept(batch(range(8)), SPEC, seed=0)
    assert torch.equal(whole[5:], draw_kept(batch(range(5, 8)), SPEC, seed=0))
    assert not torch.equal(whole, draw_kept(batch(range(8), step=4), SPEC, seed=0))


def test_hidden_ones_are_marked_as_missing() -> None:
    given = batch(range(64))
    images, texts, sounds = hide_modalities(given.images, given, SPEC, seed=0)
    kept = draw_kept(given, SPEC, seed=0)
    assert texts is not None
    assert sounds is not None
    assert torch.equal(images.isnan().flatten(1).all(1), ~kept[:, 0])
    assert torch.equal((texts == 0).all(1), ~kept[:, 1])
    assert torch.equal(sounds.isnan().all(1), ~kept[:, 2])
    everything = hide_modalities(given.images, given, SPEC.model_copy(update={"dropout": 0.0}), seed=0)
    assert torch.equal(everything[0], given.images)
