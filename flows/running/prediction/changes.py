"""Flicker of restored clips whose frames are images of their own: a model that is given one frame cannot measure it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from data_pipelines.errors import DataError
from data_pipelines.images.specs import ImageSpec
from flows.pipelines.restoration.clips import log_change
from flows.running.prediction.items import Item

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)


def log_changes(
    clips: Mapping[str, Sequence[Item]], due: AbstractSet[str], failures: AbstractSet[str], images: ImageSpec
) -> None:
    """Log how much the frames of each clip change, before and after.

    ``due`` and ``failures`` are outputs: a clip without a new frame is skipped, and one that lacks a frame.
    """
    for name, frames in clips.items():
        outputs = [frame.output for frame in frames]
        if due.isdisjoint(outputs) or not failures.isdisjoint(outputs):
            continue
        sources = [str(frame.files[0]) for frame in frames]
        try:
            log_change(name, len(frames), _read(outputs, images), _read(sources, images))
        except DataError as error:  # the predictions are there all the same
            logger.warning("%s: the change from frame to frame is not measured: %s", name, error)


def _read(paths: Sequence[str], images: ImageSpec) -> Iterator[np.ndarray]:
    """Read one frame after the other, as the model does: a clip may be larger than memory."""
    from data_pipelines.images.pictures import Picture, read_image_file, read_picture

    for path in paths:
        picture = read_picture(read_image_file(path, images), path, images)
        assert isinstance(picture, Picture)  # no filter is set
        yield picture.pixels
