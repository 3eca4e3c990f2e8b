"""A trained segmentation model: from a file to a label map in the file's own geometry.

Evaluation and the registered model both predict through this class, so what is registered is what was evaluated.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from data_pipelines.errors import InputError, WeightsError
from data_pipelines.notices import Notice, log_notices
from data_pipelines.volumes.checks import CheckedImage, check_finite, check_image, check_varies
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.formats.images import write_picture
from data_pipelines.volumes.formats.nifti import write_nifti
from data_pipelines.volumes.modalities import IMAGE_ALONE, Modalities
from data_pipelines.volumes.preprocess import Prepared, Preprocessing, prepare, sample_axes
from data_pipelines.volumes.restore import Box, restore_labels
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.modalities import missing_modalities, with_modalities
from flows.registry.bundle import WEIGHTS, read_bundle
from unet_models.networks.build import build_network
from unet_models.networks.early_exit import EarlyExit
from unet_models.networks.ensemble import Ensemble
from unet_models.networks.layers import SegmentationNetwork
from unet_models.networks.slices import Slicewise
from unet_models.networks.unet import UNet
from unet_models.precision import autocast
from unet_models.sampling.sliding_window import predict_planes
from unet_models.sampling.sweep import Sweep, plan_sweep
from unet_models.specs.segmentation import PredictSpec
from unet_models.specs.valid import border_of

logger = logging.getLogger(__name__)

ARRAY = "image"
"""Name of an array that came from no file, in messages."""


class Segmenter:
    """Predicts label maps."""

    turn: ClassVar = threading.Lock()
    """Held while a network predicts: all cores work for one image, while other threads read and write theirs."""

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

    def within(self, memory_gb: float) -> Self:
        """Return the same segmenter with another limit on the memory of a prediction, in GB."""
        predict = self.bundle.predict.model_copy(update={"memory_gb": memory_gb})
        twin = copy.copy(self)
        twin.bundle = self.bundle.model_copy(update={"predict": predict})
        return twin

    def predict(self, model: nn.Module, prepared: np.ndarray, spec: PredictSpec) -> np.ndarray:
        """Predict, window by window, what ``model`` makes (K, *prepared) float32 of a preprocessed image."""
        return torch.stack(list(self._planes(model, prepared, spec)), dim=1).cpu().numpy()

    def segment_prepared(
        self, prepared: np.ndarray, done: Preprocessing, given: Modalities = IMAGE_ALONE
    ) -> np.ndarray:
        """Segment a preprocessed image (C, *prepared): numbers of classes (*stored) in the case's original geometry.

        Memory is bounded by the bundle's ``predict.memory_gb``. Raises InputError for a text or sound that the
        network does not read, WeightsError where its output is not finite.
        """
        model = with_modalities(self.predictor, self.bundle.model, given, self.device)
        sweep = self._plan(prepared, done)

        def predict_box(box: Box) -> Iterator[Tensor]:
            for plane in self._planes(model, prepared, self.bundle.predict, sweep, box):
                if not plane.sum().isfinite():
                    raise WeightsError(
                        f"the network's output is not finite in precision {self.bundle.predict.precision}: its weights "
                        "are broken, or the precision is too low (evaluate.precision=fp32)"
                    )
                yield plane

        with self.turn:
            return restore_labels(predict_box, done, self.bundle.labels, sweep.axis, sweep.num_strips)

    def _plan(self, prepared: np.ndarray, done: Preprocessing) -> Sweep:
        """Choose the order of a prediction by its memory; warn where none stays within the limit."""
        bundle, limit = self.bundle, self.bundle.predict.memory_gb
        channels, *shape = prepared.shape
        sizes = channels, bundle.labels.num_outputs, bundle.predict.batch_size
        sweep = plan_sweep(shape, done.cropped_shape, bundle.patch_size, *sizes, limit)
        if sweep.gigabytes > limit:
            grid = "x".join(map(str, shape))
            logger.warning(
                "%d outputs on a grid of %s need about %.1f GB, more than the limit of %g GB (memory_gb)",
                bundle.labels.num_outputs,
                grid,
                sweep.gigabytes,
                limit,
            )
        return sweep

    def _planes(
        self,
        model: nn.Module,
        prepared: np.ndarray,
        spec: PredictSpec,
        sweep: Sweep | None = None,
        box: Box | None = None,
    ) -> Iterator[Tensor]:
        """Predict what ``model`` makes of a preprocessed image, plane by plane."""
        bundle = self.bundle
        # The arrays of shards are read-only, which tensors cannot be.
        image = torch.from_numpy(prepared if prepared.flags.writeable else prepared.copy()).to(self.device)
        border = (0,) * bundle.slicewise + border_of(bundle.model, bundle.network_ndim)
        model = Slicewise(model) if bundle.slicewise else model
        with autocast(spec.precision, self.device):
            yield from predict_planes(model, image, bundle.patch_size, spec, bundle.mirror_axes, border, sweep, box)

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
        prepared = self._prepare(image, geometry or self._assumed_geometry(image))
        return self.bundle.labels.write(self._segment(prepared, given))

    def segment_files(self, paths: Sequence[str], given: Modalities = IMAGE_ALONE) -> tuple[np.ndarray, Geometry]:
        """Segment one file per channel, or one file with all channels: numbers of classes and geometry, as stored.

        Raises DataError for every rule that training would have found broken.
        """
        checked = self._read(paths)
        prepared = self._prepare(checked.image, checked.geometry)
        shape, geometry = checked.stored_shape, checked.geometry
        del checked  # the image as stored is not held beside the prediction
        return self._segment(prepared, given).reshape(shape), geometry

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
        trained, kinds = self.bundle.trained_range, self.bundle.preprocess.normalisations(len(self.bundle.channels))
        is_absolute = [kind != "zscore" for kind in kinds]
        return trained.find_outside(path, image, geometry, is_absolute=is_absolute) if trained else []

    def _assumed_geometry(self, image: np.ndarray) -> Geometry:
        """Return the geometry of an array (C, *spatial) that comes without one: spacings are the model's."""
        spacing, shape = [1.0] * (image.ndim - 1), image.shape[1:]
        axes, _ = sample_axes(Geometry(shape, tuple(spacing)), self.bundle.preprocess)
        for axis, wanted in zip(axes, self.bundle.spacing or (), strict=False):
            spacing[axis] = wanted or 1.0
        return Geometry(shape, tuple(spacing))

    def _prepare(self, image: np.ndarray, geometry: Geometry) -> Prepared:
        return prepare(image, geometry, self.bundle.preprocess, self.bundle.spacing)

    def _segment(self, prepared: Prepared, given: Modalities) -> np.ndarray:
        """Segment a checked and preprocessed image: numbers of classes (*stored)."""
        if missing := missing_modalities(self.bundle.model, given):
            logger.warning("segmented without %s, which this model reads beside the image", " and ".join(missing))
        numbers = self.segment_prepared(prepared.image, prepared.done, given)
        return self.bundle.postprocessing.apply(numbers, prepared.done.stored_spacing)


def _build(bundle: Bundle) -> SegmentationNetwork:
    sizes = len(bundle.channels), bundle.labels.num_outputs, bundle.network_ndim
    members = [build_network(bundle.model, *sizes) for _ in range(bundle.num_members)]
    if len(members) == 1:
        return members[0]
    return Ensemble(members, is_exclusive=not bundle.labels.regions, averages_logits=bundle.averaged == "logits")
