"""A trained segmentation model: from a file to a label map in the file's own geometry.

Evaluation and the registered model both predict through this class, so what is registered is what was evaluated.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from data_pipelines.errors import WeightsError
from data_pipelines.volumes.dicom_out import SUFFIX as DICOM_SUFFIX
from data_pipelines.volumes.dicom_out import write_segmentation
from data_pipelines.volumes.files import write_labels
from data_pipelines.volumes.formats.base import IMAGE_SUFFIXES, Geometry
from data_pipelines.volumes.modalities import IMAGE_ALONE, Modalities
from data_pipelines.volumes.preprocess import Prepared, Preprocessing, with_labels
from data_pipelines.volumes.restore import Box, Watch, restore_labels
from flows.pipelines.segmentation.averaging import segment_averaged, split_weights
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.maps import MapName, Maps, spooled_maps
from flows.pipelines.segmentation.modalities import missing_modalities, with_modalities
from flows.pipelines.segmentation.reading import Ready, Sample, read_array, read_files
from flows.registry.bundle import WEIGHTS, read_bundle
from unet_models.networks.build import build_network
from unet_models.networks.early_exit import EarlyExit
from unet_models.networks.ensemble import AVERAGE_COPIES, DISAGREEMENT_COPIES, Disagreement, Ensemble
from unet_models.networks.layers import SegmentationNetwork
from unet_models.networks.slices import Slicewise
from unet_models.networks.unet import UNet
from unet_models.precision import autocast
from unet_models.sampling.sliding_window import predict_planes
from unet_models.sampling.sweep import NUM_PLANES, Sweep, plan_sweep
from unet_models.specs.segmentation import PredictSpec
from unet_models.specs.valid import border_of

logger = logging.getLogger(__name__)

NUM_MAP_PLANES = 5
"""Further planes of all classes that exist at once while probabilities are computed and spooled."""


class Segmenter:
    """Predicts label maps."""

    turn: ClassVar = threading.Lock()
    """Held while a network predicts: all cores work for one image, while other threads read and write theirs."""

    def __init__(
        self, bundle: Bundle, weights: Path | Mapping[str, Tensor], device: str | torch.device | None = None
    ) -> None:
        self.bundle = bundle
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        own, parts = split_weights(load_file(weights) if isinstance(weights, Path) else weights)
        self.model = _build(bundle)
        self.model.load_state_dict(own)
        self.model.to(self.device).eval()
        self.partner = Segmenter(bundle.partner, parts["partner"], self.device) if bundle.partner else None
        self.previous = Segmenter(bundle.previous, parts["previous"], self.device) if bundle.previous else None
        self.predictor: nn.Module = self.model
        if (confidence := bundle.predict.exit_confidence) is not None:
            self.predictor = EarlyExit(self.network, confidence, is_exclusive=not bundle.labels.regions)

    @property
    def network(self) -> UNet:
        """The network, or the first member of an ensemble: what is drawn of the inside of a network is drawn of it."""
        found = self.model.members[0] if isinstance(self.model, Ensemble) else self.model
        assert isinstance(found, UNet)
        return found

    @property
    def models(self) -> dict[str, Segmenter]:
        """Itself as ``unet``, and the models within it by part: ``partner``, ``previous``, ``partner_previous``."""
        found = {"unet": self}
        for part, model in (("partner", self.partner), ("previous", self.previous)):
            for name, each in model.models.items() if model else ():
                found[part if name == "unet" else f"{part}_{name}"] = each
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
        twin.partner = self.partner.within(memory_gb) if self.partner else None
        twin.previous = self.previous.within(memory_gb) if self.previous else None
        return twin

    def predict(self, model: nn.Module, prepared: np.ndarray, spec: PredictSpec) -> np.ndarray:
        """Predict, window by window, what ``model`` makes (K, *prepared) float32 of a preprocessed image."""
        return torch.stack(list(self._planes(model, prepared, spec)), dim=1).cpu().numpy()

    def segment_prepared(
        self, prepared: np.ndarray, done: Preprocessing, given: Modalities = IMAGE_ALONE, watch: Watch | None = None
    ) -> np.ndarray:
        """Segment a preprocessed image (C, *prepared): numbers of classes (*stored) in the case's original geometry.

        ``watch`` is given the logits on the original grid, plane by plane. Memory is bounded by the bundle's
        ``predict.memory_gb``. Raises InputError for a text or sound that the network does not read, WeightsError where
        its output is not finite.
        """
        maps = watch if isinstance(watch, Maps) else None
        predictor = self.predictor
        if _has_disagreement(maps):
            assert isinstance(self.model, Ensemble)
            predictor = Disagreement(self.model, self.bundle.temperatures)
        model = with_modalities(predictor, self.bundle.model, given, self.device)
        sweep = self._plan(prepared, done, maps)

        def predict_box(box: Box) -> Iterator[Tensor]:
            for plane in self._planes(model, prepared, self.bundle.predict, sweep, box):
                if not plane.sum().isfinite():
                    raise WeightsError(
                        f"the network's output is not finite in precision {self.bundle.predict.precision}: its weights "
                        "are broken, or the precision is too low (evaluate.precision=fp32)"
                    )
                yield plane

        with self.turn:
            return restore_labels(predict_box, done, self.bundle.labels, sweep.axis, sweep.num_strips, watch)

    def segment_sample(self, sample: Sample, given: Modalities = IMAGE_ALONE, watch: Watch | None = None) -> np.ndarray:
        """Segment an image as ``segment_prepared`` does, with the models within this one."""
        prepared = self.complete(sample, given)
        if self.bundle.partner is None:
            return self.segment_prepared(prepared.image, prepared.done, given, watch)
        assert self.partner is not None
        assert sample.partner is not None
        other = self.partner.complete(sample.partner, given)
        return segment_averaged((self, self.partner), (prepared, other), given, watch)

    def complete(self, sample: Sample, given: Modalities = IMAGE_ALONE) -> Prepared:
        """Return the image as the network takes it: with the label map of the previous model, where there is one."""
        prepared = sample.prepared
        if self.bundle.previous is None or sample.previous is None:
            return prepared
        assert self.previous is not None
        numbers = self.previous.segment_sample(sample.previous, given)
        return with_labels(prepared, numbers)

    def _plan(self, prepared: np.ndarray, done: Preprocessing, maps: Maps | None = None) -> Sweep:
        """Choose the order of a prediction by its memory; warn where none stays within the limit."""
        bundle, limit = self.bundle, self.bundle.predict.memory_gb
        channels, *shape = prepared.shape
        num_outputs = bundle.labels.num_outputs + _has_disagreement(maps)
        sizes = channels, num_outputs, bundle.predict.batch_size
        num_planes = NUM_PLANES + (NUM_MAP_PLANES if maps else 0)
        copies = self._num_copies(maps)
        sweep = plan_sweep(shape, done.cropped_shape, bundle.patch_size, *sizes, limit, num_planes, copies)
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

    def _num_copies(self, maps: Maps | None) -> int:
        """Return how many logits of a batch of windows exist at once."""
        if not isinstance(self.predictor, Ensemble):
            return 1
        return DISAGREEMENT_COPIES * len(self.predictor.members) if _has_disagreement(maps) else AVERAGE_COPIES

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

    def label(self, ready: Ready, given: Modalities = IMAGE_ALONE, maps: Maps | None = None) -> np.ndarray:
        """Segment an image: numbers of classes in the shape of its file. ``maps`` are filled meanwhile."""
        if missing := missing_modalities(self.bundle.model, given):
            logger.warning("segmented without %s, which this model reads beside the image", " and ".join(missing))
        numbers = self.segment_sample(ready.sample, given, maps)
        spacing = ready.prepared.done.stored_spacing
        return self.bundle.postprocessing.apply(numbers, spacing).reshape(ready.stored_shape)

    def segment(
        self, image: np.ndarray, geometry: Geometry | None = None, given: Modalities = IMAGE_ALONE
    ) -> np.ndarray:
        """Segment an array, see ``read_array``; return the label map in the values of files."""
        return self.bundle.labels.write(self.label(read_array(self.bundle, image, geometry), given))

    def segment_files(self, paths: Sequence[str], given: Modalities = IMAGE_ALONE) -> tuple[np.ndarray, Geometry]:
        """Segment files, see ``read_files``: numbers of classes and geometry, as stored."""
        ready = read_files(self.bundle, paths)
        return self.label(ready, given), ready.geometry

    def label_files(self, paths: Sequence[str], given: Modalities = IMAGE_ALONE) -> np.ndarray:
        """Segment files as ``segment_files`` does; return the label map in the values of label files."""
        return self.bundle.labels.write(self.segment_files(paths, given)[0])

    def segment_with_maps(
        self, ready: Ready, names: Sequence[MapName], given: Modalities = IMAGE_ALONE
    ) -> dict[str, np.ndarray]:
        """Segment an image: ``labels`` in the values of files, and maps by name in the image's own geometry."""
        with spooled_maps(self.bundle, names, None) as maps:
            labels = self.bundle.labels.write(self.label(ready, given, maps if names else None))
            return {"labels": labels} | maps.arrays(ready.prepared.done, ready.stored_shape)

    def segment_to_file(
        self, paths: Sequence[str], output: str, given: Modalities = IMAGE_ALONE, names: Sequence[MapName] = ()
    ) -> str:
        """Segment and write the label map as ``write_labels`` does, with the input's geometry; return ``output``.

        Of a DICOM series it may be a segmentation (``.dcm``). Raises InputError where the format cannot hold it.

        The values are those of label files; only PNG and TIFF have colours: elsewhere classes that are colours have
        their numbers. Maps that are named lie beside it, see ``map_path``.
        """
        ready = read_files(self.bundle, paths)
        path = Path(output)
        path.parent.mkdir(parents=True, exist_ok=True)
        with spooled_maps(self.bundle, names, path.parent) as maps:
            numbers = self.label(ready, given, maps if names else None)
            maps.write(path, ready.prepared.done, ready.geometry, ready.stored_shape)
        labels, geometry = self.bundle.labels, ready.geometry
        if output.lower().endswith(DICOM_SUFFIX):
            segments = {number: name for name, number in labels.numbers.items() if number}
            write_segmentation(path, numbers, Path(paths[0]), segments, self.bundle.limits)
        elif output.lower().endswith(IMAGE_SUFFIXES):
            write_labels(output, labels.write(numbers.reshape(geometry.shape)), geometry)
        else:
            write_labels(output, labels.write_numbers(numbers), geometry)
        return output


def _has_disagreement(maps: Maps | None) -> bool:
    """Tell whether the disagreement of the members is asked for."""
    return maps is not None and "disagreement" in maps.names


def _build(bundle: Bundle) -> SegmentationNetwork:
    sizes = len(bundle.channels), bundle.labels.num_outputs, bundle.network_ndim
    members = [build_network(bundle.model, *sizes, num_previous=bundle.num_previous) for _ in range(bundle.num_members)]
    if len(members) == 1:
        return members[0]
    return Ensemble(members, is_exclusive=not bundle.labels.regions, averages_logits=bundle.averaged == "logits")
