"""``plans.json`` and ``dataset.json`` of nnU-Net 2 to the description of a model of ours that predicts alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_pipelines.errors import WeightsError
from data_pipelines.volumes.sources.declarations import declared_channels, declared_labels, read_dataset_json
from data_pipelines.volumes.specs import DataSpec, IntensitySpec, Normalisation, PreprocessSpec
from flows.pipelines.segmentation.bundle import Bundle
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import PredictSpec

Json = Mapping[str, Any]

READERS = {
    "SimpleITKIO": ("stored", True),
    "NibabelIO": ("stored", True),
    "NibabelIOWithReorient": ("canonical", True),
    "Tiff3DIO": ("stored", True),
    "NaturalImage2DIO": ("stored", False),
}
"""Reader to the orientation of its axes, and whether it reads volumes, whose axes it reverses."""
COLOUR = IntensitySpec(low=0, high=255, mean=0, std=255)
"""Intensities of a channel that is one of a picture's colours."""
_NETWORKS = {"PlainConvUNet": "plain", "ResidualEncoderUNet": "residual_encoder"}
_LINEAR = {"order": 1, "order_z": 0, "force_separate_z": None}
_CUBIC = _LINEAR | {"order": 3}


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises WeightsError where it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read ({error}); name a folder of results of nnU-Net 2") from None


def read_plans(folder: Path, configuration: str, mirror_axes: Sequence[int], num_members: int = 1) -> Bundle:
    """Describe the model of a folder of results. Raises WeightsError for what ours would not predict alike."""
    plans, dataset = read_json(folder / "plans.json"), read_dataset_json(folder)
    try:
        return build_bundle(folder, plans, dataset, configuration, mirror_axes, num_members)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder}: plans.json or dataset.json lacks {error}: are they of nnU-Net 2?") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise WeightsError(f"{folder}: plans.json: {where}: {first['msg']}") from None


def build_bundle(
    folder: Path, plans: Json, dataset: Json, configuration: str, mirror_axes: Sequence[int], num_members: int = 1
) -> Bundle:
    """Describe the model of plans and data set, both as JSON; errors name ``folder``."""
    settings = resolve_configuration(plans, configuration)
    names = declared_channels(dataset, DataSpec(), folder)
    orientation, is_volume = _known(READERS, "image_reader_writer", plans["image_reader_writer"])
    patch, spacing = tuple(settings["patch_size"]), tuple(settings["spacing"])
    slicewise = is_volume and len(patch) == 2
    order = plans[
        "transpose_forward"
    ]  # nnU-Net counts a volume's axes from the last; an image's first is its one slice
    axes = tuple(2 - axis for axis in order) if is_volume else tuple(axis - 1 for axis in order[1:])
    return Bundle(
        model=network_spec(settings["architecture"]),
        labels=declared_labels(dataset, folder),
        channels=names,
        patch_size=(1, *patch) if slicewise else patch,
        preprocess=_preprocessing(plans, settings, len(names), orientation, axes),
        spacing=(None, *spacing) if slicewise else spacing,
        mirror_axes=tuple(axis + slicewise for axis in mirror_axes),
        slicewise=slicewise,
        num_members=num_members,
        averaged="logits",
        predict=PredictSpec(weighting="nnunet"),
    )


def resolve_configuration(plans: Json, name: str) -> Json:
    """Return a configuration with what it inherits; that of plans before nnU-Net 2.3 in today's form."""
    settings = dict(_known(plans["configurations"], "configuration", name))
    if parent := settings.pop("inherits_from", None):
        settings = {**resolve_configuration(plans, parent), **settings}
    if settings.get("previous_stage"):
        raise WeightsError(f"plans.json: {name} is the second stage of a cascade, which is not read; import 3d_fullres")
    if "architecture" not in settings and "UNet_class_name" in settings:
        settings["architecture"] = _architecture_of_old_plans(settings)
    return settings


def network_spec(architecture: Json) -> UNetSpec:
    """Describe a network of nnU-Net's."""
    block = _known(_NETWORKS, "network_class_name", str(architecture["network_class_name"]).rpartition(".")[2])
    arguments = architecture["arch_kwargs"]
    _require("norm_op", str(arguments["norm_op"]).rpartition(".")[2][:12], "InstanceNorm")
    _require("norm_op_kwargs", dict(arguments["norm_op_kwargs"] or {}), {"eps": 1e-5, "affine": True})
    _require("nonlin", str(arguments["nonlin"]).rpartition(".")[2], "LeakyReLU")
    _require("negative slope of nonlin", (arguments["nonlin_kwargs"] or {}).get("negative_slope", 0.01), 0.01)
    _require("dropout_op", arguments["dropout_op"], None)
    _require("conv_bias", arguments["conv_bias"], True)
    number = int(arguments["n_stages"])
    strides = [_per_axis(stride) for stride in _per_stage(arguments["strides"], number)]
    kernels = [_per_axis(kernel) for kernel in _per_stage(arguments["kernel_sizes"], number)]
    _require("stride of the first stage", set(strides[0]), {1})
    blocks = arguments["n_blocks_per_stage" if block == "residual_encoder" else "n_conv_per_stage"]
    return UNetSpec(
        channels=tuple(_per_stage(arguments["features_per_stage"], number)),
        strides=tuple(stride[0] if len(stride) == 1 else stride for stride in strides[1:]),
        num_blocks=tuple(_per_stage(blocks, number)),
        num_decoder_blocks=tuple(reversed(_per_stage(arguments["n_conv_per_stage_decoder"], number - 1))),
        block=block,
        decoder_block="plain",
        kernel_size=tuple(kernel[0] if len(kernel) == 1 else kernel for kernel in kernels),
        deep_supervision=number - 2,
    )


