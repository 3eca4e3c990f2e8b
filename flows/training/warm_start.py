"""Weights of the champion to start a training from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from data_pipelines import storage
from data_pipelines.errors import ConfigError
from flows.config.pipeline import PipelineConfig
from flows.registry import tracking
from flows.registry.models import TAG_PREFIX, find_champion
from flows.stages.record import Figures, Record, read_record
from flows.training.figures import TrainingFigures, WarmStart
from flows.training.provenance import TRAINED_ON, check_no_leak

logger = logging.getLogger(__name__)


def find_warm_start(
    config: PipelineConfig, inputs: tuple[Record[Figures], ...], bound_to: Mapping[str, Any]
) -> WarmStart | None:
    """Find the champion's weights; None where there is no champion yet.

    A champion that was trained on these very inputs is not its own start: its own start is returned, so that the
    stage's key is that of its training, a cache hit. Raises ConfigError where the champion's training is not in this
    storage, its weights are bound to something else than ``bound_to`` (``TrainingFigures``), or a sample that is held
    out now shaped them.
    """
    root, name = config.storage_uri, config.registry.name
    champion = find_champion(tracking.connect(root), name)
    if champion is None:
        return None
    key = champion.tags.get(tracking.STAGE_KEY_TAG, "")
    record = read_record(storage.join(root, "train", key), TrainingFigures) if key else None
    if record is None or TRAINED_ON not in record.outputs:
        raise ConfigError(
            f"train.warm_start: the training of {name} version {champion.version} is not in {root}; run with the "
            "storage it was trained in, or leave warm_start out"
        )
    check_bound(f"{name} version {champion.version}", record.figures.bound_to, bound_to)
    if all(champion.tags.get(f"{TAG_PREFIX}{each.stage}_digest") == each.digest for each in inputs):
        start = record.figures.warm_start
    else:
        sha256 = record.outputs["weights"].sha256
        start = WarmStart(uri=record.output("weights"), sha256=sha256, trained_on=record.output(TRAINED_ON))
    if start is not None:
        check_no_leak(
            inputs[0].output("index"), start.trained_on, f"the champion, version {champion.version} of {name},"
        )
    return start


def check_bound(champion: str, theirs: Mapping[str, Any] | None, ours: Mapping[str, Any]) -> None:
    """Raise ConfigError where a training would start from weights that mean something else here."""
    if not ours:
        return
    if theirs is None:
        logger.warning(
            "train.warm_start: the training of %s does not say which %s it was made for; they are taken to be the same",
            champion,
            ", ".join(ours),
        )
        return
    changed = [field for field, value in ours.items() if theirs.get(field) != value]
    if changed:
        raise ConfigError(
            f"train.warm_start: {' and '.join(changed)} {'are' if len(changed) > 1 else 'is'} not what {champion} was "
            "trained with, so its weights mean nothing here; keep them as they were (for networks trained by its "
            "pipeline: name their folders in encode), or leave warm_start out"
        )
