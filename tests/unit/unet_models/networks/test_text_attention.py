"""Attention maps: the formula, the place of each token and patch in every backbone, and no trace of them afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.denoisers import BACKBONES, inputs, perturbed
from unet_models.networks.attention import Attention
from unet_models.networks.build import build_denoiser
from unet_models.networks.text_attention import grid_of, record_text_attention


def test_weights_are_what_attention_mixes_values_by() -> None:
    attention = perturbed(Attention(6, 2, context_dim=4))
    x, context = torch.randn(2, 3, 6), torch.randn(2, 5, 4)
    weights = attention.weights(x, context)
    assert weights.shape == (2, 2, 3, 5)
    values = attention.to_v(context).unflatten(-1, (2, 3)).transpose(1, 2)
    mixed = attention.to_out((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, attention(x, context))


@pytest.mark.parametrize("changes", [{}, {"num_class_embeds": 3}], ids=["text", "text and class"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_maps_are_of_each_step_head_and_token(backbone: str, changes: dict[str, Any]) -> None:
    spec = BACKBONES[backbone].model_copy(update=changes)
    model = perturbed(build_denoiser(spec)).eval()
    given = inputs(spec, (8, 6))
    plain = model(**given)
    with record_text_attention(model, 5, (8, 6)) as maps:
        for step in range(2):
            assert torch.equal(model(**given | {"timesteps": given["timesteps"] + step}), plain) == (step == 0)
            maps.finish_step()
    assert maps.maps.shape == (2, 2, 5, 8, 6)
    total = maps.maps.sum(dim=2)
    if backbone == "uvit":  # patches, timestep and class are attended to, too
        assert total.max() < 1
    else:
        torch.testing.assert_close(total, torch.ones_like(total))
    assert not any(module._forward_hooks for module in model.modules())
    model(**given)
    assert len(maps.steps) == 2


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_token_that_keys_point_to_has_the_largest_map(backbone: str) -> None:
    """Where one text state is many times larger than the rest, its key decides, whichever way it points."""
    model = perturbed(build_denoiser(BACKBONES[backbone])).eval()
    given = inputs(BACKBONES[backbone])
    states = given["encoder_hidden_states"]
    states[-1] = 0.0  # the last sample is the one that is recorded
    states[-1, 3] = 300.0
    with record_text_attention(model, 5, (8, 8)) as maps:
        model(**given)
        maps.finish_step()
    others = maps.maps[0][:, [0, 1, 2, 4]]
    torch.testing.assert_close(others, others[:, :1].expand_as(others))
    assert (maps.maps[0][:, 3] - others[:, 0]).abs().max() > 0.005


@pytest.mark.parametrize(
    ("num_patches", "size", "grid"),
    [(48, (8, 6), (8, 6)), (12, (8, 6), (4, 3)), (12, (7, 5), (4, 3)), (1, (3, 3), (1, 1))],
)
def test_grids(num_patches: int, size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert grid_of(num_patches, *size) == grid


def test_what_is_no_grid() -> None:
    with pytest.raises(ValueError, match="5 patches are no grid over 8x6 latents"):
        grid_of(5, 8, 6)
