"""The page of a diffusion report: metrics and how they were computed, pictures, then what it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_pipelines.errors import Problem
from flows.metrics import FRECHET_METRICS, MetricName, parse_metric_name, without_protocol
from flows.pipelines.diffusion.evaluation.distances import compared_names, equal_n_tables, kid_beside
from flows.report.axes import number_text
from flows.report.blocks import Block, Cell, CellLike, KeyValue, KeyValues, PictureRow, Section, Table, Text
from flows.report.curves import Curves
from flows.report.html import render
from flows.report.sections import (
    configuration_section,
    images_sections,
    lineage_section,
    quarantine_items,
    quarantine_section,
    training_section,
)
from flows.training.goodput import TimeSplit
from flows.training.initial import Initialisation
from flows.training.initial_report import initial_section
from flows.training.time_report import times_section

HEADLINE = ("caption_accuracy", "caption_accuracy/held_out", "fid", "frechet_distance", "alignment")
"""The most telling metrics, most telling first."""
NUM_HEADLINE = 3
IMAGES_PER_FEATURE = 10
"""With fewer images than this per feature, a Fréchet distance says more about N than about the images."""

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
    "attention": (
        "Attention to the prompt",
        "Where an image attends to each token of its prompt, averaged over layers: the mean over sampling, some steps, "
        "and every head. Each map is as bright as its largest value; tokens that name nothing take what is left over.",
    ),
    "neighbours": (
        "Nearest training images",
        "A generated image, then the training images nearest to it. Where they are equal, the model has "
        "remembered the image, not made it.",
    ),
}
"""Kind of pictures to heading and explanation, in the order of the report."""


@dataclass(frozen=True, slots=True)
class DiffusionPage:
    """Contents of a diffusion report. What is empty has no section."""

    title: str
    """Heading, such as the model's name."""
    num_images: int
    """Generated images of the main set."""
    metrics: Mapping[str, float]
    """Full name, as in ``flows.metrics``, to value."""
    dimensions: Mapping[str, int]
    """Feature extractor to its number of features."""
    protocol: Mapping[str, str]
    """How the metrics were computed, by name."""
    pictures: Mapping[str, Sequence[PictureRow]]
    """Kind of pictures, as ``PICTURES`` names them, to their rows."""
    curves: Mapping[str, Curves]
    """Title of a training to its curves."""
    problems: Sequence[Problem]
    """Input that was quarantined before training."""
    left_out: Mapping[str, int]
    """Filter, or ``duplicate``, to the number of images that it left out."""
    changes: Mapping[str, int]
    """End of the sentence "Images ..." to the number of images that were changed so."""
    buckets: Mapping[str, int]
    """Size such as ``640x384`` to the number of images that were cut to it."""
    config: Mapping[str, Any]
    """The resolved configuration as JSON."""
    lineage: Mapping[str, str]
    """Stage keys, digests, commit, model, by name."""
    times: Mapping[str, TimeSplit] = field(default_factory=dict)
    """Title of a training to what it spent its wall time on."""
    init: Mapping[str, Initialisation] = field(default_factory=dict)
    """Title of a training to the weights that it started from."""


def diffusion_page(page: DiffusionPage) -> str:
    """Write the report as one HTML document."""
    sections = [
        _headline(page),
        _metrics(page.metrics, page.protocol),
        *_pictures(page.pictures),
        training_section(page.curves, "images", "A denoiser's samples still improve long after its loss is flat."),
        *([initial_section(page.init)] if page.init else []),
        *([times_section(page.times)] if page.times else []),
        *images_sections(page.left_out, page.changes, page.buckets),
        quarantine_section(page.problems),
    ]
    if page.config:
        sections.append(configuration_section(page.config))
    if page.lineage:
        sections.append(lineage_section(page.lineage))
    subtitle = "Latent diffusion" + (f", evaluated on {page.num_images:,} images" if page.num_images else "")
    return render(page.title, subtitle, [section for section in sections if section.blocks])


def _headline(page: DiffusionPage) -> Section:
    chosen = {name: parse_metric_name(name) for name in _most_telling(page.metrics)}
    items = [
        KeyValue(parsed.title, number_text(page.metrics[name]), _note(parsed, page.metrics))
        for name, parsed in chosen.items()
    ]
    items += quarantine_items(page.problems)
    if not items:
        return Section("Result", "", [])
    sentences = [f"{parsed.title}, {parsed.metric.direction}: {parsed.metric.meaning}" for parsed in chosen.values()]
    if caution := _caution(page):
        sentences.append(caution)
    intro = "The most telling figures, and what each of them says."
    return Section("Result", intro, [KeyValues(items, style="headline"), *map(Text, sentences)])


def _note(parsed: MetricName, metrics: Mapping[str, float]) -> str:
    """Write the direction of a metric, and the KID beside a Fréchet distance."""
    kid = kid_beside(parsed, metrics)
    return parsed.metric.direction if kid is None else f"{parsed.metric.direction}; KID {number_text(kid)}"


def _most_telling(metrics: Mapping[str, float]) -> list[str]:
    """Return the names of at most three metrics for the headline; the first ones where none of them is known."""
    by_kind: dict[str, str] = {}
    for name in metrics:
        by_kind.setdefault(without_protocol(name), name)
    return ([by_kind[kind] for kind in HEADLINE if kind in by_kind] or list(metrics))[:NUM_HEADLINE]


def _caution(page: DiffusionPage) -> str:
    """Warn of Fréchet distances over too few images; empty where all have enough."""
    distances = [parse_metric_name(name) for name in page.metrics]
    short = [
        text for parsed in distances if parsed.metric.name in FRECHET_METRICS and (text := _shortage(parsed, page))
    ]
    if not short:
        return ""
    return (
        f"Caution: few images for a Fréchet distance, which needs {IMAGES_PER_FEATURE} images per feature or more: "
        f"{'; '.join(short)}. With fewer it is dominated by N, not by the images, and comes out too high. Compare it "
        "only with values of the same N, and rather by KID."
    )


def _shortage(name: MetricName, page: DiffusionPage) -> str:
    """Say how many images a Fréchet distance would need; empty where it has enough."""
    dimension = page.dimensions.get(name.extractor or "inception")
    num_images = name.num_images
    if dimension is None or num_images is None or num_images >= IMAGES_PER_FEATURE * dimension:
        return ""
    return (
        f"{name.title} has {dimension:,} features and {num_images:,} images, and would need "
        f"{IMAGES_PER_FEATURE * dimension:,}"
    )


def _metrics(metrics: Mapping[str, float], protocol: Mapping[str, str]) -> Section:
    blocks: list[Block] = []
    rows: list[list[CellLike]] = []
    compared = compared_names(metrics)
    for name in (name for name in metrics if name not in compared):
        value, parsed = metrics[name], parse_metric_name(name)
        title = Cell(parsed.title, note=name if name != parsed.title else "")
        value_cell = Cell(number_text(value), note=parsed.metric.direction, number=value)
        rows.append([title, value_cell, parsed.metric.meaning])
    if rows:
        blocks.append(Table(["Metric", "Value", "How to read it"], rows))
    blocks += equal_n_tables(metrics)
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
