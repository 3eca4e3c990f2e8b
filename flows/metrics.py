"""Every metric of the project, once: name, title, unit, direction and meaning.

The gate, the checkpoint selection, the reports, the model cards and the command line read ``METRICS``; a stage that
emits a metric which is not in it fails.

A metric's full name says what it was measured on: ``dice/liver`` is the Dice of one class, ``val/dice`` that of the
validation cases during training, ``kid[clip,n=100]`` KID on the features of ``clip`` over 100 images, and
``frechet_distance[clip,n=100]/prior`` the distance of another set of images.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Value = TypeVar("Value", float, "NDArray[np.float64]")
Better = Literal["higher", "lower", "nearest_zero", "neither"]
PHASES = {"train": "training", "val": "validation"}


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as code compares it and people read it."""

    name: str
    title: str
    better: Better
    meaning: str = ""
    """How to read a value: its range, its yardstick, its pitfalls. Empty for curves that only watch a training."""
    unit: str = ""
    decimals: int | None = None
    """Digits after the point; None: three significant digits."""
    is_main: bool = True
    """Shown in the short tables of the command line and the model card."""

    @property
    def titled(self) -> str:
        """Title with the unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def direction(self) -> str:
        """Direction in words; empty where neither is better."""
        words = {"higher": "higher is better", "lower": "lower is better", "nearest_zero": "nearer 0 is better"}
        return words.get(self.better, "")

    def score(self, value: Value) -> Value:
        """Turn a value, or an array of them, into one of which higher is better, to sort and compare by."""
        if self.better == "neither":
            raise ValueError(f"{self.name} has no direction, so its values cannot be compared")
        return {"higher": value, "lower": -value, "nearest_zero": -abs(value)}[self.better]


_SEGMENTATION = (
    Metric(
        "dice",
        "Dice",
        "higher",
        "Overlap: twice the shared volume, divided by the sum of the predicted and the true volume. 0 is no overlap, 1 "
        "is identical.",
        decimals=3,
    ),
    Metric(
        "iou",
        "IoU",
        "higher",
        "Overlap, counted more strictly: the shared volume, divided by the volume that either covers. 0 to 1, never "
        "above Dice.",
        decimals=3,
    ),
    Metric(
        "surface_dice",
        "Surface Dice",
        "higher",
        "Share of both surfaces that lies within the tolerance (in mm, see the configuration) of the other surface. 0 "
        "to 1. It judges the border, where Dice judges the bulk.",
        decimals=3,
    ),
    Metric(
        "hd95_mm",
        "HD95",
        "lower",
        "95% Hausdorff distance: all but the furthest 5% of the surface lies within this distance of the other "
        "surface. It shows stray pieces that Dice hardly notices. Where only one of the two holds the class, it is the "
        "diagonal of the image.",
        unit="mm",
        decimals=2,
    ),
    Metric(
        "volume_error_ml",
        "Volume error",
        "lower",
        "Difference between the predicted and the true volume, without its sign.",
        unit="ml",
        decimals=2,
        is_main=False,
    ),
    Metric(
        "volume_error_percent",
        "Volume error",
        "nearest_zero",
        "Predicted minus true volume, in percent of the true one: negative where the prediction is too small, positive "
        "where it is too large. The mean shows a bias; errors of both signs cancel in it.",
        unit="%",
        decimals=1,
        is_main=False,
    ),
    Metric(
        "calibration_error",
        "Calibration error",
        "lower",
        "Expected calibration error: distance between the calibrated probability of a class and how often the class is "
        "there, over all voxels of the held-out cases. 0 is calibrated. It grows with the share of the voxels that the "
        "class is likely in: compare it with the error before calibration, not between classes.",
        decimals=5,
        is_main=False,
    ),
    Metric(
        "uncalibrated_error",
        "Calibration error before",
        "lower",
        "The same for the network's own probabilities, before calibration.",
        decimals=5,
        is_main=False,
    ),
)
_GENERATION = (
    Metric(
        "caption_accuracy",
        "Caption accuracy",
        "higher",
        "Share of the items named in the prompts that the generated images show in the right colour and shape, read "
        "back from the pixels. 0 is none, 1 is all.",
    ),
    Metric(
        "caption_accuracy/held_out",
        "Caption accuracy (held out)",
        "higher",
        "The same for combinations of colour and shape that no training image shows: it tells composing from "
        "memorising. Far below the plain caption accuracy, the model repeats what it saw.",
    ),
    Metric(
        "relation_accuracy",
        "Relation accuracy",
        "higher",
        "Share of the generated images whose items lie to one another as the prompt says. 0 is none, 1 is all.",
    ),
    Metric(
        "frechet_distance",
        "Fréchet distance",
        "lower",
        "How far the generated images as a whole are from the real ones, in quality and in variety: the distance "
        "between normal distributions fitted to the features of either. 0 is no difference; there is no upper end. It "
        "compares only with values of the same extractor, resizing, N and real images.",
    ),
    Metric(
        "fid",
        "FID",
        "lower",
        "The Fréchet distance on the published Inception features (2048 of them). It compares only with values of the "
        "same resizing, N and real images.",
    ),
    Metric(
        "kid",
        "KID",
        "lower",
        "Kernel distance between the features of generated and real images. 0 is no difference. On average it does not "
        "depend on N, so it is the one to trust when N is small; then chance may take it a little below 0.",
    ),
    Metric(
        "precision",
        "Precision",
        "higher",
        "Share of the generated images that look like real ones: their features lie among those of real images. 0 to "
        "1. High with low recall: good pictures, few kinds.",
    ),
    Metric(
        "recall",
        "Recall",
        "higher",
        "Share of the real images that the model could have made: their features lie among those of generated images. "
        "0 to 1. It falls when the model leaves out kinds of image.",
    ),
    Metric(
        "nearest_ratio",
        "Nearest-neighbour ratio",
        "higher",
        "Median, over the generated images, of the distance to the nearest training image, divided by the median "
        "distance that held-out images have. About 1 is as far from the training images as unseen real ones; far below "
        "1, the model copies.",
    ),
    Metric(
        "nearer_than_held_out",
        "Near copies",
        "lower",
        "Share of the generated images that lie nearer to a training image than 95% of the held-out images do. A model "
        "that copies nothing gives about 0.05; well above it, training images are memorised.",
    ),
    Metric(
        "alignment",
        "Alignment",
        "higher",
        "How well the images fit their prompts: the cosine between the features of image and text, averaged. 1 is the "
        "most possible, but real images with their own captions stay far below it: they are the yardstick.",
    ),
    Metric(
        "psnr",
        "PSNR",
        "higher",
        "How exactly an image is reconstructed, pixel by pixel; 6 dB more is half the error. Of restored images the "
        "mean; compare it with that of the baseline. Samples of a latent diffusion cannot be sharper than what its "
        "autoencoder reconstructs.",
        unit="dB",
        decimals=2,
    ),
)
_RESTORATION = (
    Metric(
        "psnr/hole",
        "PSNR in holes",
        "higher",
        "The same inside the holes of inpainting alone: elsewhere pixels are kept.",
        unit="dB",
        decimals=2,
    ),
    Metric(
        "psnr/baseline",
        "PSNR of the baseline",
        "higher",
        "The same for the restoration without a network: bicubic enlargement, mean fill, the grey or the noisy image.",
        unit="dB",
        decimals=2,
    ),
    Metric(
        "psnr/baseline_hole",
        "PSNR of the baseline in holes",
        "higher",
        "The same for holes filled with the mean colour of the known pixels.",
        unit="dB",
        decimals=2,
    ),
    Metric(
        "ssim",
        "SSIM",
        "higher",
        "Likeness of structure in windows of 11 pixels: luminance, contrast and correlation. 1 is identical. It "
        "judges blur more strictly than PSNR.",
        decimals=4,
    ),
    Metric(
        "ssim/hole",
        "SSIM in holes",
        "higher",
        "The same over the windows whose centre lies in a hole.",
        decimals=4,
    ),
    Metric("ssim/baseline", "SSIM of the baseline", "higher", "The same for the baseline.", decimals=4),
    Metric("ssim/baseline_hole", "SSIM of the baseline in holes", "higher", "The same for both.", decimals=4),
    Metric(
        "temporal_error",
        "Temporal error",
        "lower",
        "Flicker of restored clips: mean absolute difference between the change from frame to frame and the true one, "
        "in 8-bit levels (0..255).",
        decimals=2,
    ),
    Metric("temporal_error/baseline", "Temporal error of the baseline", "lower", "The same for the baseline."),
    Metric(
        "colourfulness_error",
        "Colourfulness error",
        "nearest_zero",
        "Colourfulness (Hasler 2003) of the restored image minus that of the true one: negative is paler. 15 is the "
        "colourfulness of a slightly, 59 that of a quite colourful image. Errors of both signs cancel in the mean.",
        decimals=1,
        is_main=False,
    ),
    Metric(
        "colourfulness_error/baseline",
        "Colourfulness error of the baseline",
        "nearest_zero",
        "The same for the baseline.",
        decimals=1,
        is_main=False,
    ),
)
_TRAINING = (
    Metric("loss", "Loss", "lower"),
    Metric("learning_rate", "Learning rate", "neither"),
    Metric("samples_per_second", "Samples per second", "neither"),
    Metric("gpu_memory", "GPU memory", "neither", unit="GiB"),
    Metric("goodput_percent", "Goodput", "neither", unit="%", decimals=1),
    Metric("time_seconds", "Time", "neither", unit="s", decimals=1),
)
METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (*_SEGMENTATION, *_GENERATION, *_RESTORATION, *_TRAINING)
}
"""Name to metric. A name with a part, such as ``caption_accuracy/held_out``, goes before the metric itself."""
FRECHET_METRICS = ("frechet_distance", "fid")
"""Metrics that few images make too large."""


@dataclass(frozen=True, slots=True)
class MetricName:
    """A metric's full name, taken apart."""

    metric: Metric
    phase: str
    """``train``, ``val``, or empty for an evaluation."""
    protocol: str
    """Extractor and N, such as ``clip,n=100``; may be empty."""
    part: str
    """Class, or set of images; may be empty. Empty, too, where the metric itself is of that part."""

    @property
    def num_images(self) -> int | None:
        """N of the protocol; None where there is none."""
        match = re.search(r"(?:^|,)n=(\d+)$", self.protocol)
        return int(match[1]) if match else None

    @property
    def extractor(self) -> str:
        """Feature extractor of the protocol; may be empty."""
        first = self.protocol.split(",")[0]
        return "" if first.startswith("n=") else first

    @property
    def title(self) -> str:
        """Title with unit, protocol and part."""
        details = ", ".join(filter(None, [self.protocol, self.part.replace("_", " ")]))
        return f"{self.metric.titled} ({details})" if details else self.metric.titled


