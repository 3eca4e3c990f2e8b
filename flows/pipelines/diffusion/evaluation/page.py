"""The report of a latent-diffusion run: metrics and how they were computed, pictures, then what it was made from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.errors import Problem
from flows.report.axes import number_text
from flows.report.blocks import Block, Cell, CellLike, KeyValue, KeyValues, Picture, PictureRow, Section, Table, Text
from flows.report.common import Curves, configuration_section, lineage_section, quarantine_section, set_aside_items, training_section
from flows.report.html import render
from flows.metrics import read_metric, split_name, without_protocol

__all__ = ["Picture", "PictureRow", "diffusion_report"]

HEADLINE = ("caption_accuracy", "caption_accuracy/held_out", "frechet_distance", "alignment")
"""The most telling metrics, most telling first."""
NUM_HEADLINE = 3
IMAGES_PER_FEATURE = 10
"""With fewer images than this per feature, a Fréchet distance says more about N than about the images."""
INCEPTION_DIMENSION = 2048
ASSUMED_DIMENSION = 512
"""Taken where the feature dimension is neither stated nor known; that of the smallest published CLIP."""

PICTURES = {
    "grid": (
        "Samples by prompt",
        "Each row is one prompt and images generated for it. Look for what the prompt names, and for variety.",
    ),
    "sizes": (
        "Sizes",
        "One prompt and seed in the sizes that most training images have. Look for what is cut off or repeated at the "
        "edges.",
    ),
    "sweep": (
        "Guidance",
        "The same prompts at several guidance scales. Scale 1 is the model as trained; larger ones follow the "
        "prompt more closely at the price of variety, and too large ones give harsh colours.",
    ),
    "trace": (
        "From noise to image",
        "How the sampler gets from noise to an image, first step to last. The rough layout comes early, detail late.",
    ),
    "neighbours": (
        "Nearest training images",
        "A generated image, then the training images nearest to it. Where they are equal, the model has "
        "remembered the image, not made it.",
    ),
}
"""Kind of pictures to heading and explanation, in the order of the report."""


def diffusion_report(
    title: str,
    metrics: Mapping[str, float],
    protocol: Mapping[str, str],
    pictures: Mapping[str, Sequence[PictureRow]],
    curves: Mapping[str, Curves],
    problems: Sequence[Problem],
    left_out: Mapping[str, int],
    buckets: Mapping[str, int],
    config: Mapping[str, Any],
    lineage: Mapping[str, str],
) -> str:
    """Write the report of a latent-diffusion run as one HTML document. What is empty has no section.

    Args:
        title: Heading, such as the model's name.
        metrics: Name to value; ``frechet_distance[clip]`` is computed on the features of ``clip``,
            ``caption_accuracy/held_out`` on a part of the prompts.
        protocol: How the metrics were computed, by name. ``N`` (images in the smaller of the two sets compared),
            ``extractor`` and ``feature dimension`` decide whether a Fréchet distance comes with a caution.
        pictures: Kind of pictures, as ``PICTURES`` names them, to their rows.
        curves: Stage to curve name to (step, value).
        problems: Input that was set aside before training.
        left_out: Filter, or ``duplicate``, to the number of images it took out.
        buckets: Size such as ``640x384`` to the number of images that were cut to it.
        config: The resolved configuration.
        lineage: Stage keys, digests, commit, model, by name.
    """
    sections = [
        _headline(metrics, protocol, problems),
        _metrics(metrics, protocol),
        *_pictures(pictures),
        training_section(curves, "images", "A denoiser's samples still improve long after its loss is flat."),
        *_images(left_out, buckets),
        quarantine_section(problems),
    ]
    if config:
        sections.append(configuration_section(config))
    if lineage:
        sections.append(lineage_section(lineage))
    num_images = _count(protocol, "n", "num images")
    subtitle = "Latent diffusion" + (f", evaluated on {num_images:,} images" if num_images else "")
    return render(title, subtitle, [section for section in sections if section.blocks])


def _headline(metrics: Mapping[str, float], protocol: Mapping[str, str], problems: Sequence[Problem]) -> Section:
    chosen = {name: read_metric(name) for name in _most_telling(metrics)}
    items = [KeyValue(reading.title, number_text(metrics[name]), reading.better) for name, reading in chosen.items()]
    items += set_aside_items(problems)
    if not items:
        return Section("Result", "", [])
    sentences = [reading.sentence for reading in chosen.values() if reading.meaning]
    if caution := _caution(metrics, protocol):
        sentences.append(caution)
    intro = "The most telling figures, and what each of them says."
    return Section("Result", intro, [KeyValues(items, style="headline"), *map(Text, sentences)])


def _most_telling(metrics: Mapping[str, float]) -> list[str]:
    """Names of at most three metrics for the headline; the first ones given where none of them is known."""
    by_kind: dict[str, str] = {}
    for name in metrics:
        by_kind.setdefault(without_protocol(name), name)
    return ([by_kind[kind] for kind in HEADLINE if kind in by_kind] or list(metrics))[:NUM_HEADLINE]


def _caution(metrics: Mapping[str, float], protocol: Mapping[str, str]) -> str:
    """What to beware of where N is too small for a Fréchet distance; empty where it is large enough or not stated."""
    num_images = _count(protocol, "n", "num images")
    if num_images is None:
        return ""
    distances = [name for name in metrics if split_name(name)[0] == "frechet_distance"]
    dimensions = {read_metric(name).title: _feature_dimension(name, protocol) for name in distances}
    short = [
        f"{title} has {dimension:,} features{'' if stated else ' (assumed)'} and would need "
        f"{IMAGES_PER_FEATURE * dimension:,}"
        for title, (dimension, stated) in dimensions.items()
        if num_images < IMAGES_PER_FEATURE * dimension
    ]
    if not short:
        return ""
    return (
        f"Caution: N = {num_images:,} images are few for a Fréchet distance, which needs {IMAGES_PER_FEATURE} images "
        f"per feature or more: {'; '.join(short)}. With fewer it is dominated by N, not by the images, and comes out "
        "too high. Compare it only with values of the same N, and rather by KID."
    )


def _feature_dimension(name: str, protocol: Mapping[str, str]) -> tuple[int, bool]:
    """Number of features behind a Fréchet distance, and whether that is stated or known rather than assumed."""
    extractor = split_name(name)[1]
    if stated := _count(protocol, f"feature dimension[{extractor.casefold()}]", "feature dimension"):
        return stated, True
    known = "inception" in (extractor or protocol.get("extractor", "")).casefold()
    return (INCEPTION_DIMENSION, True) if known else (ASSUMED_DIMENSION, False)


def _count(protocol: Mapping[str, str], *names: str) -> int | None:
    """The whole number that the first stated one of ``names`` begins with; None where there is none."""
    stated = {key.casefold().replace("_", " "): value for key, value in protocol.items()}
    text = next((stated[name] for name in names if name in stated), "")
    match = re.match(r"\s*(\d{1,3}(?:[,_ ]\d{3})+|\d+)(?![\w.])", text)
    return int(re.sub(r"\D", "", match[1])) if match else None


def _metrics(metrics: Mapping[str, float], protocol: Mapping[str, str]) -> Section:
    blocks: list[Block] = []
    rows: list[list[CellLike]] = []
    for name, value in metrics.items():
        reading = read_metric(name)
        title = Cell(reading.title, note=name if name != reading.title else "")
        rows.append([title, Cell(number_text(value), note=reading.better, number=value), reading.meaning])
    if rows:
        blocks.append(Table(["Metric", "Value", "How to read it"], rows))
    if protocol:
        blocks += [
            Text("How they were computed. Values computed otherwise do not compare with these."),
            KeyValues([KeyValue(name, value) for name, value in protocol.items()]),
        ]
    intro = "Every metric that was computed, under the name it has in the tracking server."
    return Section("Metrics", intro if rows else "", blocks)


def _pictures(rows_of: Mapping[str, Sequence[PictureRow]]) -> list[Section]:
    return [
        Section(title, intro, [row for row in rows_of.get(kind, ()) if row.pictures])
        for kind, (title, intro) in PICTURES.items()
    ]


def _images(left_out: Mapping[str, int], buckets: Mapping[str, int]) -> list[Section]:
    """What became of the images before training."""
    shown = buckets if len(buckets) > 1 else {}
    parts = {
        "Buckets": (
            "Images of every size that training saw, width first. A bucket of fewer images than a batch repeats them "
            "within it; a larger data.bucket_multiple makes fewer buckets.",
            "Pixels",
            list(shown.items()),
        ),
        "Images left out": (
            "Images that can be read but were taken out before training: by a filter, or as the equal of another one.",
            "Reason",
            sorted(left_out.items(), key=lambda entry: -entry[1]),
        ),
    }
    return [
        Section(title, intro, [Table([column, "Images"], rows)] if rows else [])
        for title, (intro, column, rows) in parts.items()
    ]
