"""Configuration of captioned images: where they lie, how they are read, checked, cut to size and sharded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from data_pipelines.specs import LocalPath, Spec


class CaptionedSpec(Spec):
    """Where captioned images lie, how they are read, checked, cut to size and sharded."""

    root: LocalPath = ""
    """Folder of the raw data set. Empty only with ``layout: shapes``."""
    layout: Literal["auto", "imagefolder", "sidecar", "parquet", "webdataset", "shapes"] = "auto"
    """``metadata.jsonl``/``.csv`` beside images; a ``.txt``/``.json`` per image; Parquet with image bytes; WebDataset
    tars as img2dataset writes them; generated shapes; ``auto`` recognises the folder by its files."""
    resolution: int = Field(default=64, ge=8)
    """Side in pixels of the square that every image becomes, resized (antialiased) and cut from its middle."""
    crop: Literal["square", "buckets"] = "square"
    """``buckets``: instead of the square the nearest in aspect ratio of several sizes of no more pixels; a batch is of
    one size. The CLIP that is trained along sees the square in the middle, enlarged, and so do Fréchet distances."""
    bucket_multiple: int = Field(default=64, ge=1)
    """Pixels that the sides of all buckets are multiples of: what the autoencoder shrinks sides by, best times what the
    U-Net does, too."""
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB, 0..255, behind transparent pixels."""
    min_side: int = Field(default=0, ge=0)
    """Leave out images whose shorter side has fewer pixels; counted, not an error."""
    max_aspect_ratio: float | None = Field(default=None, ge=1)
    """Leave out images whose longer side is more than this many times the shorter; none: keep all."""
    min_caption_chars: int = Field(default=1, ge=1)
    """Leave out images with shorter captions."""
    max_caption_chars: int = Field(default=2000, ge=1)
    """Leave out images with longer captions."""
    deduplicate: bool = True
    """Keep only the first of several images with the same pixels."""
    on_error: Literal["stop", "quarantine"] = "stop"
    """On bad input: list every problem and stop, or go on without the bad images and list them in the report."""
    max_pixels: int = Field(default=1 << 26, gt=0)
    """Largest number of pixels one file may declare; checked in the header, before anything is decoded."""
    val_fraction: float = Field(default=0.05, gt=0, lt=1)
    """Share of the images held out, chosen by a hash of (split_seed, id) so that new images move no old one."""
    split_seed: int = 0
    """Seed of the held-out share."""
    shard_megabytes: int = Field(default=256, gt=0)
    """Size at which a shard is closed, in MB of encoded images."""
    num_shapes: int = Field(default=4000, ge=16)
    """Number of generated images (``layout: shapes``)."""
    shapes_seed: int = 0
    """Seed of the generated images."""

    @model_validator(mode="after")
    def _square_is_one_of_several_buckets(self) -> CaptionedSpec:
        times, rest = divmod(self.resolution, self.bucket_multiple)
        if self.crop == "buckets" and (rest or times == 1):
            raise ValueError(
                f"resolution ({self.resolution}) must be a multiple of bucket_multiple ({self.bucket_multiple}), twice "
                "it or more: the square of the resolution is one of the buckets, and not to be the only one"
            )
        return self
