"""A trained segmentation model: from a file to a label map in the file's own geometry.

Evaluation and the registered model both predict through this class, so what is registered is what was evaluated.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from data_pipelines.errors import InputError, WeightsError
from data_pipelines.notices import Notice, log_notices
from data_pipelines.volumes.checks import CheckedImage, check_finite, check_image, check_varies
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.formats.images import write_picture
from data_pipelines.volumes.formats.nifti import write_nifti
from data_pipelines.volumes.modalities import IMAGE_ALONE, Modalities
from data_pipelines.volumes.preprocess import Prepared, Preprocessing, prepare, restore_labels
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.modalities import missing_modalities, with_modalities
from flows.registry.bundle import WEIGHTS, read_bundle
from unet_models.networks.build import build_network
from unet_models.networks.early_exit import EarlyExit
from unet_models.networks.ensemble import Ensemble
from unet_models.networks.layers import SegmentationNetwork
from unet_models.networks.unet import UNet
from unet_models.precision import autocast
from unet_models.sampling.sliding_window import predict_logits
from unet_models.specs.segmentation import PredictSpec
from unet_models.specs.valid import border_of

logger = logging.getLogger(__name__)

ARRAY = "image"
"""Name of an array that came from no file, in messages."""


class Segmenter:
    """Predicts label maps."""

    def __init__(self, bundle: Bundle, weights: Path, device: str | torch.device | None = None) -> None:
        self.bundle = bundle
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = _build(bundle)
        self.model.load_state_dict(load_file(weights))
        self.model.to(self.device).eval()
        self.predictor: nn.Module = self.model
        if (confidence := bundle.predict.exit_confidence) is not None:
            self.predictor = EarlyExit(self.network, confidence, is_exclusive=not bundle.labels.regions)

    @property
    def network(self) -> UNet:
        """The network, or the first member of an ensemble: what is drawn of the inside of a network is drawn of it."""
        found = self.model.members[0] if isinstance(self.model, Ensemble) else self.model
        assert isinstance(found, UNet)
        return found

    @classmethod
    def from_folder(cls, folder: Path, device: str | None = None) -> Segmenter:
        """Load a folder with ``unetflow.json`` and ``model.safetensors``."""
        return cls(read_bundle(folder, Bundle), folder / WEIGHTS, device)

    def logits(self, prepared: np.ndarray, given: Modalities = IMAGE_ALONE) -> np.ndarray:
        """Predict the logits (K, *prepared) float32 of a preprocessed image (C, *prepared).

        Raises InputError for a text or sound that the network does not read.
        """
        model = with_modalities(self.predictor, self.bundle.model, given, self.device)
        logits = self.predict(model, prepared, self.bundle.predict)
        if not np.isfinite(logits).all():
            raise WeightsError(
                f"the network's output is not finite in precision {self.bundle.predict.precision}: its weights are "
                "broken, or the precision is too low (evaluate.precision=fp32)"
            )
        return logits

    def predict(self, model: nn.Module, prepared: np.ndarray, spec: PredictSpec) -> np.ndarray:
        """Predict, window by window, what ``model`` makes (K, *prepared) float32 of a preprocessed image."""
        bundle, image = self.bundle, torch.from_numpy(np.array(prepared)).to(self.device)
        with autocast(spec.precision, self.device):
            predicted = predict_logits(
                model, image, bundle.patch_size, spec, bundle.mirror_axes, border_of(bundle.model, image.ndim - 1)
            )
            return predicted.cpu().numpy()

    def segment_prepared(
        self, prepared: np.ndarray, done: Preprocessing, given: Modalities = IMAGE_ALONE
    ) -> np.ndarray:
        """Segment a preprocessed image (C, *prepared): numbers of classes (*stored) in the case's original geometry."""
        return restore_labels(self.logits(prepared, given), done, self.bundle.labels)

    def segment(
        self, image: np.ndarray, geometry: Geometry | None = None, given: Modalities = IMAGE_ALONE
    ) -> np.ndarray:
        """Segment an image (C, *spatial), or (*spatial) for one channel; return the label map in the values of files.

        Without ``geometry`` the array is taken to be in canonical orientation with the model's spacing. Raises
        InputError for another number of channels or axes, and DataError for values that training refuses.
        """
        ndim, channels = len(self.bundle.patch_size), self.bundle.channels
        image = image[None] if image.ndim == ndim else image
        if image.ndim != ndim + 1 or image.shape[0] != len(channels):
            raise InputError(
                f"image: expected ({len(channels)} channels, {ndim} spatial axes), got shape {image.shape}"
            )
        check_finite(
            ARRAY, list(image), [f"channel {index}: " if len(channels) > 1 else "" for index in range(len(channels))]
        )
        check_varies([(ARRAY, channel) for channel in image], channels)
        if geometry is not None:
            log_notices(self._find_outside(ARRAY, image, geometry))
        geometry = geometry or Geometry(image.shape[1:], self.bundle.spacing or (1.0,) * ndim)
        return self.bundle.labels.write(self._segment(image, geometry, given))

    def segment_files(self, paths: Sequence[str], given: Modalities = IMAGE_ALONE) -> tuple[np.ndarray, Geometry]:
        """Segment one file per channel, or one file with all channels: numbers of classes and geometry, as stored.

        Raises DataError for every rule that training would have found broken.
        """
        checked = self._read(paths)
        numbers = self._segment(checked.image, checked.geometry, given)
        return numbers.reshape(checked.stored_shape), checked.geometry

    def label_files(self, paths: Sequence[str], given: Modalities = IMAGE_ALONE) -> np.ndarray:
        """Segment files as ``segment_files`` does; return the label map in the values of label files."""
        return self.bundle.labels.write(self.segment_files(paths, given)[0])

    def prepare_files(self, paths: Sequence[str]) -> Prepared:
        """Read and preprocess an image, as ``segment_files`` does. Raises DataError where training would have."""
        checked = self._read(paths)
        return self._prepare(checked.image, checked.geometry)

    def segment_to_file(self, paths: Sequence[str], output: str, given: Modalities = IMAGE_ALONE) -> str:
        """Segment and write the label map, as ``.png`` or as NIfTI with the input's affine; return ``output``.

        The values are those of label files; NIfTI has no colours: there classes that are colours have their numbers.
        """
        labels, (numbers, geometry) = self.bundle.labels, self.segment_files(paths, given)
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        if output.lower().endswith(".png"):
            write_picture(output, labels.write(numbers.reshape(geometry.shape)))
        else:
            write_nifti(output, labels.write_numbers(numbers), geometry.affine_array(), geometry.unit_mm)
        return output

    def _read(self, paths: Sequence[str]) -> CheckedImage:
        bundle = self.bundle
        checked = check_image(paths, bundle.channels, len(bundle.patch_size), bundle.limits)
        log_notices([*checked.notices, *self._find_outside(paths[0], checked.image, checked.geometry)])
        return checked

    def _find_outside(self, path: str, image: np.ndarray, geometry: Geometry) -> list[Notice]:
        trained, is_absolute = self.bundle.trained_range, self.bundle.preprocess.normalise != "zscore"
        return trained.find_outside(path, image, geometry, is_absolute=is_absolute) if trained else []

    def _prepare(self, image: np.ndarray, geometry: Geometry) -> Prepared:
        return prepare(image, geometry, self.bundle.preprocess, self.bundle.spacing)

    def _segment(self, image: np.ndarray, geometry: Geometry, given: Modalities) -> np.ndarray:
        """Segment a checked image (C, *spatial): numbers of classes (*spatial)."""
        if missing := missing_modalities(self.bundle.model, given):
            logger.warning("segmented without %s, which this model reads beside the image", " and ".join(missing))
        prepared = self._prepare(image, geometry)
        numbers = self.segment_prepared(prepared.image, prepared.done, given)
        return self.bundle.postprocessing.apply(numbers, geometry.spacing)


def _build(bundle: Bundle) -> SegmentationNetwork:
    sizes = len(bundle.channels), bundle.labels.num_outputs, len(bundle.patch_size)
    members = [build_network(bundle.model, *sizes) for _ in range(bundle.num_members)]
    return Ensemble(members, is_exclusive=not bundle.labels.regions) if len(members) > 1 else members[0]
