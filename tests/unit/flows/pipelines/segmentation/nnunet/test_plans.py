"""Plans of nnU-Net become the description of a model that predicts alike, or are refused by the field that differs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.errors import WeightsError
from data_pipelines.volumes.specs import IntensitySpec, PreprocessSpec
from flows.pipelines.segmentation.nnunet.plans import build_bundle, files_per_image, network_spec
from tests.support.nnunet import architecture, dataset, plans
from tests.support.volumes import numbered
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import PredictSpec

FOLDER = Path("results")
TRANSPOSED = plans(
    (20, 16, 24),
    (1.0, 1.3, 0.8),
    architecture(3),
    ("CTNormalization", "ZScoreNormalization"),
    transpose_forward=[2, 0, 1],
)
IMAGES = plans(
    (32, 24), (1.0, 1.0), architecture(2), ("RGBTo01Normalization",) * 3, image_reader_writer="NaturalImage2DIO"
)


def test_volumes() -> None:
    bundle = build_bundle(FOLDER, TRANSPOSED, dataset(2), "3d_fullres", (0, 2), 5)
    assert bundle.labels == numbered("background", "liver", "tumour")
    assert bundle.channels == ("channel0", "channel1")
    assert (bundle.patch_size, bundle.spacing, bundle.mirror_axes) == ((20, 16, 24), (1.0, 1.3, 0.8), (0, 2))
    assert (bundle.num_members, bundle.averaged) == (5, "logits")
    assert (bundle.slicewise, bundle.network_ndim) == (False, 3)
    assert bundle.predict == PredictSpec(weighting="nnunet", overlap=0.5, tta=True)
    unused = IntensitySpec(low=0, high=1, mean=0, std=1)
    assert bundle.preprocess == PreprocessSpec(
        orientation="stored",
        axes=(0, 2, 1),  # of z, y, x: the third, the first, the second
        image_interpolation="spline",
        foreground_crop="nonzero",
        masked=(False, True),
        normalise=("intensities", "zscore"),
        intensities=(IntensitySpec(low=-80, high=190, mean=40, std=60), unused),
    )


def test_networks_of_images_see_the_slices_of_volumes() -> None:
    bundle = build_bundle(FOLDER, plans((24, 20), (0.8, 1.1), architecture(2)), dataset(), "2d", (0, 1))
    assert (bundle.patch_size, bundle.spacing, bundle.mirror_axes) == ((1, 24, 20), (None, 0.8, 1.1), (1, 2))
    assert (bundle.slicewise, bundle.network_ndim, bundle.preprocess.axes) == (True, 2, (2, 1, 0))


def test_images() -> None:
    bundle = build_bundle(FOLDER, IMAGES, dataset(3, file_ending=".png"), "2d", ())
    assert (bundle.patch_size, bundle.slicewise, bundle.preprocess.axes) == ((32, 24), False, (0, 1))
    assert bundle.preprocess.intensities == (IntensitySpec(low=0, high=255, mean=0, std=255),) * 3


@pytest.mark.parametrize(("scheme", "expected"), [("RGBTo01Normalization", 1), ("ZScoreNormalization", 3)])
def test_colours_are_in_one_file_and_other_channels_in_one_each(scheme: str, expected: int) -> None:
    images = plans((32, 24), (1.0, 1.0), architecture(2), (scheme,) * 3, image_reader_writer="NaturalImage2DIO")
    assert files_per_image(build_bundle(FOLDER, images, dataset(3, file_ending=".png"), "2d", ())) == expected


def test_configurations_inherit_and_labels_may_be_ignored() -> None:
    inheriting = copy.deepcopy(TRANSPOSED)
    inheriting["configurations"]["3d_large"] = {"inherits_from": "3d_fullres", "patch_size": [40, 32, 24]}
    labels = {"background": 0, "tumour": [2], "liver": 1, "ignore": 3}
    bundle = build_bundle(FOLDER, inheriting, dataset(2, labels), "3d_large", ())
    assert bundle.patch_size == (40, 32, 24)
    assert bundle.labels.names == ("background", "liver", "tumour")
    assert bundle.labels.ignored == (3,)
    assert bundle.labels.num_outputs == 3


def test_plain_and_residual_networks() -> None:
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    kernels = [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
    assert network_spec(architecture(3, strides=strides, kernels=kernels)) == UNetSpec(
        channels=(4, 8, 12),
        strides=((1, 2, 2), (2, 2, 2)),
        num_blocks=(2, 2, 2),
        num_decoder_blocks=(2, 2),
        decoder_block="plain",
        kernel_size=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        deep_supervision=1,
    )
    residual = network_spec(architecture(2, residual=True))
    assert (residual.block, residual.num_blocks, residual.num_decoder_blocks) == ("residual_encoder", (1, 3, 4), (1, 1))


def test_plans_before_nnunet_2_3_describe_the_same_network() -> None:
    settings = plans((16, 16, 16), (1.0, 1.0, 1.0), {})
    old = settings["configurations"]["3d_fullres"]
    del old["architecture"]
    old |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 12,
        "n_conv_per_stage_encoder": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "conv_kernel_sizes": [[3, 3, 3]] * 3,
    }
    assert build_bundle(FOLDER, settings, dataset(), "3d_fullres", ()).model == network_spec(
        architecture(3, channels=(4, 8, 12))
    )


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "cascade": ({"previous_stage": "3d_lowres"}, "second stage of a cascade"),
    "resampling": (
        {"resampling_fn_data": "resample_torch_fornnunet"},
        "resampling_fn_data is resample_torch_fornnunet",
    ),
    "normalisation": ({"normalization_schemes": ["RescaleTo01Normalization"]}, "RescaleTo01Normalization is not read"),
    "preprocessor": ({"preprocessor_name": "Mine"}, "preprocessor_name is Mine"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_differs_is_named(name: str) -> None:
    change, message = REFUSED[name]
    settings = plans((16, 16, 16), (1.0, 1.0, 1.0), architecture(3))
    settings["configurations"]["3d_fullres"] |= change
    with pytest.raises(WeightsError, match=message):
        build_bundle(FOLDER, settings, dataset(), "3d_fullres", ())


def test_other_networks_are_refused() -> None:
    other = architecture(3) | {"network_class_name": "mine.Transformer"}
    with pytest.raises(WeightsError, match="network_class_name Transformer is not read; PlainConvUNet, Residual"):
        network_spec(other)
    dropping = architecture(3)
    dropping["arch_kwargs"]["dropout_op"] = "torch.nn.Dropout3d"
    with pytest.raises(WeightsError, match=r"dropout_op is torch\.nn\.Dropout3d; only None is read"):
        network_spec(dropping)


def test_regions_are_outputs_in_their_order() -> None:
    declared = dataset(2, {"background": 0, "whole": [1, 2], "core": 2}) | {"regions_class_order": [1, 2]}
    labels = build_bundle(FOLDER, TRANSPOSED, declared, "3d_fullres", ()).labels
    assert [(region.name, region.classes, region.written) for region in labels.regions] == [
        ("whole", (1, 2), 1),
        ("core", (2,), 2),
    ]
