"""The image that a model draws from: read, checked, and brought to the latents that the denoiser is shown."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from data_pipelines.errors import DataError, InputError
from data_pipelines.images.buckets import Size
from data_pipelines.images.changes import CHANGES
from data_pipelines.images.pictures import (
    OPAQUE,
    LeftOut,
    cut_middle,
    read_image_file,
    read_picture,
    read_transparency,
)
from data_pipelines.images.specs import ImageSpec
from unet_models.networks.autoencoder import downsampling_factor
from unet_models.sampling.conditions import hole_in_latents, known_part, low_resolution, nothing_known
from unet_models.sampling.pixels import scale_images
from unet_models.specs.diffusion import Bundle

logger = logging.getLogger(__name__)

MAX_PIXELS = 1 << 26
"""Maximum number of pixels of an image given by path, checked in its header."""


class ImageConditioner:
    """Turns images into what is known of the latents (``known_part``).

    An image is (height, width, 3 or 4) uint8. As in training, its middle of the aspect ratio that is drawn is used, and
    resized. A model of kind ``masked`` draws what is transparent (alpha below 128): such an image needs an alpha
    channel. No image: nothing is known.
    """

    def __init__(self, autoencoder: Any, bundle: Bundle, device: torch.device) -> None:
        self.autoencoder, self.bundle, self.device = autoencoder, bundle, device
        self.factor = downsampling_factor(autoencoder.config)

    @torch.no_grad()
    def known(self, images: Sequence[np.ndarray | None], shape: tuple[int, int, int]) -> Tensor | None:
        """Build the condition of a batch of latents of ``shape``; None where the model takes no image.

        Raises InputError for an image where the model takes none, and for one that is no image.
        """
        if self.bundle.image_condition.kind == "none":
            if any(image is not None for image in images):
                raise InputError("image: the model was trained without one; leave it out")
            return None
        return torch.cat([self._known(image, shape) for image in images])

    def _known(self, image: np.ndarray | None, shape: tuple[int, int, int]) -> Tensor:
        if image is None:
            return nothing_known(torch.zeros(1, *shape, device=self.device))
        spec = self.bundle.image_condition
        check_image(image, needs_alpha=spec.kind == "masked")
        if spec.kind != "masked":
            image = lay_over(image, self.bundle.background)
        size = shape[2] * self.factor, shape[1] * self.factor
        pixels, hole = self._resized(_cut(image, size, needs_hole=spec.kind == "masked"), size)
        latents = self.autoencoder.encode(scale_images(pixels)).latent_dist.mean * self.bundle.scaling_factor
        if spec.kind == "low_resolution":
            return known_part(low_resolution(latents, spec.factor), torch.zeros_like(latents[:, :1]))
        return known_part(latents, hole_in_latents(hole, self.factor))

    def _resized(self, image: np.ndarray, size: Size) -> tuple[Tensor, Tensor]:
        """Resize to ``size`` (width, height): colours (1, 3, H, W) uint8, grey in the hole; the hole (1, 1, H, W).

        A pixel is in the hole where any that it is made of is. Colours beside it are means of what is known alone.
        """
        opacity = np.full(image.shape[:2], 255, np.uint8) if image.shape[2] == 3 else image[..., 3]
        is_known = opacity >= OPAQUE
        share = _resize(is_known.astype(np.float32), size)
        sums = np.dstack([_resize(image[..., i] * is_known.astype(np.float32), size) for i in range(3)])
        colours = (sums / np.maximum(share, 0.1)[..., None]).round().clip(0, 255).astype(np.uint8)
        hole = functional.adaptive_max_pool2d(torch.from_numpy(~is_known)[None, None].float(), size[::-1])
        filled = np.where(hole[0, 0, ..., None].bool().numpy(), np.uint8(127), colours)
        return torch.from_numpy(filled).permute(2, 0, 1)[None].to(self.device), hole.to(self.device)


def _cut(image: np.ndarray, size: Size, *, needs_hole: bool) -> np.ndarray:
    """Cut the middle of the aspect ratio of ``size``, in whole pixels: up to one more than that. What is cut is told.

    Raises InputError where no hole is left, but is needed.
    """
    height, width = image.shape[:2]
    kept = min(width, -(-height * size[0] // size[1])), min(height, -(-width * size[1] // size[0]))
    if kept == (width, height):
        return image
    cut = np.asarray(cut_middle(Image.fromarray(image), kept))
    remedy = "give the request the image's aspect ratio (width, height)"
    if needs_hole and (cut[..., 3] >= OPAQUE).all():
        raise InputError(
            f"image: the middle {kept[0]}x{kept[1]} pixels of its {width}x{height} are used to draw "
            f"{size[0]}x{size[1]}, and all that is transparent lies outside of them; {remedy}"
        )
    logger.warning(
        "image: the middle %dx%d pixels of its %dx%d are used to draw %dx%d; to use all, %s",
        *kept,
        width,
        height,
        *size,
        remedy,
    )
    return cut


def _resize(values: np.ndarray, size: Size) -> np.ndarray:
    """Resize (H, W) float32 to ``size`` (width, height): bicubic, antialiased."""
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC))


def check_image(image: np.ndarray, *, needs_alpha: bool) -> None:
    """Raise InputError where an array is not an image, or has no alpha channel though it needs one."""
    channels = (4,) if needs_alpha else (3, 4)
    if image.ndim != 3 or image.shape[2] not in channels or image.dtype != np.uint8 or 0 in image.shape:
        remedy = "; what is transparent (alpha 0) is generated" if needs_alpha else ""
        raise InputError(
            f"image: must be (height, width, {' or '.join(map(str, channels))}) uint8, "
            f"got {image.shape} {image.dtype}{remedy}"
        )
    if needs_alpha and (image[..., 3] >= OPAQUE).all():
        raise InputError(f"image: has no transparent pixels (alpha below {OPAQUE}), which are what is generated")


def lay_over(image: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """Lay an image (H, W, 3 or 4) over a colour, as training does: (H, W, 3) uint8."""
    if image.shape[2] == 3:
        return image
    below = Image.new("RGBA", image.shape[1::-1], background)
    return np.asarray(Image.alpha_composite(below, Image.fromarray(image)).convert("RGB"))


def read_image(value: object) -> np.ndarray:
    """Return the image of a request: the array itself, or the RGBA pixels of the file at a path, upright and in sRGB as
    training reads them.

    Raises InputError where it is neither, or the file cannot be read.
    """
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, str | Path):
        raise InputError(f"image: must be a path or an array, got {type(value).__name__}")
    path, spec = str(value), ImageSpec(max_pixels=MAX_PIXELS)
    try:
        data = read_image_file(path, spec)
        found, opacity = read_picture(data, path, spec, ignores_opacity=True), read_transparency(data, path, spec)
    except DataError as error:
        raise InputError(f"image: {path} cannot be read: {error}") from None
    assert not isinstance(found, LeftOut)  # no filter is set
    for change in found.changes:
        logger.warning("%s: %s", path, CHANGES[change])
    opaque = np.full(found.pixels.shape[:2], 255, np.uint8)
    return np.dstack([found.pixels, opaque if opacity is None else opacity])
