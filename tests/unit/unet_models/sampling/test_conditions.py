"""Conditions of a denoiser: what is known of an image, by hand."""

from __future__ import annotations

import pytest
import torch

from unet_models.sampling.conditions import (
    Conditions,
    boxes,
    hole_in_latents,
    known_part,
    low_resolution,
    nothing_known,
)


def test_low_resolution_is_the_mean_of_squares() -> None:
    latents = torch.arange(16.0).view(1, 1, 4, 4)
    want = torch.tensor([[2.5, 4.5], [10.5, 12.5]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(low_resolution(latents, 2)[0, 0], want)
    assert low_resolution(torch.randn(2, 4, 5, 7), 4).shape == (2, 4, 5, 7)


def test_a_box_is_a_quarter_to_three_quarters_of_each_side_and_inside() -> None:
    drawn = torch.rand(500, 4, generator=torch.Generator().manual_seed(0))
    drawn[:2] = torch.tensor([[0.0] * 4, [1 - 2**-24] * 4])
    masks = boxes(drawn, 8, 12)
    assert masks.shape == (500, 1, 8, 12)
    heights, widths = masks.amax(dim=(1, 3)).sum(dim=1), masks.amax(dim=(1, 2)).sum(dim=1)
    assert torch.equal(masks.sum(dim=(1, 2, 3)), heights * widths)
    assert (heights.min(), heights.max()) == (2, 6)
    assert (widths.min(), widths.max()) == (3, 9)
    assert masks.amax(dim=(0, 1)).all(), "every pixel is hidden at times"
    assert masks[0, 0, :2, :3].all()


def test_what_is_known_is_the_mask_and_the_latents_outside_it() -> None:
    latents, hole = torch.full((1, 2, 1, 2), 3.0), torch.tensor([[[[1.0, 0.0]]]])
    assert known_part(latents, hole).tolist() == [[[[1, 0]], [[0, 3]], [[0, 3]]]]
    assert nothing_known(latents).tolist() == [[[[1, 1]], [[0, 0]], [[0, 0]]]]


def test_a_latent_is_unknown_where_any_of_its_pixels_is() -> None:
    hole = torch.zeros(1, 1, 4, 6)
    hole[0, 0, 1, 2] = 1
    assert hole_in_latents(hole, 2).tolist() == [[[[0, 1, 0], [0, 0, 0]]]]


def test_joined_conditions_keep_what_there_is() -> None:
    first = Conditions(text=torch.zeros(1, 2, 3), class_labels=torch.tensor([1]))
    both = first.joined(Conditions(text=torch.ones(1, 2, 3), class_labels=torch.tensor([2])))
    assert both.text is not None
    assert both.class_labels is not None
    assert both.text[:, 0, 0].tolist() == [0, 1]
    assert both.class_labels.tolist() == [1, 2]
    assert both.known is None


@pytest.mark.parametrize("has_image", [False, True])
def test_the_image_is_concatenated_to_the_noisy_latents(*, has_image: bool) -> None:
    shown: list[torch.Tensor] = []

    class Shown(torch.nn.Module):
        def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, text: None) -> torch.Tensor:
            shown.append(latents)
            return latents[:, :2].bfloat16()

    noisy, known = torch.zeros(1, 2, 3, 3), torch.ones(1, 3, 3, 3)
    predicted = Conditions(known=known if has_image else None).predict(Shown(), noisy, torch.zeros(1))
    assert predicted.dtype == torch.float32
    assert torch.equal(shown[0], torch.cat([noisy, known], dim=1) if has_image else noisy)
