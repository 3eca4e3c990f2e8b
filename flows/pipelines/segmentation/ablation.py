"""Ablation of the skip connections of a segmentation U-Net. Light to import: the command line lists it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from data_pipelines.errors import ConfigError
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.stages.pipeline import Ablation, Estimate
from unet_models.specs.networks import UNetSpec

if TYPE_CHECKING:
    from flows.stages.record import Record

SHOWN = ("dice", "hd95_mm", "surface_dice")


def skip_variants(config: SegmentationConfig) -> dict[str, SegmentationConfig]:
    """Return all skip connections, gated ones, none, and those of one level alone, full resolution first.

    Connections are added where the configuration adds them, else concatenated, and gated as its gates are.
    """
    configured = config.train.model.skips
    kinds = ["add" if kind == "add" else "concat" for kind in configured]
    gate = next((kind for kind in configured if kind.startswith("gated")), "gated")
    skips: dict[str, Any] = {"all": kinds[0] if len(set(kinds)) == 1 else kinds, "gated": gate, "none": "none"}
    for level in range(len(kinds) if len(kinds) > 1 else 0):
        skips[f"level {level + 1} alone"] = [kind if each == level else "none" for each, kind in enumerate(kinds)]
    return {name: _with_skip(config, skip) for name, skip in skips.items()}


def estimate(evaluations: Sequence[Record[Any]]) -> dict[str, Estimate]:
    """Return means over the classes, of scores that are averaged over the seeds; intervals over the cases."""
    from data_pipelines.shards.index import read_table
    from flows.pipelines.segmentation.evaluate import CASES
    from unet_models.metrics.summary import MEAN_CLASS, summarise

    tables = [read_table(record.output(CASES)).to_pylist() for record in evaluations]
    summaries = summarise(mean_over_seeds(tables))
    return {
        summary.metric: Estimate(summary.mean, summary.low, summary.high)
        for summary in summaries
        if summary.class_name == MEAN_CLASS and summary.metric in SHOWN
    }


def mean_over_seeds(tables: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Average the rows of one case and class over the seeds; NaN where a metric has no value under any of them."""
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in (row for table in tables for row in table):
        for metric in SHOWN:
            if row[metric] == row[metric]:  # not NaN
                values[row["case_id"], row["class_name"]][metric].append(row[metric])
    nan = float("nan")
    return [
        {"case_id": case, "class_name": name}
        | {metric: sum(found[metric]) / len(found[metric]) if found[metric] else nan for metric in SHOWN}
        for (case, name), found in values.items()
    ]


def _with_skip(config: SegmentationConfig, skip: Any) -> SegmentationConfig:
    try:
        model = UNetSpec.model_validate(config.train.model.model_dump() | {"skip": skip})
    except ValidationError as error:
        raise ConfigError(f"ablate skips: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return config.model_copy(update={"train": config.train.model_copy(update={"model": model})})


SKIPS = Ablation(
    name="skips",
    about="Skip connections: all, gated, none, one level alone.",
    variants=skip_variants,
    estimate=estimate,
    quality="val/dice",
)
