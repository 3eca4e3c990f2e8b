"""Task of a specification."""

from __future__ import annotations

from collections.abc import Sequence

from unet_models.restoration.colourisation import ColourClasses, Colourisation
from unet_models.restoration.denoising import Denoising
from unet_models.restoration.inpainting import Inpainting
from unet_models.restoration.super_resolution import SuperResolution
from unet_models.restoration.task import Task
from unet_models.specs.restoration import (
    ColourisationSpec,
    DenoisingSpec,
    InpaintingSpec,
    SuperResolutionSpec,
    TaskSpec,
)


def build_task(spec: TaskSpec, class_weights: Sequence[float] = ()) -> Task:
    """Build the task of a specification. ``class_weights`` rebalance the colours of colourisation by classes."""
    match spec:
        case DenoisingSpec():
            return Denoising(spec)
        case SuperResolutionSpec():
            return SuperResolution(spec)
        case InpaintingSpec():
            return Inpainting(spec)
        case ColourisationSpec(output="classes"):
            return ColourClasses(spec, class_weights)
        case ColourisationSpec():
            return Colourisation()
