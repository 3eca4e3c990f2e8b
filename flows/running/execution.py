"""Both pipelines, told once each: raw -> shards -> checkpoint -> scores -> registered model.

What ``do`` does with a stage is the caller's choice: run it here, run it as a Prefect task, or only look whether it
is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from flows.config.pipeline import Config
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.running.execution import run_in_place
from flows.stages.stage import Done, Stage, find_record
from flows.stages.record import Record

STAGES = {
    "segmentation": ("shard", "train", "evaluate", "register"),
    "diffusion": ("shard", "train_clip", "train_autoencoder", "encode", "train", "evaluate", "register"),
}

Do = Callable[[Stage], Record]


def segmentation(config: SegmentationConfig, do: Do) -> Record:
    """Volumes to a model that segments them. Each stage is planned from the records of those before it."""
    from flows.pipelines.segmentation.evaluate import evaluate_stage
    from flows.pipelines.segmentation.register import register_stage
    from flows.pipelines.segmentation.shard import shard_stage
    from flows.pipelines.segmentation.train import train_stage

    shards = do(shard_stage(config.data, config.storage_uri, config.compute.num_cpus))
    checkpoint = do(train_stage(config, shards))
    report = do(evaluate_stage(config, shards, checkpoint))
    return do(register_stage(config, shards, checkpoint, report))


def diffusion(config: DiffusionConfig, do: Do) -> Record:
    """Captioned images to a model that draws them."""
    from flows.pipelines.diffusion.encode import encode_stage
    from flows.pipelines.diffusion.encoders.stages import autoencoder_stage, check_given, clip_stage
    from flows.pipelines.diffusion.evaluate import evaluate_stage
    from flows.pipelines.diffusion.model import Trained
    from flows.pipelines.diffusion.register import register_stage
    from flows.pipelines.diffusion.shard import shard_stage
    from flows.pipelines.diffusion.train import train_stage

    check_given(config)
    shards = do(shard_stage(config.data, config.storage_uri, config.compute.num_cpus))
    clip = do(clip_stage(config, shards))
    autoencoder = do(autoencoder_stage(config, shards))
    latents = do(encode_stage(config, shards, clip, autoencoder))
    checkpoint = do(train_stage(config, latents))
    trained = Trained(shards, clip, autoencoder, latents, checkpoint)
    report = do(evaluate_stage(config, trained))
    return do(register_stage(config, trained, report))


def tell(config: Config, do: Do) -> Record:
    """The pipeline that the config is of."""
    return segmentation(config, do) if isinstance(config, SegmentationConfig) else diffusion(config, do)


@dataclass(slots=True)
class Pipeline:
    """Runs the stages and remembers what became of each."""

    config: Config
    run: Callable[[Stage, Config], Done] = run_in_place
    until: str = "register"
    """Name of the last stage to run."""
    done: list[Done] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def __call__(self) -> dict[str, Any]:
        """Run, and return the final record (``summary``)."""
        with suppress(_EnoughError):
            tell(self.config, self._do)
        return self.summary()

    def summary(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        records = {done.record.stage: done.record for done in self.done}
        registered = records["register"].figures if "register" in records else {}
        evaluation = records.get("evaluate")
        return {
            "pipeline": self.config.pipeline,
            "model_uri": registered.get("model_uri"),
            "model_name": registered.get("model_name"),
            "model_version": registered.get("model_version"),
            "alias": registered.get("alias"),
            "reason": registered.get("reason"),
            "tracking_uri": registered.get("tracking_uri"),
            "metrics": evaluation.figures["metrics"] if evaluation else {},
            "report": evaluation.output("report") if evaluation else None,
            "pages": registered.get("pages", {}),
            "num_quarantined": records["shard"].figures["num_quarantined"],
            "seconds": round(time.perf_counter() - self.started, 2),
            "stages": [
                {
                    "name": done.record.stage,
                    "key": done.record.key,
                    "uri": done.record.uri,
                    "cached": done.cached,
                    "seconds": done.record.seconds,
                }
                for done in self.done
            ],
        }

    def _do(self, stage: Stage) -> Record:
        self.done.append(self.run(stage, self.config))
        if stage.name == self.until:
            raise _EnoughError
        return self.done[-1].record


def plan(config: Config, *, look_outside: bool = False) -> list[dict[str, Any]]:
    """Each stage with its key and whether it is done; a stage that waits for another has no key yet."""
    planned: list[dict[str, Any]] = []

    def look(stage: Stage) -> Record:
        record = find_record(stage, config.storage_uri, look_outside=look_outside)
        planned.append({"name": stage.name, "key": stage.key, "done": record is not None})
        if record is None:
            raise _EnoughError
        return record

    with suppress(_EnoughError):
        tell(config, look)
    waiting = STAGES[config.pipeline][len(planned) :]
    return [*planned, *({"name": name, "key": None, "done": False} for name in waiting)]


class _EnoughError(Exception):
    """Ends the story early."""
