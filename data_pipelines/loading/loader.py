"""Batches addressed by step: read, cut and stack. The same step gives the same batch in every process."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from data_pipelines.batches import Batch, CaptionedBatch, ImageBatch, LatentBatch, VolumeBatch
from data_pipelines.errors import NOT_RETRYABLE
from data_pipelines.images.pictures import cut_middle
from data_pipelines.loading.order import BucketOrder, SampleOrder, rank_positions
from data_pipelines.loading.patches import candidate_centres, choose_corner, cut, cut_mirrored
from data_pipelines.random_streams import Stream, numpy_generator
from data_pipelines.remote_errors import pack_error, unpack_error
from data_pipelines.shards.index import FOREGROUND, IMAGE, IMAGE_PARTS, MASK, MOMENTS, STATES
from data_pipelines.shards.reader import ShardReader
from data_pipelines.temporary import shorten_socket_paths
from data_pipelines.volumes.modalities import NOTHING, Sizes, stored_modalities

Assemble = Callable[[Sequence[int], Sequence[int], int], Batch]
"""Builds a batch from row numbers, their positions in the global batch, and the step."""


@dataclass(frozen=True, slots=True)
class VolumePatches:
    """Random patches of volumes, the last part of each global batch centred on foreground."""

    reader: ShardReader
    read_size: tuple[int, ...]
    """Voxels to cut out, augmentation's margin included."""
    seed: int
    """Seed of the patches' positions."""
    global_batch_size: int
    foreground_fraction: float
    """Share of the global batch that is centred on foreground."""
    margin: int | tuple[int, ...] = 0
    """Voxels of ``read_size`` on each side, per axis, that are cropped away later: they may lie outside the volume."""
    sizes: Sizes = NOTHING
    """Lengths of texts and sounds; 0: they are not read."""
    is_mirrored: bool = False
    """Mirror the volume where a margin lies outside it, instead of zeros."""
    has_ignored: bool = False
    """True where voxels may be ignored: then every patch is centred on an annotated one."""
    patch_at: Callable[[int], Sequence[int]] | None = None
    """Size of the patches of a step, without margin, where it is not always that of ``read_size``."""

    def __call__(self, rows: Sequence[int], positions: Sequence[int], step: int) -> VolumeBatch:
        """Build the batch of the samples ``rows`` at ``positions`` of the global batch of ``step``."""
        first_forced = self._first_forced(step)
        margins = (self.margin,) * len(self.read_size) if isinstance(self.margin, int) else self.margin
        kept = [size - 2 * margin for size, margin in zip(self.read_size, margins, strict=True)]
        kept = kept if self.patch_at is None else list(self.patch_at(step))
        read = [size + 2 * margin for size, margin in zip(kept, margins, strict=True)]
        first = self.reader.array(rows[0], IMAGE), self.reader.array(rows[0], MASK)
        images, masks = (empty_batch((len(rows), *part.shape[: -len(kept)], *read), part.dtype) for part in first)
        for i, (row, position) in enumerate(zip(rows, positions, strict=True)):
            image, mask = self.reader.array(row, IMAGE), self.reader.array(row, MASK)
            rng = numpy_generator(self.seed, Stream.PATCH, step, position)
            inner = choose_corner(rng, mask.shape, kept, self._centres(row, is_forced=position >= first_forced))
            corner = tuple(c - margin for c, margin in zip(inner, margins, strict=True))
            for part, patch in ((image, images[i].numpy()), (mask, masks[i].numpy())):
                if self.is_mirrored:
                    cut_mirrored(part, corner, patch, [(c, c + size) for c, size in zip(inner, kept, strict=True)])
                else:
                    cut(part, corner, patch)
        return VolumeBatch(
            images=images,
            masks=masks,
            positions=tuple(positions),
            keys=tuple(self.reader.key(row) for row in rows),
            step=step,
            **self._modalities(rows),
        )

    def _first_forced(self, step: int) -> int:
        """Return the first position that is centred on foreground, as nnU-Net rounds; a batch of one takes turns."""
        fraction = self.foreground_fraction
        if self.global_batch_size > 1:
            return round(self.global_batch_size * (1 - fraction))
        return 1 - (math.floor((step + 1) * fraction) - math.floor(step * fraction))

    def _centres(self, row: int, *, is_forced: bool) -> np.ndarray | None:
        """Return classes and voxels that the patch may be centred on; None: it may lie anywhere."""
        if not (is_forced or self.has_ignored):
            return None
        return candidate_centres(self.reader.array(row, FOREGROUND), is_forced=is_forced)

    def _modalities(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """Stack the texts and sounds of the samples, those that the network reads."""
        sizes = self.sizes
        if not (sizes.text_bytes or sizes.samples):
            return {}
        texts, sounds = zip(*(stored_modalities(self.reader, row, sizes) for row in rows), strict=True)
        found = {"texts": (sizes.text_bytes, texts), "sounds": (sizes.samples, sounds)}
        return {name: _stack(arrays) for name, (size, arrays) in found.items() if size}


def empty_batch(shape: Sequence[int], dtype: np.dtype) -> torch.Tensor:
    """Allocate a tensor to fill with samples; in a loader process in shared memory, so that it is not copied again."""
    tensor = torch.from_numpy(np.empty(0, dtype))
    if torch.utils.data.get_worker_info() is None:
        return tensor.new_empty(*shape)
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)  # as torch's own collate does
    return tensor.new(storage).view(*shape)


