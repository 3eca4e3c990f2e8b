"""Each task: its degradation is what it says and a function of its generator, and what is known is kept."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from unet_models.restoration.build import build_task
from unet_models.restoration.colour import colour_grid, lab_to_rgb, rgb_to_lab
from unet_models.restoration.colourisation import ColourClasses, count_colours, rebalancing_weights, soft_encode
from unet_models.restoration.inpainting import draw_holes
from unet_models.restoration.resampling import enlarge
from unet_models.specs.restoration import (
    ColourisationSpec,
    DenoisingSpec,
    InpaintingSpec,
    RestorationLossSpec,
    SuperResolutionSpec,
    TaskSpec,
)

TASKS: list[TaskSpec] = [
    DenoisingSpec(),
    DenoisingSpec(sigma=(5, 50)),
    DenoisingSpec(noise="poisson"),
    SuperResolutionSpec(factor=4),
    SuperResolutionSpec(upsample="resize"),
    InpaintingSpec(),
    ColourisationSpec(),
    ColourisationSpec(output="classes"),
]
every_task = pytest.mark.parametrize("spec", TASKS, ids=lambda spec: "-".join(map(str, spec.model_dump().values())))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def some_images(count: int = 2, side: int = 24) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(9))


@every_task
def test_degradation_is_a_function_of_each_sample_and_its_generator(spec: TaskSpec) -> None:
    task, images = build_task(spec), some_images()
    inputs = task.degrade(images, generators(1, 2))
    alone = task.degrade(images[1:], generators(2))
    assert torch.equal(inputs[1:], alone)
    assert inputs.shape[:2] == (2, task.in_channels)
    assert images.shape[2] == task.factor * inputs.shape[2]


@every_task
def test_output_of_zeros_and_gradient(spec: TaskSpec) -> None:
    task, images = build_task(spec), some_images()
    inputs = task.degrade(images, generators(1, 2))
    output = torch.zeros(2, task.out_channels, *inputs.shape[2:], requires_grad=True)
    assert task.restore(output, inputs).shape == images.shape == task.baseline(inputs).shape
    term = "cross_entropy" if isinstance(task, ColourClasses) else "l2"
    losses = task.loss(output, inputs, images, RestorationLossSpec(terms={term: 1.0}))
    assert losses.shape == (2,)
    losses.sum().backward()
    assert output.grad is not None
    assert output.grad.abs().sum() > 0


def test_gaussian_noise_has_its_deviation_and_a_range_is_drawn_from() -> None:
    grey = torch.full((40, 3, 16, 16), 0.5)
    noise = build_task(DenoisingSpec(sigma=51)).degrade(grey, generators(*range(40))) - grey
    assert float(noise.std()) == pytest.approx(0.2, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.005)
    blind = (
        (build_task(DenoisingSpec(sigma=(0, 51))).degrade(grey, generators(*range(40))) - grey).flatten(1).std(dim=1)
    )
    assert blind.min() < 0.03 < 0.17 < blind.max() < 0.21


def test_poisson_noise_has_the_variance_of_its_counts() -> None:
    grey = torch.full((40, 3, 16, 16), 0.25)
    noisy = build_task(DenoisingSpec(noise="poisson", peak=100)).degrade(grey, generators(*range(40)))
    assert float(noisy.mean()) == pytest.approx(0.25, rel=0.01)
    assert float(noisy.var()) == pytest.approx(0.25 / 100, rel=0.05)
    assert torch.equal((noisy * 100).round() / 100, noisy)


def test_super_resolution_sees_8_bit_images_and_starts_at_bicubic() -> None:
    task, images = build_task(SuperResolutionSpec(factor=2)), some_images()
    inputs = task.degrade(images, generators(1, 2))
    torch.testing.assert_close(inputs * 255, (inputs * 255).round(), rtol=0, atol=1e-4)
    assert torch.equal(task.restore(torch.zeros(2, 12, 12, 12), inputs), enlarge(inputs, 2))
    assert task.crop(torch.zeros(1, 3, 7, 9)).shape == (1, 3, 6, 8)
    large = build_task(SuperResolutionSpec(factor=2, upsample="resize"))
    assert torch.equal(large.degrade(images, generators(1, 2)), enlarge(inputs, 2))
    assert (large.factor, large.out_channels) == (1, 3)


def test_inpainting_keeps_known_pixels_exactly() -> None:
    task, images = build_task(InpaintingSpec()), some_images()
    inputs = task.degrade(images, generators(1, 2))
    holes = task.region(inputs)
    assert holes is not None
    known = (holes == 0).expand_as(images)
    for restored in (task.restore(torch.randn(2, 3, 24, 24), inputs), task.baseline(inputs)):
        assert torch.equal(restored[known], images[known])
        assert not torch.equal(restored[~known], images[~known])
    assert set(inputs[:, :3][~known].tolist()) == {0.5}, "nothing of the truth is seen"
    filled = task.baseline(inputs)[0][:, holes[0, 0] > 0]
    expected = images[0][:, holes[0, 0] == 0].mean(dim=1)
    torch.testing.assert_close(filled, expected[:, None].expand_as(filled))


def test_holes_are_strokes_and_boxes_of_their_size() -> None:
    box = InpaintingSpec(num_strokes=(0, 0), num_boxes=(1, 1), box_size=(0.25, 0.25))
    for seed in range(5):
        holes = draw_holes((40, 80), box, torch.Generator().manual_seed(seed))
        rows, columns = holes.any(dim=1).sum(), holes.any(dim=0).sum()
        assert abs(int(rows) - 10) <= 1
        assert abs(int(columns) - 20) <= 1
        assert holes.sum() == rows * columns
    stroke = InpaintingSpec(num_strokes=(1, 1), num_boxes=(0, 0), stroke_width=(0.1, 0.1))
    areas = [draw_holes((60, 60), stroke, torch.Generator().manual_seed(seed)).mean().item() for seed in range(8)]
    assert 0.02 < min(areas) < max(areas) < 0.4
    with pytest.raises(ValidationError, match="every image needs a hole"):
        InpaintingSpec(num_strokes=(0, 2), num_boxes=(0, 1))


def test_colourisation_restores_true_colours_and_lightness() -> None:
    task, images = build_task(ColourisationSpec()), some_images()
    inputs = task.degrade(images, generators(1, 2))
    truth = rgb_to_lab(images)[:, 1:] / 110
    torch.testing.assert_close(task.restore(truth, inputs), images, rtol=0, atol=1e-4)
    grey = task.baseline(inputs)
    torch.testing.assert_close(grey[:, 0], grey[:, 1], rtol=0, atol=2e-3)
    torch.testing.assert_close(task.prepare(grey), inputs, rtol=0, atol=1e-4)


def test_colour_classes_decode_what_they_encode() -> None:
    task = build_task(ColourisationSpec(output="classes", temperature=1.0))
    assert isinstance(task, ColourClasses)
    grid = colour_grid()
    colours = torch.cat([grid[100:101] + 1.0, torch.tensor([[-37.0, 21.0], [300.0, 300.0]])])
    places, shares = soft_encode(colours)
    assert places[0, 0] == 100
    distances = torch.cdist(colours[:2], grid).sort(dim=1)
    weights = torch.exp(-(distances.values[:, :5] ** 2) / 50)
    torch.testing.assert_close(shares[:2], weights / weights.sum(dim=1, keepdim=True))
    assert places[1].tolist() == distances.indices[1, :5].tolist()
    logits = torch.full((1, len(grid), 1, 1), -1e9)
    logits[0, 7] = 0
    assert torch.equal(task.colours(logits)[0, :, 0, 0], grid[7])
    image = lab_to_rgb(torch.tensor([60.0, *grid[7].tolist()]).view(1, 3, 1, 1))
    spec = RestorationLossSpec(terms={"cross_entropy": 1.0})
    right, wrong = torch.zeros(1, len(grid), 1, 1), torch.zeros(1, len(grid), 1, 1)
    right[0, int(soft_encode(rgb_to_lab(image)[:, 1:, 0, 0])[0][0, 0])], wrong[0, 150] = 5, 5
    assert task.loss(right, task.prepare(image), image, spec) < task.loss(wrong, task.prepare(image), image, spec)


def test_rare_colours_weigh_more() -> None:
    counts = torch.tensor([90.0, 10.0, 0.0], dtype=torch.float64)
    weights = rebalancing_weights(counts, uniform=0.5)
    # 1 / (0.45 + 1/6), 1 / (0.05 + 1/6), 1 / (1/6), scaled so that 0.9 w0 + 0.1 w1 = 1.
    raw = [1 / (0.45 + 1 / 6), 1 / (0.05 + 1 / 6), 6.0]
    scale = 0.9 * raw[0] + 0.1 * raw[1]
    assert weights == pytest.approx([weight / scale for weight in raw])
    assert rebalancing_weights(counts, uniform=1.0) == pytest.approx([1, 1, 1])
    assert count_colours(torch.zeros(1, 3, 4, 5)).sum() == 20


def test_cross_entropy_is_that_of_torch() -> None:
    """With the soft encoding as target; torch weighs classes otherwise, so all weigh 1 here."""
    task, images = build_task(ColourisationSpec(output="classes")), some_images(2, 5)
    output = torch.randn(2, task.out_channels, 5, 5, generator=torch.Generator().manual_seed(1))
    places, shares = soft_encode(rgb_to_lab(images)[:, 1:].movedim(1, -1).flatten(0, 2))
    target = torch.zeros(50, task.out_channels).scatter(1, places, shares)
    theirs = F.cross_entropy(output.movedim(1, -1).flatten(0, 2), target, reduction="none").reshape(2, -1).mean(dim=1)
    loss = task.loss(output, task.prepare(images), images, RestorationLossSpec(terms={"cross_entropy": 2.0}))
    torch.testing.assert_close(loss, 2 * theirs)
