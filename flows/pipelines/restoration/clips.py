"""Clips: which images are frames of one, and how much they change from frame to frame.

Evaluation and prediction group frames by the same rule, ``ImageSpec.clips``; a model is registered with it.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from data_pipelines.images.clips import find_clips
from data_pipelines.images.specs import ImageSpec

logger = logging.getLogger(__name__)

CLIP_FACTS = "images"
"""Name of the rule among the facts that a model is registered with."""

Key = TypeVar("Key")


def clip_facts(spec: ImageSpec) -> dict[str, Any]:
    """Return the facts by which prediction finds the clips among its inputs and reads their frames; JSON."""
    return {CLIP_FACTS: spec.model_dump(mode="json", include={"clip_pattern", "frames", "background"})}


def read_clip_facts(metadata: Mapping[str, Any]) -> ImageSpec:
    """Read the facts that a model was registered with; without them, no image is part of a clip."""
    return ImageSpec.model_validate(metadata.get(CLIP_FACTS, {}))


def group_frames(ids: Mapping[Key, str], pattern: str) -> dict[str, list[Key]]:
    """Group images, key to id, by the clip that ``pattern`` finds in their ids; frames are in the order of their ids.

    Raises ConfigError where an id does not match.
    """
    clips = find_clips(({"case_id": each} for each in ids.values()), pattern)
    groups: dict[str, list[Key]] = defaultdict(list)
    for key in sorted(ids, key=ids.__getitem__):
        groups[clips[ids[key]]].append(key)
    return dict(groups)


def mean_change(frames: Iterable[np.ndarray]) -> float:
    """Compute the mean absolute change from each frame to the next, in 8-bit levels.

    Neighbours of different sizes are left out, as in evaluation; NaN where there are no others.
    """
    changes = [np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(frames) if a.shape == b.shape]
    return float(np.mean(changes)) if changes else math.nan


def log_change(clip: str, num_frames: int, restored: Iterable[np.ndarray], sources: Iterable[np.ndarray]) -> None:
    """Log how much the frames of a clip change, before and after; nothing where no neighbours have one size."""
    after, before = mean_change(restored), mean_change(sources)
    if not math.isnan(after):
        message = "%s: %d frames; mean change from frame to frame %.2f of 255, before %.2f"
        logger.info(message, clip, num_frames, after, before)
