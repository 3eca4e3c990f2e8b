"""Folders of results as nnU-Net 2 writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

INTENSITIES = {"percentile_00_5": -80.0, "percentile_99_5": 190.0, "mean": 40.0, "std": 60.0}
LABELS: dict[str, Any] = {"background": 0, "liver": 1, "tumour": 2}


def architecture(
    ndim: int,
    *,
    residual: bool = False,
    kernels: Sequence[Sequence[int]] | None = None,
    strides: Sequence[Sequence[int]] | None = None,
    channels: Sequence[int] = (4, 8, 12),
) -> dict[str, Any]:
    """Describe a small network as plans do."""
    number = len(channels)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet."
        + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
        "arch_kwargs": {
            "n_stages": number,
            "features_per_stage": list(channels),
            "conv_op": f"torch.nn.modules.conv.Conv{ndim}d",
            "kernel_sizes": kernels or [[3] * ndim] * number,
            "strides": strides or [[1] * ndim, *[[2] * ndim] * (number - 1)],
            ("n_blocks_per_stage" if residual else "n_conv_per_stage"): [1, 3, 4] if residual else [2] * number,
            "n_conv_per_stage_decoder": [1] * (number - 1) if residual else [2] * (number - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{ndim}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans(
    patch: Sequence[int],
    spacing: Sequence[float],
    network: Mapping[str, Any],
    schemes: Sequence[str] = ("ZScoreNormalization",),
    **others: Any,
) -> dict[str, Any]:
    """Write plans of one configuration, ``3d_fullres`` or ``2d`` by the size of the patch."""
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": "Dataset900_Small",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(n): INTENSITIES for n in range(len(schemes))},
        "configurations": {
            "2d" if len(patch) == 2 else "3d_fullres": {
                "data_identifier": "nnUNetPlans",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": list(patch),
                "spacing": list(spacing),
                "normalization_schemes": list(schemes),
                "use_mask_for_norm": [scheme == "ZScoreNormalization" for scheme in schemes],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
                "architecture": dict(network),
                "batch_dice": False,
            }
        },
        **others,
    }


def dataset(num_channels: int = 1, labels: Mapping[str, Any] = LABELS, file_ending: str = ".nii.gz") -> dict[str, Any]:
    """Write ``dataset.json``."""
    return {
        "channel_names": {str(n): f"channel{n}" for n in range(num_channels)},
        "labels": dict(labels),
        "numTraining": 2,
        "file_ending": file_ending,
    }


def write_results(
    folder: Path,
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    weights: Sequence[Mapping[str, Tensor]],
    mirror_axes: Sequence[int] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write plans, data set and each fold's checkpoint, with numbers as nnU-Net's log has them; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (configuration,) = plans["configurations"]
    for fold, state in enumerate(weights):
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        checkpoint = {
            "network_weights": dict(state),
            "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
            "grad_scaler_state": None,
            "logging": {"train_losses": [np.float32(0.5)], "mean_fg_dice": [np.float64(0.8)], "lrs": [0.01]},
            "_best_ema": np.float64(0.8),
            "current_epoch": 1000,
            "init_args": {
                "plans": dict(plans),
                "configuration": configuration,
                "fold": fold,
                "dataset_json": dict(dataset),
                "device": torch.device("cpu"),
            },
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": None if mirror_axes is None else tuple(mirror_axes),
            **(extra or {}),
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder
