"""Average of two models that prepare images differently: of their probabilities, on the grid of the file.

Those of the first are spooled plane by plane, those of the second in a file of the whole grid; memory stays that of the
prediction of one model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from data_pipelines.volumes.modalities import IMAGE_ALONE, Modalities
from data_pipelines.volumes.preprocess import Prepared, crop_stored, restore_mask
from data_pipelines.volumes.restore import Watch
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.maps import STEPS, MapName, Maps, spooled_maps
from unet_models.sampling.probabilities import calibrated_probabilities, disagreement

if TYPE_CHECKING:
    from flows.pipelines.segmentation.segmenter import Segmenter

PARTS = ("partner", "previous")
"""Models within a model: begin of the names of their weights."""
PROBABILITIES: MapName = "probabilities"


def join_weights(own: Mapping[str, Tensor], **parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a model and of the models within it, one of ``PARTS`` each, as those of one."""
    others = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
    return {**own, **others}


def split_weights(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Return the weights of a model itself, and those of each of ``PARTS``: none where there is no such."""
    own = {name: tensor for name, tensor in tensors.items() if name.split(".")[0] not in PARTS}
    parts = {
        part: {name.removeprefix(f"{part}."): each for name, each in tensors.items() if name.startswith(f"{part}.")}
        for part in PARTS
    }
    return own, parts


def segment_averaged(
    models: tuple[Segmenter, Segmenter],
    samples: tuple[Prepared, Prepared],
    given: Modalities = IMAGE_ALONE,
    watch: Watch | None = None,
) -> np.ndarray:
    """Segment an image, prepared for each model: numbers of classes (*stored) by the mean of both probabilities.

    What the first model crops away is background. ``watch`` is given the logits of the mean, plane by plane, and behind
    them how far the two disagree, where it is for maps of that.
    """
    wants_disagreement = isinstance(watch, Maps) and "disagreement" in watch.names
    first, second = models
    labels, done = first.bundle.labels, samples[0].done
    is_exclusive = not labels.regions
    numbers = np.zeros(done.cropped_shape, np.uint8 if labels.num_classes <= 256 else np.int16)
    folder = Path(tempfile.gettempdir())
    with tempfile.TemporaryFile() as file, spooled_maps(_uncalibrated(first.bundle), (PROBABILITIES,), folder) as mine:
        theirs = crop_stored(_spread(second, samples[1], given, file), done)
        first.segment_prepared(samples[0].image, done, given, mine)
        for place, probabilities in mine.planes():
            other = theirs[slice(None), *place] / np.float32(STEPS)
            both = torch.from_numpy(np.stack([probabilities, other]))
            outputs = _logits(both.mean(dim=0), is_exclusive=is_exclusive)
            numbers[place] = labels.decide(outputs.numpy())
            if wants_disagreement:
                logits, temperatures = _logits(both, is_exclusive=is_exclusive), first.bundle.temperatures
                members = calibrated_probabilities(logits, temperatures, is_exclusive=is_exclusive, dim=1)
                outputs = torch.cat([outputs, disagreement(members, is_exclusive=is_exclusive)[None]])
            if watch is not None:
                watch(place, outputs)
    return restore_mask(numbers, done)


def _spread(model: Segmenter, sample: Prepared, given: Modalities, file: IO[bytes]) -> np.ndarray:
    """Predict the probabilities of a model: (K, *stored) in ``STEPS``, in a file."""
    done = sample.done
    with spooled_maps(_uncalibrated(model.bundle), (PROBABILITIES,), Path(tempfile.gettempdir())) as maps:
        model.segment_prepared(sample.image, done, given, maps)
        shape = (model.bundle.labels.num_outputs, *done.stored_shape)
        found = np.memmap(file, np.uint16, "w+", shape=shape)
        for place, volume in enumerate(maps.volumes(PROBABILITIES, done)):
            found[place] = np.rint(volume * STEPS)
    return found


def _uncalibrated(bundle: Bundle) -> Bundle:
    """Return a bundle without temperatures: labels are decided by what networks say."""
    return bundle.model_copy(update={"temperatures": ()})


def _logits(probabilities: Tensor, *, is_exclusive: bool) -> Tensor:
    """Invert softmax, or sigmoid; a probability of 0 is half of the smallest step."""
    smallest = 0.5 / STEPS
    return probabilities.clamp_min(smallest).log() if is_exclusive else probabilities.logit(eps=smallest)
