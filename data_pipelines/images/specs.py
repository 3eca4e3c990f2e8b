"""User-facing configuration of images, with or without captions: source, checks, filters, size and shards."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from data_pipelines.specs import LocalPath, Spec

CLIP_OF_FRAME = r"^(.*?)(?:\.frame-\d+)?$"
"""Regular expression that finds the file in the id of a frame; any other id is a clip of its own."""


class ImageSpec(Spec):
    """Source, checks, filters, size and shards of a data set of images."""

    root: LocalPath = ""
    """Folder of the raw data set. Required, except with ``layout: shapes``."""
    layout: str = "auto"
    """Layout of the folder: ``imagefolder``, ``sidecar``, ``parquet`` or ``webdataset``, or ``images``, any folder of
    images without captions, where none are needed; ``shapes`` generates a data set; ``auto`` (default) recognises
    it."""
    crop: Literal["none", "square", "buckets"] = "none"
    """``none`` (default): every image keeps its size. ``square``: it becomes a square of side ``resolution``."""
    resolution: int = Field(default=64, ge=8)
    """Side in pixels of the square that every image is resized (antialiased) and centre-cropped to with ``crop:
    square``, and of generated shapes."""
    bucket_multiple: int = Field(default=64, ge=1)
    """The sides of all buckets are multiples of this number of pixels: a multiple of the autoencoder's downsampling
    factor, best of that times the U-Net's. Used with ``crop: buckets`` only."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Colour shown behind transparent pixels: RGB, 0..255. Default: white."""
    frames: Literal["first", "all"] = "first"
    """Files of several frames or pages (GIF, WebP, APNG, TIFF): ``first`` (default) takes the first of each and counts
    these files; ``all`` takes each frame as an image, those of a file being a clip. In Parquet and tar files always the
    first."""
    min_side: int = Field(default=0, ge=0)
    """Skip images whose shorter side has fewer pixels; they are counted in the report. Default: keep all."""
    max_aspect_ratio: float | None = Field(default=None, ge=1)
    """Skip images whose longer side is more than this many times the shorter. Default: keep all."""
    min_caption_chars: int = Field(default=0, ge=0)
    """Skip images whose caption has fewer characters. 0 (default): images need no caption."""
    max_caption_chars: int = Field(default=2000, ge=1)
    """Skip images whose caption has more characters."""
    caption_lines: Literal["whole", "random"] = "whole"
    """Captions of several lines: ``whole`` (default) takes the text as one caption, ``random`` each line as a caption
    of its own. Of an image with several captions (such lines, a list, or images with equal pixels) training draws one
    each time it sees the image; evaluation asks for the first."""
    class_from: str = ""
    """Where the class of an image is named: ``folder``, the name of the folder that it lies in (of a tar: that of its
    key); or a column of metadata.jsonl, metadata.csv or Parquet files. Empty (default): images have no classes."""
    deduplicate: bool = True
    """Keep only the first of several images with the same pixels, and skip the others; it gets their captions, too,
    where they have its class. Frames of clips are all kept."""
    on_error: Literal["stop", "quarantine"] = "stop"
    """On bad input: list every problem and stop, or skip the bad images and list them in the report."""
    max_pixels: int = Field(default=1 << 26, gt=0)
    """Maximum number of pixels that one file may declare; checked in the header, before anything is decoded."""
    given_splits: bool = True
    """Take the splits that folders, or Parquet and tar files, named train, validation (val, dev) and test give. Without
    a validation set the test set is held out, beside one it is not used at all. False: pool all images and draw."""
    val_fraction: float = Field(default=0.05, gt=0, lt=1)
    """Share of the images held out for validation where the data set gives no splits, chosen by a hash of (split_seed,
    id): new images move no old one."""
    clip_pattern: str = ""
    """Regular expression that finds the clip in an image's id: its first group, or all of its match, such as
    ``clip[0-9]+``. Frames of one clip stay on one side of a drawn split. Default: each image is for itself, and with
    ``frames: all`` each file."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the choice of held-out images."""
    shard_megabytes: float = Field(default=256, gt=0)
    """Maximum size of a shard in MB, an image being counted as its raw pixels at ``resolution``, or
    as 0.8 MB where it keeps its size."""
    num_shapes: int = Field(default=4000, ge=16)
    """Number of generated images; ``layout: shapes`` only."""
    shapes_seed: int = Field(default=0, ge=0)
    """Seed of the generated images; ``layout: shapes`` only."""

    @property
    def clips(self) -> str:
        """Regular expression of the clip in an id, as ``clip_pattern``; empty where no image is part of a clip."""
        return self.clip_pattern or (CLIP_OF_FRAME if self.frames == "all" else "")

    @field_validator("clip_pattern")
    @classmethod
    def _is_regular_expression(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"clip_pattern: {pattern!r} is no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _square_is_one_of_several_buckets(self) -> Self:
        times, rest = divmod(self.resolution, self.bucket_multiple)
        if self.crop == "buckets" and (rest or times == 1):
            raise ValueError(
                f"resolution ({self.resolution}) must be a multiple of bucket_multiple ({self.bucket_multiple}), twice "
                "it or more: the square of the resolution is one of the buckets, and not to be the only one"
            )
        return self


class CaptionedSpec(ImageSpec):
    """Source, checks, filters, size and shards of a data set of captioned images."""

    resolution: int = Field(default=64, ge=8)
    """Side in pixels of the square that every image is resized (antialiased) and centre-cropped to."""
    crop: Literal["square", "buckets"] = "square"
    """``square``: every image becomes a square of side ``resolution``. ``buckets``: the nearest in aspect ratio of
    several sizes with no more pixels than the square; all images of a batch have one size. The CLIP model trained by
    the pipeline and Fréchet distances see the middle square, enlarged."""
    min_caption_chars: int = Field(default=1, ge=1)
    """Skip images whose caption has fewer characters."""