def worst_score(name: str) -> float:
    """Return a score that no other is worse than, by the metric's full name; it is finite, as JSON wants."""
    return 0.0 if parse_metric_name(name).metric.better == "higher" else 1e9


def parse_metric_name(name: str) -> MetricName:
    """Take a full name apart. Raises KeyError for a metric that is not in ``METRICS``."""
    match = re.fullmatch(r"(?:(train|val)/)?([^\[\]/]+)(?:\[([^\[\]]*)\])?(?:/(.+))?", name, re.DOTALL)
    phase, base, protocol, part = match.groups(default="") if match else ("", name, "", "")
    if exact := METRICS.get(f"{base}/{part}"):
        return MetricName(exact, phase, protocol, "")
    if base not in METRICS:
        raise KeyError(f"{name} is not in the table of metrics (flows/metrics.py): add it there, with its direction")
    return MetricName(METRICS[base], phase, protocol, part)


def check_metric_names(names: Iterable[str]) -> None:
    """Raise KeyError where a name is not that of a metric in ``METRICS``."""
    for name in names:
        parse_metric_name(name)


def without_protocol(name: str) -> str:
    """Return ``frechet_distance/prior`` for ``frechet_distance[clip,n=100]/prior``."""
    return re.sub(r"^([^\[\]/]+)\[[^\[\]]*\]", r"\1", name)


def find_value(metrics: Mapping[str, float], name: str) -> float:
    """Return the value under ``name``, or under ``name[...]`` with any protocol; NaN where there is none."""
    if name in metrics:
        return metrics[name]
    return next((value for found, value in metrics.items() if without_protocol(found) == name), math.nan)
