"""A trained segmentation model with all it needs to go from a file to a label map in the file's own geometry.

Evaluation and the registered model both predict through this class, so what is registered is what was evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from data_pipelines.volumes.preprocess import Preprocessing, prepare, restore_labels
from data_pipelines.volumes.specs import PreprocessSpec
from data_pipelines.specs import Spec
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.files import read_volume
from data_pipelines.volumes.formats.nifti import write_nifti
from data_pipelines.volumes.formats.images import write_picture
from unet_models.precision import autocast
from unet_models.sampling.sliding_window import predict_logits
from unet_models.specs.segmentation import PredictSpec
from unet_models.specs.networks import UNetSpec
from unet_models.networks.unet import UNet

BUNDLE = "unetflow.json"
WEIGHTS = "model.safetensors"
MAX_VOXELS = 1 << 30


class Bundle(Spec):
    """What a weights file must be accompanied by to be usable."""

    format: int = 1
    model: UNetSpec
    classes: dict[str, int]
    channels: tuple[str, ...]
    patch_size: tuple[int, ...]
    preprocess: PreprocessSpec
    spacing: tuple[float, ...] | None
    """Target spacing in mm, canonical axes; none: each case's own."""
    predict: PredictSpec


class Segmenter:
    """Predicts label maps. ``folder`` holds ``unetflow.json`` and ``model.safetensors``."""

    def __init__(self, bundle: Bundle, weights: Path, device: str | torch.device | None = None) -> None:
        self.bundle = bundle
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        ndim = len(bundle.patch_size)
        self.model = UNet(bundle.model, len(bundle.channels), len(bundle.classes), ndim)
        self.model.load_state_dict(load_file(weights))
        self.model.to(self.device).eval()

    @classmethod
    def from_folder(cls, folder: Path, device: str | None = None) -> Segmenter:
        """Load what ``write_bundle`` wrote."""
        bundle = Bundle.model_validate(json.loads((folder / BUNDLE).read_text()))
        return cls(bundle, folder / WEIGHTS, device)

    def logits(self, prepared: np.ndarray) -> np.ndarray:
        """(C, *prepared) preprocessed image -> (K, *prepared) float32 logits."""
        image = torch.from_numpy(np.array(prepared)).to(self.device)
        with autocast(self.bundle.predict.precision, self.device):
            return predict_logits(self.model, image, self.bundle.patch_size, self.bundle.predict).cpu().numpy()

    def segment_prepared(self, prepared: np.ndarray, done: Preprocessing) -> np.ndarray:
        """(C, *prepared) -> (*stored) label map in the case's original geometry."""
        return restore_labels(self.logits(prepared), done)

    def segment(self, image: np.ndarray, geometry: Geometry | None = None) -> np.ndarray:
        """(C, *spatial), or (*spatial) for one channel -> (*spatial) label map.

        Without ``geometry`` the array is taken to be in canonical orientation with the model's spacing.
        """
        ndim = len(self.bundle.patch_size)
        image = image[None] if image.ndim == ndim else image
        if image.ndim != ndim + 1 or image.shape[0] != len(self.bundle.channels):
            raise ValueError(
                f"image: expected ({len(self.bundle.channels)} channels, {ndim} spatial axes), got shape {image.shape}"
            )
        geometry = geometry or Geometry(image.shape[1:], self.bundle.spacing or (1.0,) * ndim)
        prepared = prepare(image, geometry, self.bundle.preprocess, self.bundle.spacing)
        return self.segment_prepared(prepared.image, prepared.done)

    def segment_files(self, paths: Sequence[str]) -> tuple[np.ndarray, Geometry]:
        """One file per channel (NIfTI, or a picture with its colour channels) -> label map and geometry."""
        volumes = [read_volume(path, MAX_VOXELS) for path in paths]
        ndim = len(self.bundle.patch_size)
        channels = []
        for volume in volumes:
            array = np.asarray(volume.array)
            channels += [array] if array.ndim == ndim else list(np.moveaxis(array, -1, 0))
        image = np.stack([channel.astype(np.float32) for channel in channels])
        return self.segment(image, volumes[0].geometry), volumes[0].geometry

    def segment_to_file(self, paths: Sequence[str], output: str) -> str:
        """Segment and write a label map, a picture (``.png``) or NIfTI with the input's affine; returns ``output``."""
        labels, geometry = self.segment_files(paths)
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        if output.lower().endswith(".png"):
            write_picture(output, labels)
        else:
            write_nifti(output, labels, geometry.affine_array())
        return output


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Write the JSON that goes beside the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BUNDLE).write_text(bundle.model_dump_json(indent=1))
