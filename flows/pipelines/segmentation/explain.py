"""Pictures of what a segmentation model looks at: weights of its attention gates, and the saliency of each class."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from data_pipelines.errors import InputError
from data_pipelines.volumes.preprocess import Prepared, has_canonical_axes
from flows.pipelines.segmentation.reading import read_files
from flows.pipelines.segmentation.segmenter import Segmenter
from flows.report.heat import draw_heat
from unet_models.networks.inspection import ClassSaliency, GateMaps

logger = logging.getLogger(__name__)


class SegmentationExplainer:
    """Explains the predictions of one model."""

    def __init__(self, bundle: Path, class_name: str | None = None) -> None:
        """Load the model's folder; ``class_name`` limits saliency to one class, None: every one but the background.

        Raises InputError for a class that the model does not know.
        """
        self.segmenter = Segmenter.from_folder(bundle)
        if (number := self.segmenter.bundle.num_networks) > 1:
            logger.warning("the model averages %d networks: what is drawn is of the first one alone", number)
        classes = self.segmenter.bundle.labels.outputs
        if class_name is not None and class_name not in classes:
            raise InputError(f"--class {class_name}: the model segments {', '.join(classes)}; name one of these")
        self.classes = classes if class_name is None else {class_name: classes[class_name]}

    def __call__(self, row: Mapping[str, Any], folder: Path) -> list[Path]:
        """Write the pictures of one image, ``row["path"]`` as ``predict`` takes it, to ``folder``; return the files."""
        ready = read_files(self.segmenter.bundle, row["path"].split("|"))
        prepared = self.segmenter.complete(ready.sample)
        is_canonical = has_canonical_axes(prepared.done, ready.geometry)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, weights in self.maps(prepared):
            path = folder / f"{name.replace('/', '%2F')}.png"  # names of classes may hold one
            path.write_bytes(draw_heat(prepared.image, weights, prepared.done.spacing, is_canonical=is_canonical))
            written.append(path)
        return written

    def maps(self, prepared: Prepared) -> Iterator[tuple[str, np.ndarray]]:
        """Yield name and weights (*prepared) in 0..1 of every map: of the gates, then of each class and stage."""
        yield from gate_maps(self.segmenter, prepared.image).items()
        is_exclusive = not self.segmenter.bundle.labels.regions
        for name, output in self.classes.items():
            network = ClassSaliency(self.segmenter.network, output, is_exclusive=is_exclusive)
            saliency = _predict(self.segmenter, network, prepared.image)
            for stage, weights in enumerate(saliency, start=1):
                yield f"saliency-{name}-stage{stage}", weights / max(float(weights.max()), 1e-12)


def gate_maps(segmenter: Segmenter, prepared: np.ndarray) -> dict[str, np.ndarray]:
    """Predict the weights (*prepared) of each attention gate of an image (C, *prepared), and their mean, by name.

    Empty where the network has no gates.
    """
    gates = GateMaps(segmenter.network)
    if not gates.levels:
        return {}
    maps = _predict(segmenter, gates, prepared)
    of_levels = {f"gates-stage{level + 1}": weights for level, weights in zip(gates.levels, maps, strict=True)}
    return {"gates-mean": maps.mean(axis=0), **of_levels}


def _predict(segmenter: Segmenter, model: nn.Module, prepared: np.ndarray) -> np.ndarray:
    """Predict maps as the segmenter predicts logits, without test-time augmentation."""
    return segmenter.predict(model, prepared, segmenter.bundle.predict.model_copy(update={"tta": False}))