@dataclass(frozen=True, slots=True)
class ImageSamples:
    """Whole encoded images, decoded to RGB; those of a batch have one size."""

    reader: ShardReader
    side: int | None = None
    """Side in pixels of the middle square that each image is cut to; None: the image as it is."""

    def __call__(self, rows: Sequence[int], positions: Sequence[int], step: int) -> ImageBatch:
        """Build the batch of the samples ``rows`` at ``positions`` of the global batch of ``step``."""
        keys = tuple(self.reader.key(row) for row in rows)
        return ImageBatch(self.pixels(rows), positions=tuple(positions), keys=keys, step=step)

    def pixels(self, rows: Sequence[int]) -> torch.Tensor:
        """Decode the images of ``rows``: (B, 3, H, W) uint8."""
        first = self.decode(rows[0])
        pixels = empty_batch((len(rows), *first.shape), first.dtype)
        for i, row in enumerate(rows):
            pixels[i].numpy()[:] = self.decode(row) if i else first
        return pixels.permute(0, 3, 1, 2)

    def decode(self, row: int) -> np.ndarray:
        """Decode the image of a row: (H, W, 3) uint8."""
        part = next((part for part in IMAGE_PARTS if self.reader.has(row, part)), IMAGE_PARTS[0])
        pixels = decode_rgb(self.reader.read(row, part))
        return pixels if self.side is None else middle_square(pixels, self.side)


@dataclass(frozen=True, slots=True)
class ImageCrops:
    """Random squares of encoded images of any size, decoded to RGB, in random copies."""

    images: ImageSamples
    side: int
    """Side of the squares in pixels; no image may be smaller."""
    seed: int
    """Seed of the squares' positions and of their copies."""
    copies: Literal["none", "mirror", "dihedral"] = "none"
    """``mirror``: every other one is mirrored left-right; ``dihedral``: all eight mirrorings and quarter turns."""

    def __call__(self, rows: Sequence[int], positions: Sequence[int], step: int) -> ImageBatch:
        """Build the batch of the samples ``rows`` at ``positions`` of the global batch of ``step``."""
        pixels = empty_batch((len(rows), self.side, self.side, 3), np.dtype(np.uint8))
        for i, (row, position) in enumerate(zip(rows, positions, strict=True)):
            image, rng = self.images.decode(row), numpy_generator(self.seed, Stream.PATCH, step, position)
            top, left = choose_corner(rng, image.shape[:2], (self.side, self.side), None)
            crop = image[top : top + self.side, left : left + self.side]
            pixels[i].numpy()[:] = copy_at_random(crop, self.copies, rng)
        keys = tuple(self.images.reader.key(row) for row in rows)
        return ImageBatch(pixels.permute(0, 3, 1, 2), positions=tuple(positions), keys=keys, step=step)


def copy_at_random(square: np.ndarray, copies: str, rng: np.random.Generator) -> np.ndarray:
    """Mirror and turn a square (side, side, channels) at random, as ``ImageCrops.copies`` says."""
    if copies == "none":
        return square
    mirrored = square[:, ::-1] if rng.integers(2) else square
    return np.rot90(mirrored, int(rng.integers(4))) if copies == "dihedral" else mirrored


@dataclass(frozen=True, slots=True)
class Captions:
    """Token ids of the captions of every row of an index, one or several each."""

    tokens: torch.Tensor
    """(N, tokens) token ids of all captions, those of a row one after the other."""
    first: Sequence[int]
    """Place of the first caption of every row, and N."""
    seed: int
    """Seed of the choice among the captions of a row."""

    def __call__(self, rows: Sequence[int], positions: Sequence[int], step: int) -> torch.Tensor:
        """Return the tokens (B, tokens) of one caption of each row."""
        counts = [self.first[row + 1] - self.first[row] for row in rows]
        drawn = [draw_caption(count, self.seed, step, place) for count, place in zip(counts, positions, strict=True)]
        return self.tokens[[self.first[row] + number for row, number in zip(rows, drawn, strict=True)]]


def draw_caption(count: int, seed: int, step: int, position: int) -> int:
    """Draw one of the ``count`` captions of the sample at a position of the global batch of a step."""
    return int(numpy_generator(seed, Stream.CAPTION, step, position).integers(count)) if count > 1 else 0


