"""Training loop, for any number of ranks, with or without Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data_pipelines.batches import Batch
from data_pipelines.errors import TrainingDiverged
from data_pipelines.random_streams import Stream, seed_torch
from unet_models.distributed import MaximumOverRanks, rank, sum_over_ranks, world_size
from unet_models.precision import autocast
from unet_models.specs.loop import LoopSpec
from unet_models.training.objectives import Objective
from unet_models.training.optimisation import learning_rate
from unet_models.training.state import TrainState

AnyBatch = TypeVar("AnyBatch", bound=Batch)


class Hooks(Protocol):
    """Callbacks of the loop; each is called on every rank, at the same steps."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Report the means over the steps since the last call."""
        ...

    def validate(self, state: TrainState) -> dict[str, float]:
        """Measure the weights that would be evaluated; empty where there is no validation data."""
        ...

    def checkpoint(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Save ``state`` and its metrics, those of validation included where this step was validated."""
        ...

    def stop_reason(self) -> int:
        """Return why this rank was asked to stop, as a number; 0: it was not. The highest one of all ranks counts."""
        ...


def fit(
    state: TrainState, objective: Objective[AnyBatch], batches: Iterable[AnyBatch], spec: LoopSpec, hooks: Hooks
) -> int:
    """Train from ``state.step`` to ``spec.num_steps``. ``batches`` starts at that step and gives this rank's share.

    Returns 0; or why a rank was asked to stop, and then ``state`` is saved at the end of the step during which it was
    asked, or of the next one: all ranks stop at the same step.

    Raises TrainingDiverged where the mean loss, a validation figure or a weight that would be saved is not finite.
    """
    device = next(state.model.parameters()).device
    model = wrap_model(state.model, spec)
    meter = _Meter(spec.global_batch_size, device)
    metrics: dict[str, float] = {}
    stop = MaximumOverRanks(device)
    for batch in batches:
        stop.start(hooks.stop_reason())
        meter.add(train_step(model, state, objective, batch.to(device), spec))
        is_last = state.step == spec.num_steps
        reason = 0 if is_last else stop.finish()
        is_saved = state.step % spec.checkpoint_every_steps == 0 or is_last or reason != 0
        if (
            state.step % spec.log_every_steps == 0 or is_saved
        ):  # so that no checkpoint follows a loss that is not finite
            hooks.log(state.step, metrics := meter.means(state, spec, batch))
        measured: dict[str, float] = {}
        if state.step % spec.validate_every_steps == 0 or is_last:
            measured = hooks.validate(state)
            check_figures(measured, state.step, spec)
            meter.restart_clock()
        if is_saved:
            check_weights(state, spec)
            hooks.checkpoint(state, metrics | measured)
            meter.restart_clock()
        if is_last or reason:
            return reason
    return 0


def train_step(
    model: nn.Module, state: TrainState, objective: Objective[AnyBatch], batch: AnyBatch, spec: LoopSpec
) -> Tensor:
    """Run one optimizer step; returns this rank's share of the mean loss, a detached scalar.

    Losses are summed over samples and divided by the global batch size, so ranks may hold shares of different size
    and gradients still are those of the global mean. DDP averages over ranks, hence the factor.
    """
    seed_torch(spec.seed, Stream.DROPOUT, state.step, rank())
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(spec.optimizer, state.step, spec.num_steps)
    scale = world_size() / spec.global_batch_size
    total = torch.zeros((), device=batch.device)
    micro_batches = batch.split(spec.micro_batch_size)
    for i, micro in enumerate(micro_batches):
        is_last = i == len(micro_batches) - 1
        with _gradient_sync(model, enabled=is_last), autocast(spec.precision, batch.device):
            loss = objective(model, micro).sum() * scale
        loss.backward()
        total += loss.detach()
    if spec.optimizer.clip_norm:
        nn.utils.clip_grad_norm_(state.model.parameters(), spec.optimizer.clip_norm)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    if state.ema is not None:
        state.ema.update(state.model, state.step)
    return total


def wrap_model(model: nn.Module, spec: LoopSpec) -> nn.Module:
    """Return the model as it is trained: in training mode, compiled where the spec says so, its gradients averaged."""
    model.train()
    if spec.compile:
        model.compile()
    if world_size() == 1:
        return model
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def _gradient_sync(model: nn.Module, *, enabled: bool) -> AbstractContextManager[None]:
    """Synchronise gradients between ranks only where ``enabled``: once per step, with the last micro-batch."""
    if isinstance(model, DistributedDataParallel) and not enabled:
        return model.no_sync()
    return nullcontext()


def remedy(spec: LoopSpec) -> str:
    """Return what to do about a training that diverges: fields of its settings."""
    return "lower optimizer.learning_rate" + (" or set precision=fp32" if spec.precision != "fp32" else "")


def check_figures(figures: Mapping[str, float], step: int, spec: LoopSpec) -> None:
    """Raise TrainingDiverged where a validation figure is not finite."""
    for name, value in figures.items():
        if not math.isfinite(value):
            raise TrainingDiverged(f"{name} is {value} at step {step}: {remedy(spec)}")


def check_weights(state: TrainState, spec: LoopSpec) -> None:
    """Raise TrainingDiverged where a weight, or its moving average, is not finite: no checkpoint may hold it."""
    averages = {} if state.ema is None else state.ema.tensors
    for name, tensor in chain(state.model.state_dict().items(), averages.items()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TrainingDiverged(f"weight {name} is not finite after step {state.step}: {remedy(spec)}")


class _Meter:
    """Means since the last log line, over all ranks; values are copied from the device only when logged."""

    def __init__(self, global_batch_size: int, device: torch.device) -> None:
        self.global_batch_size = global_batch_size
        self.loss = torch.zeros((), device=device)
        self.num_steps = 0
        self.num_timed = 0
        self.restart_clock()

    def add(self, loss: Tensor) -> None:
        self.loss += loss
        self.num_steps += 1
        self.num_timed += 1

    def restart_clock(self) -> None:
        """Exclude the time until now (of validation or a checkpoint) from the throughput."""
        self.num_timed = 0
        self.started = time.perf_counter()

    def means(self, state: TrainState, spec: LoopSpec, batch: Batch) -> dict[str, float]:
        """Compute the means and start over. Raises TrainingDiverged for a loss that is not finite."""
        loss = sum_over_ranks(self.loss / self.num_steps, self.loss.device).item() / world_size()
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"train/loss is {loss} within the {self.num_steps} steps before step {state.step} (last samples: "
                f"{', '.join(batch.keys)}): {remedy(spec)}"
            )
        seconds = time.perf_counter() - self.started
        metrics = {
            "train/loss": loss,
            "learning_rate": learning_rate(spec.optimizer, state.step - 1, spec.num_steps),
        }
        if self.num_timed:
            metrics["samples_per_second"] = self.num_timed * self.global_batch_size / seconds
        self.loss.zero_()
        self.num_steps = 0
        self.restart_clock()
        return metrics
