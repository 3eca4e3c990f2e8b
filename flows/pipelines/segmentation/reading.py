"""Images that a model segments: read, checked as in training, and preprocessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.notices import Notice, log_notices
from data_pipelines.volumes.checks import check_finite, check_image, check_varies
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.preprocess import Prepared, prepare, sample_axes
from flows.pipelines.segmentation.bundle import Bundle

ARRAY = "image"
"""Name of an array that came from no file, in messages."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An image as a model takes it, and the models that it consists of."""

    prepared: Prepared
    partner: Sample | None = None
    """The image as the bundle's partner takes it."""
    previous: Sample | None = None
    """The image as the bundle's previous model takes it. None: there is none, or ``prepared`` holds its label map."""


@dataclass(frozen=True, slots=True)
class Ready:
    """An image that is checked and preprocessed; the image as stored is not held beside it."""

    sample: Sample
    geometry: Geometry
    """Geometry of the file."""
    stored_shape: tuple[int, ...]
    """Shape of the file's voxels: (x, y, 1) where a 2-D image is stored as one slice."""

    @property
    def prepared(self) -> Prepared:
        """The image as the model itself takes it."""
        return self.sample.prepared


def read_files(bundle: Bundle, paths: Sequence[str]) -> Ready:
    """Read, check and preprocess one file per channel, or one file with all channels.

    Raises DataError for every rule that training would have found broken.
    """
    checked = check_image(paths, bundle.channels, len(bundle.patch_size), bundle.limits)
    log_notices([*checked.notices, *_find_outside(bundle, paths[0], checked.image, checked.geometry)])
    return Ready(_sample(bundle, checked.image, checked.geometry, paths[0]), checked.geometry, checked.stored_shape)


def read_array(bundle: Bundle, image: np.ndarray, geometry: Geometry | None = None) -> Ready:
    """Check and preprocess an image (C, *spatial), or (*spatial) for one channel.

    Without ``geometry`` the array is taken to be in canonical orientation with the model's spacing. Raises InputError
    for another number of channels or axes, and DataError for values that training refuses.
    """
    ndim, channels = len(bundle.patch_size), bundle.channels
    image = image[None] if image.ndim == ndim else image
    if image.ndim != ndim + 1 or image.shape[0] != len(channels):
        raise InputError(f"image: expected ({len(channels)} channels, {ndim} spatial axes), got shape {image.shape}")
    places = [f"channel {index}: " if len(channels) > 1 else "" for index in range(len(channels))]
    check_finite(ARRAY, list(image), places)
    log_notices(check_varies([(ARRAY, channel) for channel in image], channels))
    if geometry is not None:
        log_notices(_find_outside(bundle, ARRAY, image, geometry))
    geometry = geometry or _assumed_geometry(bundle, image)
    return Ready(_sample(bundle, image, geometry, ARRAY), geometry, geometry.shape)


def _find_outside(bundle: Bundle, path: str, image: np.ndarray, geometry: Geometry) -> list[Notice]:
    trained, kinds = bundle.trained_range, bundle.preprocess.normalisations(len(bundle.channels))
    is_absolute = [kind != "zscore" for kind in kinds]
    return trained.find_outside(path, image, geometry, is_absolute=is_absolute) if trained else []


def _assumed_geometry(bundle: Bundle, image: np.ndarray) -> Geometry:
    """Return the geometry of an array (C, *spatial) that comes without one: spacings are the model's.

    Where it resamples nothing, they are those of its training cases, in the middle of their range.
    """
    shape, trained = image.shape[1:], bundle.trained_range
    is_known = trained is not None and len(trained.spacing) == len(shape)
    spacing = [(low * high) ** 0.5 for low, high in trained.spacing] if trained and is_known else [1.0] * len(shape)
    axes, _ = sample_axes(Geometry(shape, tuple(spacing)), bundle.preprocess)
    for axis, wanted in zip(axes, bundle.spacing or (), strict=False):
        spacing[axis] = wanted or spacing[axis]
    return Geometry(shape, tuple(spacing))


def _sample(bundle: Bundle, image: np.ndarray, geometry: Geometry, name: str) -> Sample:
    """Preprocess an image, which messages call ``name``."""
    limit = bundle.limits.max_voxels
    prepared = prepare(image, geometry, bundle.preprocess, bundle.spacing, name=name, max_voxels=limit)
    partner, previous = (
        None if each is None else _sample(each, image, geometry, name) for each in (bundle.partner, bundle.previous)
    )
    return Sample(prepared, partner, previous)