@dataclass(frozen=True, slots=True)
class CaptionedSamples:
    """Images with the token ids of their captions."""

    images: ImageSamples
    captions: Captions

    def __call__(self, rows: Sequence[int], positions: Sequence[int], step: int) -> CaptionedBatch:
        """Build the batch of the samples ``rows`` at ``positions`` of the global batch of ``step``."""
        batch = self.images(rows, positions, step)
        tokens = self.captions(rows, positions, step)
        return CaptionedBatch(batch.images, tokens, batch.positions, batch.keys, step)


@dataclass(frozen=True, slots=True)
class LatentSamples:
    """Encoded images and captions: posterior moments, the text states of one caption of each image, its class."""

    reader: ShardReader
    seed: int = 0
    """Seed of the choice among the captions of an image."""
    labels: np.ndarray | None = None
    """Number of the class of every row; None: the data have no classes."""

    def __call__(self, rows: Sequence[int], positions: Sequence[int], step: int) -> LatentBatch:
        """Build the batch of the samples ``rows`` at ``positions`` of the global batch of ``step``."""
        moments = _stack([self.reader.array(row, MOMENTS) for row in rows])
        states = _stack([self._states(row, step, place) for row, place in zip(rows, positions, strict=True)])
        labels = np.zeros(len(rows), np.int64) if self.labels is None else self.labels[list(rows)]
        keys = tuple(self.reader.key(row) for row in rows)
        return LatentBatch(moments, states, torch.from_numpy(labels), tuple(positions), keys, step)

    def _states(self, row: int, step: int, position: int) -> np.ndarray:
        states = self.reader.array(row, STATES)
        return states if states.ndim == 2 else states[draw_caption(len(states), self.seed, step, position)]


def _stack(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    stacked = empty_batch((len(arrays), *arrays[0].shape), arrays[0].dtype)
    for i, array in enumerate(arrays):
        stacked[i].numpy()[:] = array
    return stacked


def middle_square(pixels: np.ndarray, side: int) -> np.ndarray:
    """Cut the square from the middle of an image and resize it: (height, width, 3) uint8 -> (side, side, 3)."""
    if pixels.shape[:2] == (side, side):
        return pixels
    return np.asarray(cut_middle(Image.fromarray(pixels), (side, side)))


def decode_rgb(data: memoryview) -> np.ndarray:
    """Decode a JPEG, PNG or WebP image to (height, width, 3) uint8; other formats are rejected before parsing."""
    if data[:2] == b"\xff\xd8":
        with suppress(ValueError):  # unusual or damaged files are left to Pillow and its messages
            if simplejpeg.decode_jpeg_header(data)[2] in ("YCbCr", "Gray"):
                return simplejpeg.decode_jpeg(data, "RGB")  # the same libjpeg-turbo, the same pixels, less overhead
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
        return np.asarray(image.convert("RGB"))


@dataclass(frozen=True, slots=True)
class StepBatches(Dataset[Batch]):
    """Map-style dataset from step to this rank's share of the global batch."""

    order: SampleOrder | BucketOrder
    assemble: Assemble
    global_batch_size: int
    rank: int = 0
    world_size: int = 1

    def __getitem__(self, step: int) -> Batch:
        positions = rank_positions(self.global_batch_size, self.rank, self.world_size)
        rows = self.order.rows(step, self.global_batch_size)
        return self.assemble([rows[position] for position in positions], list(positions), step)


@dataclass(frozen=True, slots=True)
class _Failed:
    """Error that ended a loader process's batch, packed: torch would rebuild it from the text of a traceback."""

    error: str


@dataclass(frozen=True, slots=True)
class _InLoader(Dataset[Batch | _Failed]):
    """Batches as a loader process sends them."""

    batches: StepBatches

    def __getitem__(self, step: int) -> Batch | _Failed:
        try:
            return self.batches[step]
        except NOT_RETRYABLE as error:
            return _Failed(pack_error(error))


def step_loader(
    batches: StepBatches, steps: range, num_processes: int = 0, pin_memory: bool = False
) -> Iterator[Batch]:
    """Iterate over the batches of ``steps``, read ahead by ``num_processes`` (0: in this process).

    An error that a retry would only repeat, such as a damaged shard, is raised as a loader process raised it.
    """
    if num_processes:
        shorten_socket_paths()
    loader = DataLoader(
        _InLoader(batches),
        batch_size=None,  # a batch is one item: it is assembled where it is read
        sampler=steps,
        num_workers=num_processes,
        pin_memory=pin_memory,
        prefetch_factor=4 if num_processes else None,
        multiprocessing_context="forkserver" if num_processes else None,  # forking a process with threads deadlocks
    )
    for batch in loader:
        if isinstance(batch, _Failed):
            raise unpack_error(batch.error)
        yield batch
