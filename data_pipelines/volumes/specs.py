"""User-facing configuration of volumes: source, checks, split, preprocessing and shards."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from data_pipelines.errors import ConfigError
from data_pipelines.specs import LocalPath, Spec

SLICE_TOLERANCE_MM = 0.08
"""Default tolerance of the positions of slices: with one decimal they are up to 0.05 mm off, and the line through them
is off a little, too."""
GRID_TOLERANCE = 0.1
"""Default tolerance of two grids, as a share of the smallest spacing."""


LabelValue = int | Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]
"""Value of a class in a label file: a whole number, or a colour."""
ValuesByClass = dict[str, LabelValue | tuple[LabelValue, ...]]
"""Class name to its values."""
Spacing = tuple[float | None, ...]
"""Voxel size in mm per axis of a sample; None where each case keeps its own."""
Normalisation = Literal["zscore", "window", "intensities", "none"]


class IntensitySpec(Spec):
    """Intensities of a channel over a data set, in the units of the files."""

    low: float
    """Intensity below which values are clipped."""
    high: float
    """Intensity above which values are clipped."""
    mean: float
    """Mean, which becomes 0."""
    std: float = Field(gt=0)
    """Standard deviation, which becomes 1."""

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"intensities: low must be below high, got {self.low} and {self.high}")
        return self


class PreprocessSpec(Spec):
    """Preprocessing of a raw case to a training sample. Every field changes the shards."""

    orientation: Literal["canonical", "stored"] = "canonical"
    """Direction of the axes of a sample: to the right, anterior and superior (RAS+); or as they are stored."""
    axes: tuple[int, ...] | None = None
    """Order of the axes of a sample among those of ``orientation``, such as ``[2, 1, 0]``; ``spacing`` has the same.
    Default: as they are."""
    spacing: Spacing | Literal["median"] | None = None
    """Target voxel size in mm, one number per axis, null where each case keeps its own; or ``median``: per axis the
    spacing of most cases, or else the median, rounded by at most 0.5 %. Default: each case keeps its own."""
    image_interpolation: Literal["linear", "spline"] = "linear"
    """Interpolation of resampled images: linear, or cubic spline, whose values stay within those of the image. Of
    images and labels alike, slices more than 3 times as thick as their pixels are resampled one by one, and along the
    third axis the nearest slice is taken."""
    label_interpolation: Literal["nearest", "onehot"] = "onehot"
    """Interpolation of resampled labels: nearest voxel, or one-hot linear and argmax, which keeps thin structures
    smoother."""
    foreground_crop: bool | Literal["nonzero"] = False
    """Crop each volume to the bounding box of voxels above its minimum, or of those that are not 0: removes the borders
    of skull-stripped scans."""
    masked: tuple[bool, ...] | None = None
    """Per channel: ``zscore`` takes its statistics from the cropped foreground and the holes in it alone, and leaves
    the rest at 0. Default: in all channels of the volumes of which the crop removes more than a quarter."""
    normalise: Normalisation | tuple[Normalisation, ...] = "zscore"
    """Intensity normalisation, one for all channels or one per channel: zero mean and unit variance per volume;
    ``window`` mapped linearly to [-1, 1] and clipped; ``intensities`` clipped and standardised alike in all volumes
    (CT); or none."""
    window: tuple[float, float] | None = None
    """Lower and upper intensity of ``normalise: window``, in the units of the files (CT: Hounsfield units). Required
    with it, not allowed without."""
    intensities: tuple[IntensitySpec, ...] | None = None
    """Range, mean and standard deviation of each channel for ``normalise: intensities``. Required with it, not allowed
    without."""

    @model_validator(mode="after")
    def _check_normalisation(self) -> PreprocessSpec:
        names = self.normalise if isinstance(self.normalise, tuple) else (self.normalise,)
        if ("window" in names) != (self.window is not None):
            raise ValueError("`window: [low, high]` and `normalise: window` go together: give both or neither")
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError(f"window: the lower bound must be below the upper, got {list(self.window)}")
        if ("intensities" in names) != (self.intensities is not None):
            raise ValueError("`intensities` and `normalise: intensities` go together: give both or neither")
        if self.masked is not None and not self.foreground_crop:
            raise ValueError("masked: the foreground is known with foreground_crop alone; set it")
        return self

    @model_validator(mode="after")
    def _check_axes(self) -> PreprocessSpec:
        if isinstance(self.spacing, tuple) and any(s is not None and s <= 0 for s in self.spacing):
            raise ValueError(f"spacing: millimetres must be positive, got {list(self.spacing)}")
        if self.axes is not None and sorted(self.axes) != list(range(len(self.axes))):
            raise ValueError(f"axes: name each axis once, counted from 0, got {list(self.axes)}")
        if (self.axes is not None or self.orientation == "stored") and self.spacing == "median":
            raise ValueError("spacing: median is known along canonical axes; give numbers, or leave out axes")
        return self

    def normalisations(self, num_channels: int) -> tuple[Normalisation, ...]:
        """Return the normalisation of each channel. Raises ConfigError where settings are of another number of them."""
        for name in ("normalise", "masked", "intensities"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != num_channels:
                raise ConfigError(
                    f"preprocess.{name} has {len(value)} entries for {num_channels} channels: one for each"
                )
        return self.normalise if isinstance(self.normalise, tuple) else (self.normalise,) * num_channels


class InputSpec(Spec):
    """Limits and tolerances of input files. Training and prediction apply the same: they travel with the model."""

    max_voxels: int = Field(default=1 << 30, gt=0)
    """Maximum number of voxels that one file may declare, checked in the header, before anything is read, and that an
    image may have after resampling."""
    slice_tolerance_mm: float = Field(default=SLICE_TOLERANCE_MM, ge=0)
    """Maximum distance in mm of a DICOM slice from its place on a straight, evenly spaced line (at most a fifth of the
    distance between slices). The default accepts positions that are written with one decimal."""
    grid_tolerance: float = Field(default=GRID_TOLERANCE, ge=0, lt=0.5)
    """Maximum distance between the same corner of two grids of one case, as a share of the smallest spacing."""


Fold = Annotated[int, Field(ge=0)]


class DataSpec(InputSpec):
    """Source, checks, split and shards of a data set of volumes."""

    root: LocalPath = ""
    """Folder of the raw data set. Required, except where ``layout`` generates one."""
    layout: str = "auto"
    """Layout of the folder: ``decathlon``, ``nnunet``, ``folders`` or ``dicom``; ``phantoms`` generates a data set,
    of slices with ``ndim: 2``, and ``scenes`` one of images with texts and sounds; ``auto`` (default) recognises it."""
    classes: ValuesByClass | None = None
    """Class name to the value that stands for it in label files, or a list of several: ``{background: 0, tumour: [1, 2,
    4]}``. Colours are written ``"#rrggbb"``: a list of three numbers is three values. The background is the class of
    that name, else that of value 0. Default: as the data set declares (``dataset.json`` or ``classes.json``)."""
    regions: dict[str, tuple[int | str, ...]] | None = None
    """Overlapping classes to predict instead: name to the classes that each is made of, by name or value, such as
    ``{whole: [edema, core], core: [core]}``. Each is predicted by a sigmoid of its own. Default: as an nnU-Net data set
    declares."""
    regions_class_order: tuple[int | str, ...] | None = None
    """For each region the class that predictions write it as, later regions over earlier ones. Default: the first class
    that no later region has."""
    channels: tuple[str, ...] | None = None
    """Names of the image channels, in order. Default: as the data set declares."""
    ndim: Literal[2, 3] = 3
    """Number of spatial axes of a sample: 2 for images, 3 for volumes."""
    on_error: Literal["stop", "quarantine"] = "stop"
    """On bad input: list every problem and stop, or skip the bad cases and list them in the report."""
    splits: str | None = None
    """Splits file in the format of nnU-Net's ``splits_final.json``, absolute or relative to ``root``. Default: the one
    beside the data, else the splits are drawn."""
    fold: Fold | tuple[Fold, ...] | Literal["all"] = 0
    """Fold of the splits that is held out for validation, counted from 0; or several, or ``all``: each is trained and
    scored, and one model is registered that averages their probabilities."""
    num_folds: int = Field(default=5, ge=2)
    """Number of folds of drawn splits; ignored with a splits file."""
    split_seed: int = 12345
    """Seed of drawn splits, in which cases of one subject share a fold; ignored with a splits file."""
    subject_pattern: str | None = None
    """Regular expression that finds the subject in a case id: its first group, or all of its match, such as
    ``patient[0-9]+``. Cases of one subject stay on one side of a split. Default: ``subjects.json`` beside the data,
    else a leading ``sub-XX`` as in BIDS, else the ``PatientID`` of a DICOM series, else each case is a subject."""
    shard_megabytes: float = Field(default=256, gt=0)
    """Maximum size of a shard, in MB of preprocessed data; a larger case is a shard alone."""
    num_phantoms: int = Field(default=24, ge=4)
    """Number of generated cases; read where ``layout`` generates them."""
    phantom_seed: int = Field(default=0, ge=0)
    """Seed of the generated cases; read where ``layout`` generates them."""
    preprocess: PreprocessSpec = PreprocessSpec()
    """Preprocessing of a raw case to a training sample."""

    @property
    def held_out_fold(self) -> int:
        """Fold of a run of one. Raises ConfigError where there are several: each is a run of its own."""
        if isinstance(self.fold, int):
            return self.fold
        raise ConfigError(f"data.fold: {self.fold} is several folds; this needs one, such as data.fold=0")

    @field_validator("fold")
    @classmethod
    def _folds_differ(cls, fold: int | tuple[int, ...] | str) -> int | tuple[int, ...] | str:
        if isinstance(fold, tuple) and (len(fold) < 2 or len(set(fold)) < len(fold)):
            raise ValueError(f"fold: name one fold, or several different ones, got {list(fold)}")
        return fold

    @model_validator(mode="after")
    def _order_goes_with_regions(self) -> Self:
        if self.regions_class_order is not None and self.regions is None:
            raise ValueError("regions_class_order: also give data.regions")
        return self

    @field_validator("subject_pattern")
    @classmethod
    def _is_regular_expression(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"subject_pattern: {pattern!r} is no regular expression: {error}") from None
        return pattern
