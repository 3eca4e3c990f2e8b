"""A trained restoration model: from a file or an array to a restored image.

Evaluation and the registered model both predict through this class, so what is registered is what was evaluated.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file

from data_pipelines.errors import InputError, WeightsError
from data_pipelines.images.changes import CHANGES, FIRST_FRAME
from data_pipelines.images.frames import split_frames
from data_pipelines.images.pictures import OPAQUE, LeftOut, read_image_file, read_picture, read_transparency
from data_pipelines.images.specs import ImageSpec
from flows.pipelines.restoration.clips import log_change
from flows.registry.bundle import WEIGHTS, read_bundle
from unet_models.restoration.build import build_task
from unet_models.restoration.restorer import Restorer
from unet_models.restoration.task import Inputs
from unet_models.restoration.tiles import restore_in_tiles
from unet_models.specs.restoration import ImageBundle, InpaintingSpec

logger = logging.getLogger(__name__)

PREFIX = "restorer."
"""Begin of the names of the restorer's weights; those of a discriminator have another."""


UNTIMED = 100.0
"""Milliseconds that a frame is shown for where its file does not say, as pages of a TIFF."""


class Clip(NamedTuple):
    """Frames (H, W, 3) uint8 of one size, and for how many milliseconds each is shown; an image is a clip of one."""

    frames: Sequence[np.ndarray]
    milliseconds: Sequence[float] = (0.0,)


class ImageRestorer:
    """Restores images."""

    def __init__(self, bundle: ImageBundle, weights: Path, device: str | torch.device | None = None) -> None:
        self.bundle = bundle
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.task = build_task(bundle.task)
        self.model = Restorer.build(bundle.model, self.task)
        tensors = load_file(weights)
        self.model.load_state_dict({k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)})
        self.model.to(self.device).eval()

    @classmethod
    def from_folder(cls, folder: Path, device: str | None = None) -> ImageRestorer:
        """Load a folder with ``unetflow.json`` and ``model.safetensors``."""
        return cls(read_bundle(folder, ImageBundle), folder / WEIGHTS, device)

    def restore_inputs(self, inputs: Inputs) -> torch.Tensor:
        """Restore the inputs of one image: (3, H, W) float32 in 0..1, on the CPU."""
        predict = self.bundle.predict
        restored = restore_in_tiles(self.model, inputs[0].to(self.device), predict.tile, predict.precision)
        if not bool(torch.isfinite(restored).all()):
            raise WeightsError(
                f"the network's output is not finite in precision {predict.precision}: its weights are "
                "broken, or the precision is too low (evaluate.precision=fp32)"
            )
        return restored.cpu()

    def restore(self, image: np.ndarray, holes: np.ndarray | None = None) -> np.ndarray:
        """Restore an image (H, W, 3), or (H, W) grey, of values 0..255; returns (H', W', 3) uint8.

        ``holes`` (H, W) is not 0 where inpainting is to fill. Raises InputError for another shape, or values that are
        not of 0..255.
        """
        pixels = _check_array(image)
        images = torch.from_numpy(pixels).movedim(-1, 0)[None] / 255
        inputs = self.task.prepare(images, self._check_holes(holes, pixels.shape[:2]))
        return to_bytes(self.restore_inputs(inputs))

    def restore_file(self, path: str, mask: str = "") -> np.ndarray:
        """Restore an image file, (H', W', 3) uint8; of several frames or pages (frames, H', W', 3).

        ``mask`` is a file that is white where inpainting is to fill; without one the holes are the transparent
        pixels. Raises DataError for every rule that training would have found broken.
        """
        clip = self._restore_clip(path, mask)
        return clip.frames[0] if len(clip.frames) == 1 else np.stack(clip.frames)

    def restore_to_file(self, path: str, output: str, mask: str = "") -> str:
        """Restore and write a PNG, an animated one where the file has several frames; return ``output``."""
        check_png(output)
        return write_png(self._restore_clip(path, mask), output)

    def _restore_clip(self, path: str, mask: str) -> Clip:
        """Restore every frame by itself. Raises InputError where pages differ in size: they are no clip."""
        spec = ImageSpec(background=self.bundle.background, max_pixels=self.bundle.max_pixels)
        # Transparent pixels are the holes, and what shines through their rim is no background, but their own colour.
        is_cut_out = isinstance(self.bundle.task, InpaintingSpec) and not mask
        frames = split_frames(read_image_file(path, spec), path, spec.max_pixels)
        sources = [
            _read_pixels(frame.encoded, path, spec, ignores_opacity=is_cut_out, changes=frame.changes)
            for frame in frames
        ]
        if len({source.shape for source in sources}) > 1:
            raise InputError(f"{path}: its {len(frames)} pages differ in size; write each into a file of its own")
        restored = [
            self.restore(source, self._find_holes(path, frame.encoded, mask, spec))
            for source, frame in zip(sources, frames, strict=True)
        ]
        if len(frames) > 1:
            log_change(path, len(frames), restored, sources)
        return Clip(restored, [frame.milliseconds for frame in frames])

    def _find_holes(self, path: str, data: bytes, mask: str, spec: ImageSpec) -> np.ndarray | None:
        if not isinstance(self.bundle.task, InpaintingSpec):
            if mask:
                raise self._takes_no_mask()
            return None
        if mask:
            return self._read_mask(mask, spec)
        opacity = read_transparency(data, path, spec)
        if opacity is None or (opacity >= OPAQUE).all():
            raise InputError(
                f"{path}: has no transparent pixels to fill; make the holes transparent, or name a mask (column `mask`)"
            )
        return opacity < OPAQUE

    def _read_mask(self, mask: str, spec: ImageSpec) -> np.ndarray:
        """Read a mask file: where it is white, on black where it is transparent. Raises InputError for one without."""
        on_black = spec.model_copy(update={"background": (0, 0, 0)})
        values = _read_pixels(read_image_file(mask, on_black), mask, on_black).max(axis=2)
        holes: np.ndarray = values >= OPAQUE
        if not holes.any():
            raise InputError(
                f"{mask}: marks nothing to fill: its largest value is {values.max()}, and from {OPAQUE} of 255 on a "
                "pixel is filled; paint the holes white"
            )
        return holes

    def _takes_no_mask(self) -> InputError:
        return InputError(f"mask: task {self.bundle.task.name} fills no holes; leave it out")

    def _check_holes(self, holes: np.ndarray | None, size: tuple[int, ...]) -> torch.Tensor | None:
        if not isinstance(self.bundle.task, InpaintingSpec):
            if holes is None:
                return None
            raise self._takes_no_mask()
        if holes is None or not np.any(holes):
            raise InputError("mask: marks nothing to fill; give an array (height, width) that is not 0 in the holes")
        if holes.shape != size:
            raise InputError(f"mask: has shape {holes.shape}, the image {size}; give one value per pixel")
        return torch.from_numpy(holes != 0)[None, None].float()


