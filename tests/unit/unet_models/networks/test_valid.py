"""Valid convolutions: the published sizes, what does not fit, and overlap tiles that equal one whole prediction."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from data_pipelines.batches import VolumeBatch
from data_pipelines.errors import InputError
from unet_models.networks.build import build_network
from unet_models.networks.inspection import ClassSaliency, GateMaps
from unet_models.networks.unet import UNet
from unet_models.sampling.sliding_window import predict_logits
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import AugmentSpec, PredictSpec, TrainSpec
from unet_models.specs.valid import border_of, find_misfits, skip_crop
from unet_models.training.losses import segmentation_loss
from unet_models.training.objectives import Segmentation

UNET_2015 = UNetSpec(preset="unet_2015")


def narrow(*channels: int, **fields: object) -> UNet:
    torch.manual_seed(0)
    spec = UNetSpec.model_validate({"preset": "unet_2015", "channels": channels} | fields)
    return build_network(spec, 1, 2, 2).eval()


def test_sizes_of_ronneberger_2015() -> None:
    """Figure 1: 572 to 388; the skips are cropped from 568, 280, 136 and 64 to 392, 200, 104 and 56."""
    assert border_of(UNET_2015, 2) == (92, 92)
    assert [skip_crop(UNET_2015, 2, stage)[0] for stage in range(4)] == [88, 40, 16, 4]
    with torch.device("meta"):
        assert build_network(UNET_2015, 1, 2, 2)(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)


def test_sizes_of_cicek_2016() -> None:
    """3-D U-Net, figure 2: 132 x 132 x 116 voxels to 44 x 44 x 28."""
    spec = UNetSpec(preset="unet_2015", channels=(1, 2, 3, 4))
    with torch.device("meta"):
        assert build_network(spec, 3, 3, 3)(torch.zeros(1, 3, 132, 132, 116)).shape == (1, 3, 44, 44, 28)


@pytest.mark.parametrize("skip", ["concat", "add", "gated", "gated_coarse", "none"])
@pytest.mark.parametrize(
    "fields", [{"strides": ((3, 2),)}, {"kernel_size": 5}, {"num_blocks": (1, 3)}, {"block": "separable"}]
)
def test_every_size_that_fits_is_computed_and_no_other(skip: str, fields: dict[str, object]) -> None:
    network = narrow(2, 3, skip=skip, upsample="linear", **fields)
    spec = UNetSpec.model_validate({"preset": "unet_2015", "channels": (2, 3)} | fields)
    (border, _) = border_of(spec, 2)
    (step, across) = network.divisor
    other = 2 * network.border[1] + next(m for m in range(across, 3 * across) if 1 not in find_misfits(spec, (1, m)))
    fitting = [m for m in range(1, 3 * step + 1) if 0 not in find_misfits(spec, (m, 1))]
    assert [b - a for a, b in zip(fitting, fitting[1:], strict=False)] == [step] * (len(fitting) - 1)
    for m in range(1, 3 * step + 1):
        images = torch.randn(1, 1, m + 2 * border, other)
        if m in fitting:
            assert network(images).shape[2] == m
        else:
            with pytest.raises(InputError, match=rf"images: {m + 2 * border} voxels along axis 0 do not fit"):
                network(images)


def test_the_message_names_the_next_sizes() -> None:
    network = build_network(UNetSpec(preset="unet_2015", channels=(1, 1, 1, 1, 1)), 1, 2, 2)
    for size, words in [(570, "give 556 or 572$"), (100, "give 188$"), (190, "give 188 or 204$")]:
        with pytest.raises(InputError, match=words):
            network(torch.zeros(1, 1, size, 572))


def test_patch_sizes_that_do_not_fit_are_refused() -> None:
    assert TrainSpec(patch_size=(388, 404), model=UNET_2015).input_size == (572, 588)
    with pytest.raises(ValidationError, match="cannot predict 390 voxels along axis 1; give 388 or 404"):
        TrainSpec(patch_size=(388, 390), model=UNET_2015)
    with pytest.raises(ValidationError, match="cannot predict 3 voxels along axis 0; give 4"):
        TrainSpec(patch_size=(3, 388), model=UNET_2015)


@pytest.mark.parametrize(
    ("field", "value"),
    [("block", "residual"), ("downsample", "strided"), ("decoder", "nested"), ("deep_supervision", 1)],
)
def test_parts_that_need_padding_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=f"padding: valid convolutions need {field}: "):
        UNetSpec.model_validate({"preset": "unet_2015", field: value})


def test_overlap_tiles_equal_one_prediction_of_the_mirrored_image() -> None:
    """Tiles without overlap whose corners divide by the strides: their poolings meet the same pixels."""
    network = narrow(2, 3, 4)
    assert network.border == (20, 20)
    image, spec = torch.randn(1, 24, 32), PredictSpec(overlap=0, tta=False)
    with torch.no_grad():
        whole = network(F.pad(image[None], (20,) * 4, mode="reflect"))[0]
    for tile in [(24, 32), (12, 8), (4, 4)]:
        tiled = predict_logits(network, image, tile, spec, border=network.border)
        torch.testing.assert_close(tiled, whole, rtol=1e-5, atol=1e-5)


def test_images_smaller_than_a_tile_are_mirrored_with_the_zeros_around_them() -> None:
    network, image = narrow(2, 3, 4), torch.randn(1, 5, 24)
    spec = PredictSpec(overlap=0, tta=False)
    with torch.no_grad():
        whole = network(F.pad(F.pad(image, (0, 0, 9, 10))[None], (20,) * 4, mode="reflect"))[0]
    tiled = predict_logits(network, image, (24, 24), spec, border=network.border)
    torch.testing.assert_close(tiled, whole[:, 9:14], rtol=1e-5, atol=1e-5)


def test_maps_of_what_it_looks_at_have_the_size_of_the_logits() -> None:
    network = narrow(2, 3, skip="gated_coarse")
    images = torch.randn(1, 1, 4 + 2 * network.border[0], 8 + 2 * network.border[1])
    assert GateMaps(network)(images).shape == (1, 1, 4, 8)
    saliency = ClassSaliency(network, int(network(images).argmax(1).flatten().mode().values))(images)
    assert saliency.shape == (1, 2, 4, 8)


def test_the_loss_compares_the_middle_of_what_was_read() -> None:
    spec = TrainSpec(
        patch_size=(4, 8),
        model=UNetSpec(preset="unet_2015", channels=(2, 3)),
        augment=AugmentSpec.nothing(),
        channels_last=False,
    )
    network = build_network(spec.model, 1, 3, 2)
    (height, width), (rows, columns) = spec.input_size, spec.border
    images, masks = torch.randn(2, 1, height, width), torch.randint(0, 3, (2, height, width), dtype=torch.uint8)
    loss = Segmentation(spec)(network, VolumeBatch(images, masks, (0, 1), ("a", "b"), 0))
    middle = masks[:, rows : rows + 4, columns : columns + 8]
    torch.testing.assert_close(loss, segmentation_loss(network(images), middle, spec.loss))
