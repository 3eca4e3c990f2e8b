"""A stage that trains: shards to a checkpoint, data-parallel on Ray Train, whatever the task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from data_pipelines import storage
from flows.config.pipeline import PipelineConfig
from flows.metrics import parse_metric_name
from flows.registry.run_logger import CURVES
from flows.stages.attempt import Attempt
from flows.stages.record import Figures, Record
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from flows.training.history import UnusableCheckpoint, describe_unusable
from flows.training.initial import NO_MEANING, Describe, Initialisation, Meaning, Origin
from flows.training.origins import find_origin, identity_of
from flows.training.provenance import write_trained_on
from flows.training.trainer import train
from unet_models.specs.loop import LoopSpec, ModelTrainSpec

if TYPE_CHECKING:
    from flows.training.task import TrainingTask
    from unet_models.training.checkpoint import CheckpointMarker

OBSERVING_FIELDS = {
    "validate_every_steps",
    "validate_cases",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "log_every_steps",
}
"""Fields that observe or save a training without changing its weights (unless the best checkpoint is selected)."""
TIMED_FIELDS = {"validate_every_steps", "validate_cases"}
"""Those that change how many steps fit into ``within``."""


def add_nothing(attempt: Attempt) -> None:
    """Add no outputs to those of the training."""


def describe_nothing(bundle: Mapping[str, Any]) -> Meaning:
    """Read no meaning."""
    return NO_MEANING


def training_stage(
    name: str,
    config: PipelineConfig,
    spec: LoopSpec,
    inputs: tuple[Record[Figures], ...],
    build_task: Callable[[Attempt], TrainingTask],
    finish: Callable[[Attempt], None] = add_nothing,
    meaning: Meaning = NO_MEANING,
    describe: Describe = describe_nothing,
    more_identity: Mapping[str, Any] = MappingProxyType({}),
) -> Stage[TrainingFigures]:
    """Plan the stage: its key holds its inputs' digests and everything that changes the weights.

    ``build_task`` describes what to train, and may write what the workers need into the attempt; ``finish`` may add
    outputs to those of the training (``weights``, ``checkpoint``, ``curves``, ``trained_on``). ``meaning``
    is what the weights stand for; ``describe`` reads that of a registered model, for ``train.init``. ``more_identity``
    changes the weights and is neither in ``spec`` nor of an input.
    """
    ignored = {"init"} | (OBSERVING_FIELDS if spec.select == "last" else set())
    if spec.within is not None:
        ignored = ignored - TIMED_FIELDS | {"num_steps"}
    identity = spec.model_dump(mode="json", exclude=ignored) | dict(more_identity)
    wanted = spec.init if isinstance(spec, ModelTrainSpec) else ""
    origin = find_origin(config, wanted, inputs, meaning, describe) if wanted else None
    if origin is not None:
        identity["init"] = identity_of(origin, meaning)

    def compute(attempt: Attempt) -> TrainingFigures:
        task = build_task(attempt)
        init = None
        if origin is not None:
            task, init = _initialise(origin, task, meaning, attempt)
        trained = train(name, task, config, attempt)
        if init is not None:
            storage.delete(task.initial_uri)
        marker, unusable = _select_checkpoint(attempt, task, trained.num_steps)
        write_trained_on(attempt, task.index_uri, origin.trained_on if origin else "")
        finish(attempt)
        return TrainingFigures(
            step=marker.step,
            run_id=trained.run_id,
            num_workers=config.compute.num_workers,
            precision=str(marker.spec["precision"]),
            init=init,
            meaning=meaning,
            resumes=trained.resumes,
            unusable_checkpoints=unusable,
            times=trained.times,
            earlier_attempts_seconds=trained.earlier_seconds,
        )

    return Stage(name, identity, inputs, compute, TrainingFigures, uses_gpu=True)


def _initialise(
    origin: Origin, task: TrainingTask, meaning: Meaning, attempt: Attempt
) -> tuple[TrainingTask, Initialisation]:
    from flows.training.initialise import FILE, initialise

    done = initialise(origin, task, meaning, attempt)
    return task.model_copy(update={"initial_uri": attempt.uri(FILE)}), done


def _select_checkpoint(
    attempt: Attempt, task: TrainingTask, num_steps: int
) -> tuple[CheckpointMarker, tuple[UnusableCheckpoint, ...]]:
    """Declare the selected checkpoint's files and the curves as outputs; also return what was skipped.

    Checkpoints of any attempt count.
    """
    from flows.training.checkpoints import CheckpointSearch
    from unet_models.training.checkpoint import MARKER, MODEL

    search = CheckpointSearch(attempt.stage_uri)
    checkpoints = iter(search)
    newest = next(checkpoints, None)
    if newest is None or newest[1].step != num_steps:  # an earlier one would be another model
        raise OSError(
            f"training ended, but {attempt.stage_uri} holds no usable checkpoint of step {num_steps}: "
            f"{describe_unusable(tuple(search.unusable))}; the same command resumes"
        )
    uri, marker = newest
    attempt.write(CURVES, "curves.json", json.dumps(marker.curves).encode())
    if task.spec.select == "best":
        metric = parse_metric_name(task.score).metric
        scored = [found for found in (newest, *checkpoints) if task.score in found[1].metrics]
        uri, marker = max(scored, key=lambda found: metric.score(found[1].metrics[task.score]), default=newest)
    attempt.add("weights", storage.join(uri, MODEL))
    attempt.add("checkpoint", storage.join(uri, MARKER))
    return marker, tuple(search.unusable)
