"""What a user may say about data. Light to import: no numpy, no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Spec(BaseModel):
    """Base of configurations, and of records that travel as JSON: frozen, and a misspelt field is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        model_title_generator=lambda model: model.__name__.removesuffix("Spec"),  # forms show it
    )


def _absolute(place: str) -> str:
    return str(Path(place).expanduser().absolute()) if place and "://" not in place else place


LocalPath = Annotated[str, AfterValidator(_absolute)]
"""A file or folder, absolute from the start: jobs and retries run in other folders. Empty stays empty."""


class PreprocessSpec(Spec):
    """How a raw case becomes a training sample. Every field changes the shards."""

    spacing: tuple[float, ...] | Literal["median"] | None = None
    """Target voxel size in mm, one number per axis; ``median`` of the data set; or none: keep each case's own."""
    image_interpolation: Literal["linear", "spline"] = "linear"
    """How images are resampled: linear, or cubic spline."""
    label_interpolation: Literal["nearest", "onehot"] = "onehot"
    """How labels are resampled: nearest voxel, or one-hot linear and argmax, which keeps thin structures smoother."""
    foreground_crop: bool = False
    """Crop to the bounding box of voxels above each volume's minimum (empty borders of skull-stripped scans)."""
    normalise: Literal["zscore", "window", "none"] = "zscore"
    """Per volume and channel zero mean and unit variance; a fixed intensity window mapped to [-1, 1]; or nothing."""
    window: tuple[float, float] | None = None
    """Lower and upper intensity of ``normalise: window`` (for CT, in Hounsfield units)."""

    @model_validator(mode="after")
    def _window_goes_with_window(self) -> PreprocessSpec:
        if (self.normalise == "window") != (self.window is not None):
            raise ValueError("`window: [low, high]` and `normalise: window` go together: give both or neither")
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError(f"window: the lower bound must be below the upper, got {list(self.window)}")
        if isinstance(self.spacing, tuple) and any(s <= 0 for s in self.spacing):
            raise ValueError(f"spacing: millimetres must be positive, got {list(self.spacing)}")
        return self


class DataSpec(Spec):
    """Where raw data lies, how it is read, checked, split and sharded."""

    root: LocalPath = ""
    """Folder of the raw data set. Empty only with ``layout: phantoms``."""
    layout: Literal["auto", "decathlon", "nnunet", "folders", "dicom", "phantoms"] = "auto"
    """How the folder is laid out; ``auto`` recognises it by its files."""
    classes: dict[str, int] | None = None
    """Class name to label value, background (0) included; none: as the data set's ``dataset.json`` declares."""
    channels: tuple[str, ...] | None = None
    """Names of the image channels; none: as the data set declares."""
    ndim: Literal[2, 3] = 3
    """Number of spatial axes of a sample."""
    on_error: Literal["stop", "quarantine"] = "stop"
    """On bad input: list every problem and stop, or go on without the bad cases and list them in the report."""
    max_voxels: int = Field(default=1 << 30, gt=0)
    """Largest number of voxels one file may declare; checked in the header, before anything is read."""
    splits: str | None = None
    """nnU-Net's kind of splits file, absolute or relative to ``root``; none: the one beside the data, else drawn."""
    fold: int = Field(default=0, ge=0)
    """Which fold of the splits is held out."""
    num_folds: int = Field(default=5, ge=2)
    """Number of folds when splits are drawn rather than read."""
    split_seed: int = 12345
    """Seed of the drawn, subject-aware folds."""
    shard_megabytes: int = Field(default=256, gt=0)
    """Size at which a shard is closed, in MB of preprocessed data."""
    num_phantoms: int = Field(default=24, ge=4)
    """Number of generated cases (``layout: phantoms``)."""
    phantom_seed: int = 0
    """Seed of the generated cases."""
    preprocess: PreprocessSpec = PreprocessSpec()
    """From raw case to training sample."""


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
