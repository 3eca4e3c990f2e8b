"""Stage ``evaluate_champion``: the champion on the held-out samples of a new version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flows.config.pipeline import PipelineConfig
from flows.registry.champion import Champion
from flows.stages.attempt import Attempt
from flows.stages.context import context_of
from flows.stages.record import F, Figures, Record
from flows.stages.stage import Stage, run_stage
from flows.training.provenance import check_unseen

STAGE = "evaluate_champion"


def evaluate_champion(
    config: PipelineConfig,
    champion: Champion,
    identity: dict[str, Any],
    inputs: tuple[Record[Figures], ...],
    compute: Callable[[Attempt], F],
    figures: type[F],
) -> Record[F]:
    """Measure the champion; a cache hit where it was measured on the same data before.

    ``identity`` holds what the figures depend on beside the model. The first of ``inputs`` leaves the index of the
    samples. Raises InputError where the champion was trained on a held-out one.
    """
    check_unseen(inputs[0].output("index"), champion, config.storage_uri)
    stage = Stage(STAGE, {"model": champion.model_id, **identity}, inputs, compute, figures, uses_gpu=True)
    return run_stage(stage, config.storage_uri, context_of(config)).record
