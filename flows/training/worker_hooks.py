"""Reports of a worker's loop to Ray Train: metrics, validations, checkpoints and their upload."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import ray.train
import ray.train.torch
import torch

from data_pipelines.temporary import make_folder
from flows.metrics import check_metric_names, worst_score
from flows.training.clock import LoopClock
from flows.training.curves import CurveRow
from flows.training.history import checkpoint_name
from flows.training.progress import TIMES
from flows.training.space import is_full
from flows.training.task import Validate
from flows.training.worker_stop import stop_reason
from unet_models.specs.loop import LoopSpec
from unet_models.training.checkpoint import save_checkpoint
from unet_models.training.state import TrainState, evaluation_weights


@dataclass(slots=True)
class RayHooks:
    """Reports to Ray Train; metrics and checkpoint travel together, and every rank reports equally often."""

    spec: LoopSpec
    measure: Validate
    rank: int
    score: str = ""
    """Validation metric that Ray keeps the best checkpoints by; empty: it keeps the newest."""
    curves: list[CurveRow] = field(default_factory=list)
    clock: LoopClock = field(default_factory=LoopClock)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Report the newest means."""
        if torch.cuda.is_initialized():
            metrics = metrics | {"gpu_memory": torch.cuda.max_memory_allocated() / 2**30}
        with self.clock.measure("report"):
            self._report(step, metrics)

    def validate(self, state: TrainState) -> dict[str, float]:
        """Measure the weights that would be evaluated."""
        with self.clock.measure("validation"):
            with evaluation_weights(state) as model:
                metrics = self.measure(model)
            if metrics:
                self._report(state.step, metrics)
        return metrics

    def checkpoint(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Upload the state in the background while training continues."""
        checkpoint = None
        with self.clock.measure("checkpoint"):
            if self.rank == 0:
                checkpoint = ray.train.Checkpoint(str(self._save(state, metrics)))
            row = self._row(state.step, metrics)
            if self.score:  # Ray takes a missing score for minus infinity, which of losses is the best
                row = {self.score: worst_score(self.score), **row}
            ray.train.report(
                row,
                checkpoint=checkpoint,
                checkpoint_dir_name=checkpoint_name(state.step),
                checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
                checkpoint_upload_fn=_upload,
            )

    def stop_reason(self) -> int:
        """Return why this worker is to stop."""
        return stop_reason()

    def _save(self, state: TrainState, metrics: dict[str, float]) -> Path:
        """Write a checkpoint to a temporary folder, which Ray removes after the upload; one that fails is removed."""
        folder = make_folder("checkpoint")
        try:
            save_checkpoint(folder, state, spec=self.spec.model_dump(mode="json"), curves=self.curves, metrics=metrics)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def _report(self, step: int, metrics: dict[str, float]) -> None:
        check_metric_names(metrics)
        self.curves.append({"step": step, **metrics})
        ray.train.report(self._row(step, metrics))

    def _row(self, step: int, metrics: dict[str, float]) -> dict[str, object]:
        return {"step": step, **metrics, TIMES: self.clock.read().model_dump()}


def _upload(checkpoint: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
    """Copy a checkpoint to the storage. Where a disk is full, both the copy and what was copied are removed."""
    target = ray.train.get_context().get_storage()
    try:
        return target.persist_current_checkpoint(checkpoint, name)
    except OSError as error:
        if is_full(error):  # after other errors Ray may try again
            shutil.rmtree(checkpoint.path, ignore_errors=True)
            with suppress(OSError):
                target.storage_filesystem.delete_dir(target.build_checkpoint_path_from_name(name))
        raise
