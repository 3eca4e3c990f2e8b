"""How each metric of generated images is named and read."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """How a metric is named and read; an unknown one has its own name and no more."""

    title: str
    better: str = ""
    meaning: str = ""

    @property
    def sentence(self) -> str:
        """Title, direction and meaning in one."""
        return f"{self.title}, {self.better}: {self.meaning}" if self.meaning else ""


HIGHER, LOWER = "higher is better", "lower is better"
READINGS = {
    "caption_accuracy": Reading(
        "Caption accuracy",
        HIGHER,
        "Share of the items named in the prompts that the generated images show in the right colour and shape, read "
        "back from the pixels. 0 is none, 1 is all.",
    ),
    "caption_accuracy/held_out": Reading(
        "Caption accuracy (held out)",
        HIGHER,
        "The same for combinations of colour and shape that no training image shows: it tells composing from "
        "memorising. Far below the plain caption accuracy, the model repeats what it saw.",
    ),
    "relation_accuracy": Reading(
        "Relation accuracy",
        HIGHER,
        "Share of the generated images whose items lie to one another as the prompt says. 0 is none, 1 is all.",
    ),
    "frechet_distance": Reading(
        "Fréchet distance",
        LOWER,
        "How far the generated images as a whole are from the real ones, in quality and in variety: the distance "
        "between normal distributions fitted to the features of either. 0 is no difference; there is no upper end. It "
        "compares only with values of the same extractor, resizing, N and real images.",
    ),
    "kid": Reading(
        "KID",
        LOWER,
        "Kernel distance between the features of generated and real images. 0 is no difference. On average it does "
        "not depend on N, so it is the one to trust when N is small; then chance may take it a little below 0.",
    ),
    "precision": Reading(
        "Precision",
        HIGHER,
        "Share of the generated images that look like real ones: their features lie among those of real images. 0 to "
        "1. High with low recall: good pictures, few kinds.",
    ),
    "recall": Reading(
        "Recall",
        HIGHER,
        "Share of the real images that the model could have made: their features lie among those of generated images. "
        "0 to 1. It falls when the model leaves out kinds of image.",
    ),
    "density": Reading(
        "Density",
        HIGHER,
        "Like precision, but counts in how many real neighbourhoods a generated image lies, so single odd real images "
        "weigh less. It may exceed 1.",
    ),
    "coverage": Reading(
        "Coverage",
        HIGHER,
        "Share of the real images with a generated one in their neighbourhood. 0 to 1. Like recall, but harder to "
        "raise with odd images.",
    ),
    "alignment": Reading(
        "Alignment",
        HIGHER,
        "How well the images fit their prompts: the cosine between the features of image and text, averaged. 1 is the "
        "most possible, but real images with their own captions stay far below it: they are the yardstick.",
    ),
    "psnr": Reading(
        "PSNR (dB)",
        HIGHER,
        "How exactly the autoencoder gives back an image, pixel by pixel; 6 dB more is half the error. Samples cannot "
        "be sharper than what it gives back.",
    ),
    "ssim": Reading(
        "SSIM",
        HIGHER,
        "How well the autoencoder keeps local structure (brightness, contrast, pattern) of an image. 1 is identical.",
    ),
    "lpips": Reading(
        "LPIPS",
        LOWER,
        "How different an image and what the autoencoder gives back look to a network trained on human judgement. 0 "
        "is identical.",
    ),
}


def read_metric(name: str) -> Reading:
    """How to read a metric: ``kid[clip]/held_out`` is KID on the features of ``clip``, of the part ``held_out``."""
    base, extractor, part = split_name(name)
    exact = READINGS.get(f"{base}/{part}")
    known = exact or READINGS.get(base)
    if known is None:
        return Reading(name)
    details = ", ".join(filter(None, [extractor, "" if exact else part.replace("_", " ")]))
    return Reading(f"{known.title} ({details})" if details else known.title, known.better, known.meaning)


def split_name(name: str) -> tuple[str, str, str]:
    """Metric, extractor and part of a name; the latter two may be empty."""
    match = re.fullmatch(r"([^\[\]/]+)(?:\[([^\[\]]*)\])?(?:/(.+))?", name)
    return (match[1], match[2] or "", match[3] or "") if match else (name, "", "")


def without_protocol(name: str) -> str:
    """``frechet_distance[clip,n=100]/prior`` -> ``frechet_distance/prior``."""
    base, _, part = split_name(name)
    return f"{base}/{part}" if part else base
