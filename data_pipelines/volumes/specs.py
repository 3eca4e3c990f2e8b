"""Configuration of volumes: where they lie, how they are read, checked, split, preprocessed and sharded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from data_pipelines.specs import LocalPath, Spec


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
