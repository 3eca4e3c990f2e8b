"""A raw case to a training sample, with a record of what was done so that predictions can be restored.

as stored -> canonical axes (RAS+) -> foreground crop -> normalise -> resample        ``prepare``
logits    -> resample back -> decide -> uncrop -> stored axes                         ``restore.restore_labels``

Both ways, slices that are much thicker than their pixels are resampled one by one (nnU-Net's separate z).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from data_pipelines.errors import broken_rule
from data_pipelines.specs import Spec
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.resampling import SPLINE_ORDER, resample, resample_labels
from data_pipelines.volumes.spacing import find_coarse_axis
from data_pipelines.volumes.specs import PreprocessSpec, Spacing

MASKED_SHARE = 0.75
"""Share of a volume below which what a foreground crop leaves is normalised by its foreground alone (nnU-Net's)."""


class Preprocessing(Spec):
    """Record of how one case was preprocessed, in order of application; what is needed to restore label maps."""

    stored_shape: tuple[int, ...]
    """Voxels per axis as stored."""
    stored_spacing: tuple[float, ...]
    """mm per axis as stored."""
    axes: tuple[int, ...]
    """Stored axis that became each canonical axis."""
    flips: tuple[bool, ...]
    """Reversal of each canonical axis."""
    crop: tuple[tuple[int, int], ...]
    """Start and stop of the crop, per canonical axis."""
    shape: tuple[int, ...]
    """Voxels per canonical axis, after resampling."""
    spacing: tuple[float, ...]
    """mm per canonical axis, after resampling."""

    @property
    def is_lossless(self) -> bool:
        """Tell whether the stored label map can be restored exactly from the prepared one."""
        return not self.is_resampled and self.crop == tuple((0, self.stored_shape[axis]) for axis in self.axes)

    @property
    def cropped_shape(self) -> tuple[int, ...]:
        """Voxels per canonical axis of the crop, before resampling."""
        return tuple(b - a for a, b in self.crop)

    @property
    def is_resampled(self) -> bool:
        """Tell whether the grid changed."""
        return self.shape != self.cropped_shape

    @property
    def coarse_axis(self) -> int | None:
        """Canonical axis of thick slices, before or else after resampling; None: voxels are nearly cubes."""
        before = find_coarse_axis([self.stored_spacing[axis] for axis in self.axes])
        return find_coarse_axis(self.spacing) if before is None else before


class StoredGeometry(Preprocessing):
    """Part ``geometry.json`` of a sample: its preprocessing, and the stored affine for writing predictions."""

    affine: tuple[tuple[float, ...], ...] | None
    """4x4 from stored voxel indices to mm in RAS+; None for 2-D."""

    @classmethod
    def of(cls, geometry: Geometry, done: Preprocessing) -> StoredGeometry:
        """Build the part from the geometry as stored and the preprocessing of a case."""
        return cls(**dict(done), affine=geometry.affine)

    @property
    def geometry(self) -> Geometry:
        """Geometry of the case as stored."""
        return Geometry(self.stored_shape, self.stored_spacing, self.affine)

    def to_bytes(self) -> bytes:
        """Encode the part; ``model_validate_json`` is the inverse."""
        return json.dumps(self.model_dump(mode="json")).encode()  # spaces as ever: the part's digest is the same


@dataclass(frozen=True, slots=True)
class Prepared:
    """A training sample."""

    image: np.ndarray
    """(C, *spatial) float32."""
    mask: np.ndarray | None
    """(*spatial) label map on the same grid, where the case has a label."""
    done: Preprocessing
    """Record of the preprocessing."""


def unchanged(shape: tuple[int, ...]) -> Preprocessing:
    """Return the record of a case that is prepared already."""
    ones, no_flips = (1.0,) * len(shape), (False,) * len(shape)
    return Preprocessing(
        stored_shape=shape,
        stored_spacing=ones,
        axes=tuple(range(len(shape))),
        flips=no_flips,
        crop=tuple((0, size) for size in shape),
        shape=shape,
        spacing=ones,
    )


def prepare(
    image: np.ndarray,
    geometry: Geometry,
    spec: PreprocessSpec,
    spacing: Spacing | None,
    label: np.ndarray | None = None,
    name: str = "image",
    *,
    max_voxels: int | None = None,
) -> Prepared:
    """Preprocess image (C, *spatial) and label (*spatial) as stored.

    ``spacing`` is the target in mm along the axes of a sample, or None to keep the case's own. Raises DataError, which
    calls the image ``name``, where it would have more than ``max_voxels`` afterwards, as with a wrong unit in its
    header, and where a value is not finite: numbers near the end of float32 overflow.
    """
    axes, flips = sample_axes(geometry, spec)
    image = _reorient(image, axes, flips)
    label = None if label is None else _reorient(label[None], axes, flips)[0]
    own = tuple(geometry.spacing[axis] for axis in axes)
    crop, inside = _crop(image, spec)
    box = tuple(slice(a, b) for a, b in crop)
    image = normalise(image[(slice(None), *box)], spec, inside)
    label = None if label is None else label[box]
    shape = image.shape[1:]
    if spacing is not None:
        shape = tuple(max(round(n * s / (t or s)), 1) for n, s, t in zip(shape, own, spacing, strict=True))
    if spacing is not None and max_voxels is not None and math.prod(shape) > max_voxels:
        voxels = " x ".join(map(str, shape))
        message = f"resampled from {_product(own)} to {_product(spacing)} mm it would have {voxels} voxels"
        remedy = (
            "check the voxel size in its header, choose a coarser data.preprocess.spacing, or raise data.max_voxels"
        )
        raise broken_rule("too-large", name, f"{message}, more than the limit of {max_voxels}", remedy)
    done = Preprocessing(
        stored_shape=geometry.shape,
        stored_spacing=geometry.spacing,
        axes=axes,
        flips=flips,
        crop=crop,
        shape=shape,
        spacing=tuple(s * n / m for s, n, m in zip(own, image.shape[1:], shape, strict=True)),
    )
    if shape != image.shape[1:]:
        order = SPLINE_ORDER[spec.image_interpolation]
        coarse = done.coarse_axis
        image = np.stack([resample(channel, shape, order, coarse) for channel in image])
        label = None if label is None else resample_labels(label, shape, spec.label_interpolation, coarse)
    if not np.isfinite(image).all():
        message = "values are not finite after preprocessing: they are too large for float32"
        raise broken_rule("non-finite", name, message, "scale the intensities, or leave the case out")
    return Prepared(np.ascontiguousarray(image), None if label is None else np.ascontiguousarray(label), done)


def _product(lengths: Sequence[float | None]) -> str:
    return " x ".join("own" if length is None else f"{length:.4g}" for length in lengths)


def prepare_labels(labels: np.ndarray, done: Preprocessing) -> np.ndarray:
    """Resample a (*stored) label map to the prepared grid of the case, nearest voxel; to lie beside the image."""
    labels = crop_stored(labels[None], done)[0]
    return labels if labels.shape == done.shape else resample_labels(labels, done.shape, "nearest", done.coarse_axis)


def with_labels(prepared: Prepared, labels: np.ndarray) -> Prepared:
    """Return a sample whose image has a (*stored) label map as its last channel, in numbers of classes."""
    channel = prepare_labels(labels, prepared.done)[None].astype(prepared.image.dtype)
    return Prepared(np.concatenate([prepared.image, channel]), prepared.mask, prepared.done)


def crop_stored(stored: np.ndarray, done: Preprocessing) -> np.ndarray:
    """Return a view of (C, *stored) along canonical axes, cropped: writing to it is writing to ``stored``."""
    oriented = _reorient(stored, done.axes, done.flips)
    return oriented[(slice(None), *(slice(a, b) for a, b in done.crop))]


def restore_mask(labels: np.ndarray, done: Preprocessing) -> np.ndarray:
    """Restore a label map on the cropped canonical grid to the stored one, as uint8 (int16 above 255)."""
    dtype = np.uint8 if labels.max(initial=0) <= 255 else np.int16
    full = np.zeros(tuple(done.stored_shape[axis] for axis in done.axes), dtype)
    full[tuple(slice(a, b) for a, b in done.crop)] = labels
    reversed_axes = tuple(axis for axis, flip in enumerate(done.flips) if flip)
    full = np.flip(full, reversed_axes) if reversed_axes else full
    return np.ascontiguousarray(full.transpose(np.argsort(done.axes)))


def sample_axes(geometry: Geometry, spec: PreprocessSpec) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Find the stored axis that becomes each axis of a sample, and whether it is reversed."""
    if spec.orientation == "canonical":
        axes, flips = canonical_axes(geometry)
    else:
        axes, flips = tuple(range(geometry.ndim)), (False,) * geometry.ndim
    order = spec.axes or range(geometry.ndim)
    return tuple(axes[axis] for axis in order), tuple(flips[axis] for axis in order)


def canonical_axes(geometry: Geometry) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Find the stored axis nearest to each canonical axis (right, anterior, superior), and whether it is reversed.

    Images without an affine keep their axes.
    """
    if geometry.affine is None or geometry.ndim == 2:
        return tuple(range(geometry.ndim)), (False,) * geometry.ndim
    from nibabel.orientations import io_orientation

    orientation = io_orientation(geometry.affine_array())  # row per stored axis: canonical axis, direction
    axes = [int(np.flatnonzero(orientation[:, 0] == canonical)[0]) for canonical in range(3)]
    return tuple(axes), tuple(bool(orientation[axis, 1] < 0) for axis in axes)


def has_canonical_axes(done: Preprocessing, geometry: Geometry) -> bool:
    """Tell whether the prepared axes of a volume run right, anterior, superior; without an affine nobody knows.

    ``data.preprocess`` may ask for others. Those of 2-D images have no such directions.
    """
    return geometry.affine is not None and (done.axes, done.flips) == canonical_axes(geometry)


def normalise(image: np.ndarray, spec: PreprocessSpec, inside: np.ndarray | None = None) -> np.ndarray:
    """Normalise the intensities of an image (C, *spatial) per channel, as float32; statistics are float64.

    With a boolean ``inside`` (*spatial) the statistics of ``zscore`` are those of its voxels, and the others become 0;
    ``spec.masked`` may say in which channels.
    """
    image = image.astype(np.float32)
    everywhere = np.ones(image.shape[1:], bool)
    for number, (channel, name) in enumerate(zip(image, spec.normalisations(len(image)), strict=True)):
        if name == "zscore":
            is_masked = inside is not None and (spec.masked is None or spec.masked[number])
            _standardise(channel, inside if is_masked and inside is not None else everywhere)
        elif name == "window":
            assert spec.window is not None
            _scale(channel, *spec.window)
        elif name == "intensities":
            assert spec.intensities is not None
            known = spec.intensities[number]
            np.clip(channel, known.low, known.high, out=channel)
            channel -= known.mean
            channel /= known.std
    return image


def _scale(channel: np.ndarray, low: float, high: float) -> None:
    """Clip to a range and map it linearly to [-1, 1], in place."""
    np.clip(channel, low, high, out=channel)
    channel -= low
    channel *= np.float32(2 / (high - low))
    channel -= np.float32(1)


def _standardise(channel: np.ndarray, where: np.ndarray) -> None:
    """Give the voxels of ``where`` zero mean and unit variance, in place; the others become 0."""
    mean = channel.mean(dtype=np.float64, where=where)
    std = max(channel.std(dtype=np.float64, where=where), 1e-8)
    for plane, counts in zip(channel, where, strict=True):  # each by itself: float64 takes twice the memory
        plane[...] = np.where(counts, (plane - mean) / std, 0)


def _reorient(image: np.ndarray, axes: tuple[int, ...], flips: tuple[bool, ...]) -> np.ndarray:
    image = image.transpose(0, *(axis + 1 for axis in axes))
    reversed_axes = tuple(axis + 1 for axis, flip in enumerate(flips) if flip)
    return np.flip(image, reversed_axes) if reversed_axes else image


def _crop(image: np.ndarray, spec: PreprocessSpec) -> tuple[tuple[tuple[int, int], ...], np.ndarray | None]:
    """Find start and stop of the crop, and what of it counts for normalisation (None: all of it).

    With ``foreground_crop`` it is the bounding box of the voxels above the minimum, or not 0, in any channel. Where
    these fill a small part of the volume the rest is no tissue: of the crop only they and the holes in them count.
    """
    whole = tuple((0, n) for n in image.shape[1:])
    if not spec.foreground_crop:
        return whole, None
    foreground = _foreground(image, nonzero=spec.foreground_crop == "nonzero")
    crop = _bounding_box(foreground)
    if crop is None:
        return whole, None
    inside = foreground[tuple(slice(*each) for each in crop)]
    counts = inside.size < MASKED_SHARE * foreground.size if spec.masked is None else any(spec.masked)
    return crop, ndimage.binary_fill_holes(inside) if counts else None


def find_foreground(image: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Find start and stop per axis of what ``foreground_crop`` leaves of an image (C, *spatial)."""
    return _bounding_box(_foreground(image)) or tuple((0, n) for n in image.shape[1:])


def _foreground(image: np.ndarray, *, nonzero: bool = False) -> np.ndarray:
    """Find the voxels above the minimum, or those that are not 0, in any channel."""
    outside = 0 if nonzero else image.min(axis=tuple(range(1, image.ndim)), keepdims=True)
    return np.asarray((image != outside).any(axis=0))


def _bounding_box(foreground: np.ndarray) -> tuple[tuple[int, int], ...] | None:
    found = ndimage.find_objects(foreground.astype(np.uint8))
    return tuple((each.start, each.stop) for each in found[0]) if found else None