def files_per_image(bundle: Bundle) -> int:
    """Return how many files an image has: one for each channel, but one for all colours of a picture.

    Plans do not say so: colours are what is normalised as such (``RGBTo01Normalization``).
    """
    known = bundle.preprocess.intensities or ()
    is_picture = len(bundle.patch_size) == 2 and bool(known) and all(each == COLOUR for each in known)
    return 1 if is_picture else len(bundle.channels)


def _preprocessing(
    plans: Json, settings: Json, num_channels: int, orientation: Any, axes: tuple[int, ...]
) -> PreprocessSpec:
    for name, wanted in (("data", _CUBIC), ("probabilities", _LINEAR)):
        _require(f"resampling_fn_{name}", settings[f"resampling_fn_{name}"], "resample_data_or_seg_to_shape")
        given = settings[f"resampling_fn_{name}_kwargs"]
        _require(f"resampling_fn_{name}_kwargs", {key: given.get(key) for key in wanted}, wanted)
    _require("preprocessor_name", settings["preprocessor_name"], "DefaultPreprocessor")
    known = plans.get("foreground_intensity_properties_per_channel") or plans.get(
        "foreground_intensity_properties_by_modality", {}
    )
    chosen = [
        _normalisation(scheme, known.get(str(number), {}))
        for number, scheme in enumerate(settings["normalization_schemes"][:num_channels])
    ]
    names = tuple(name for name, _ in chosen)
    return PreprocessSpec(
        orientation=orientation,
        axes=axes,
        spacing=None,  # that of the bundle
        image_interpolation="spline",
        foreground_crop="nonzero",
        masked=tuple(bool(each) for each in settings["use_mask_for_norm"][:num_channels]),
        normalise=names,
        intensities=tuple(found for _, found in chosen) if "intensities" in names else None,
    )


def _normalisation(scheme: str, known: Json) -> tuple[Normalisation, IntensitySpec]:
    """Return the normalisation of a channel, and the intensities that it takes; of others these mean nothing."""
    unused = IntensitySpec(low=0, high=1, mean=0, std=1)
    match scheme:
        case "ZScoreNormalization":
            return "zscore", unused
        case "NoNormalization":
            return "none", unused
        case "RGBTo01Normalization":
            return "intensities", COLOUR
        case "CTNormalization":
            low, high = known["percentile_00_5"], known["percentile_99_5"]
            return "intensities", IntensitySpec(low=low, high=high, mean=known["mean"], std=max(known["std"], 1e-8))
    raise WeightsError(f"plans.json: normalisation {scheme} is not read")


def _architecture_of_old_plans(settings: Json) -> Json:
    """Return what plans before nnU-Net 2.3 say of the network, as later ones do."""
    number = len(settings["n_conv_per_stage_encoder"])
    base, most = settings["UNet_base_num_features"], settings["unet_max_num_features"]
    per_stage = "n_conv_per_stage" if settings["UNet_class_name"] == "PlainConvUNet" else "n_blocks_per_stage"
    return {
        "network_class_name": settings["UNet_class_name"],
        "arch_kwargs": {
            "n_stages": number,
            "features_per_stage": [min(base * 2**stage, most) for stage in range(number)],
            "kernel_sizes": settings["conv_kernel_sizes"],
            "strides": settings["pool_op_kernel_sizes"],
            per_stage: settings["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": settings["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": "InstanceNorm",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "nonlin": "LeakyReLU",
            "nonlin_kwargs": {},
        },
    }


def _known(choices: Json, field: str, value: str) -> Any:
    if value not in choices:
        raise WeightsError(f"plans.json: {field} {value} is not read; {', '.join(choices)} are")
    return choices[value]


def _require(field: str, value: Any, wanted: Any) -> None:
    if value != wanted:
        raise WeightsError(f"plans.json: {field} is {value}; only {wanted} is read")


def _per_stage(value: Any, number: int) -> list[Any]:
    return list(value) if isinstance(value, list) else [value] * number


def _per_axis(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value)) if isinstance(value, list) else (int(value),)