def to_bytes(image: torch.Tensor) -> np.ndarray:
    """Round an image (3, H, W) in 0..1 to (H, W, 3) uint8."""
    pixels: np.ndarray = (image.movedim(0, -1) * 255).round().to(torch.uint8).numpy()
    return pixels


def check_png(output: str) -> None:
    """Raise InputError for a name with another suffix than PNG's."""
    if not output.lower().endswith(".png"):
        raise InputError(f"output must end in .png, got {output!r}")


def write_png(clip: Clip, output: str) -> str:
    """Write an image as PNG, or frames of one size as an animated PNG; return ``output``."""
    from PIL import Image
    from PIL.PngImagePlugin import Blend

    check_png(output)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.fromarray(frame) for frame in clip.frames]
    if others:
        shown = [milliseconds or UNTIMED for milliseconds in clip.milliseconds]
        # Pillow merges a frame into an equal one before it, unless they are blended in another way: of opaque ones all
        # ways show the same.
        blend = [(Blend.OP_SOURCE, Blend.OP_OVER)[number % 2] for number in range(len(clip.frames))]
        first.save(output, save_all=True, append_images=others, duration=shown, loop=0, blend=blend)
    else:
        first.save(output)
    return output


def _read_pixels(
    data: bytes, path: str, spec: ImageSpec, *, ignores_opacity: bool = False, changes: tuple[str, ...] = ()
) -> np.ndarray:
    """Decode an image as training does: (H, W, 3) uint8; what is changed in it, or was before ``data``, is logged.

    Raises InputError for several frames.
    """
    found = read_picture(data, path, spec, ignores_opacity=ignores_opacity)
    assert not isinstance(found, LeftOut)  # no filter is set
    if FIRST_FRAME in found.changes:
        raise InputError(
            f"{path}: holds several frames or pages, and one is asked for; write it into a file of its own"
        )
    for change in dict.fromkeys((*changes, *found.changes)):
        logger.warning("%s: %s", path, CHANGES[change])
    return found.pixels


def _check_array(image: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) float32."""
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"image: expected (height, width, 3), or (height, width) for grey, got shape {image.shape}")
    pixels = image.astype(np.float32)
    if not np.isfinite(pixels).all():
        raise InputError("image: values must be finite")
    if pixels.min() < 0 or pixels.max() > 255:
        raise InputError(
            f"image: values must be of 0..255, got {pixels.min():g} to {pixels.max():g}; of 16 bits divide by 257"
        )
    if not np.issubdtype(image.dtype, np.integer) and 0 < np.abs(pixels).max() <= 1:
        raise InputError("image: values must be of 0..255, and all are of 0..1; multiply by 255")
    return pixels
