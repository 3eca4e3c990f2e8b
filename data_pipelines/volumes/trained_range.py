"""Range of what a model was trained on; inputs beyond it are predicted all the same, and reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines.notices import Notice, notice
from data_pipelines.specs import Spec
from data_pipelines.volumes.fingerprint import CaseStatistics, ras_axes
from data_pipelines.volumes.formats.base import Geometry

Range = tuple[float, float]
"""Lowest and highest value."""
TOLERANCE = 0.05
"""Share by which spacing and size may lie beyond the range."""
SMALLEST_SHARE = 1e-3
"""Share of the voxels that must have intensities of the classes; fewer mean other units, or another body part."""
AXES = "xyz"


class TrainedRange(Spec):
    """Range of the training cases."""

    spacing: tuple[Range, ...]
    """mm per axis, in RAS order."""
    extent: tuple[Range, ...]
    """mm from the first to the last side of the image along each axis, in RAS order."""
    intensities: tuple[Range, ...]
    """Per channel the lowest 0.5th and the highest 99.5th percentile of the classes."""

    @classmethod
    def of(cls, cases: Sequence[CaseStatistics]) -> TrainedRange:
        """Compute the range of cases; at least one."""
        spacings = np.array([case.spacing for case in cases])
        extents = spacings * np.array([case.shape for case in cases])
        low = np.array([[channel.percentile_00_5 for channel in case.channels] for case in cases])
        high = np.array([[channel.percentile_99_5 for channel in case.channels] for case in cases])
        return cls(
            spacing=_pairs(spacings.min(axis=0), spacings.max(axis=0)),
            extent=_pairs(extents.min(axis=0), extents.max(axis=0)),
            intensities=_pairs(low.min(axis=0), high.max(axis=0)),
        )

    def widened(self, others: Sequence[TrainedRange]) -> TrainedRange:
        """Return the range that holds this one and others."""
        ranges = [self, *others]
        joined = {
            name: tuple(
                (min(low for low, _ in pairs), max(high for _, high in pairs))
                for pairs in zip(*(getattr(each, name) for each in ranges), strict=True)
            )
            for name in type(self).model_fields
        }
        return type(self)(**joined)

    def find_outside(
        self, path: str, image: np.ndarray, geometry: Geometry, *, is_absolute: Sequence[bool]
    ) -> list[Notice]:
        """Notice what of an image (C, *spatial) as stored lies outside.

        Intensities are looked at in the channels that are ``is_absolute``: where the model does not normalise each
        image by its own.
        """
        found = [*self._outside_grid(geometry), *self._outside_intensities(image, is_absolute)]
        return [notice("outside-training-range", path, message) for message in found]

    def _outside_grid(self, geometry: Geometry) -> Iterator[str]:
        order = ras_axes(geometry)
        if len(order) != len(self.spacing):
            return
        for name, axis, spacing, extent in zip(AXES, order, self.spacing, self.extent, strict=False):
            voxel, size = geometry.spacing[axis], geometry.spacing[axis] * geometry.shape[axis]
            if _is_beyond(voxel, spacing):
                yield f"voxels of {voxel:.4g} mm along {name}, trained on {_text(spacing)} mm"
            if _is_beyond(size, extent):
                yield f"{size:.4g} mm along {name}, trained on {_text(extent)} mm"

    def _outside_intensities(self, image: np.ndarray, is_absolute: Sequence[bool]) -> Iterator[str]:
        parts = zip(image, self.intensities, is_absolute, strict=True)
        for number, (channel, (low, high), is_compared) in enumerate(parts):
            if not is_compared:
                continue
            share = float(np.mean((channel >= low) & (channel <= high)))
            if share < SMALLEST_SHARE:
                where = f"channel {number}: " if len(image) > 1 else ""
                values = _text((float(channel.min()), float(channel.max())))
                yield (
                    f"{where}intensities {values}, and {100 * share:.2g} % of them between {_text((low, high))}, "
                    "where the classes were: are the units different?"
                )


def _pairs(low: np.ndarray, high: np.ndarray) -> tuple[Range, ...]:
    return tuple(zip(low.tolist(), high.tolist(), strict=True))


def _is_beyond(value: float, limits: Range) -> bool:
    low, high = limits
    return not low * (1 - TOLERANCE) <= value <= high * (1 + TOLERANCE)


def _text(limits: Range) -> str:
    low, high = (f"{value:.4g}" for value in limits)
    return low if low == high else f"{low} to {high}"
