"""The training loop: ranks, micro-batches and interruptions change nothing but float rounding, or nothing at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_pipelines.batches import VolumeBatch
from data_pipelines.errors import TrainingDiverged
from tests.support.training import SPEC, Recorder, assert_identical, batches, fresh, trained
from unet_models.specs.loop import OptimizerSpec
from unet_models.specs.networks import UNetSpec
from unet_models.training.checkpoint import load_checkpoint
from unet_models.training.fit import fit
from unet_models.training.objectives import Segmentation
from unet_models.training.state import TrainState

# --- Micro-batches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3])
def test_accumulated_gradients_are_those_of_the_whole_batch(size: int) -> None:
    whole = SPEC.model_copy(update={"global_batch_size": 3})
    losses, state = trained(whole)
    accumulated_losses, accumulated = trained(whole.model_copy(update={"micro_batch_size": size}))
    np.testing.assert_allclose(accumulated_losses, losses, rtol=1e-5)
    for got, want in zip(accumulated.model.parameters(), state.model.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


# --- Stop and resume -------------------------------------------------------------------------------------------------

RESUMED = {
    "sgd": SPEC,
    "adamw with average": SPEC.model_copy(update={"optimizer": OptimizerSpec(warmup_steps=2), "ema_decay": 0.9}),
    "batch norm with average": SPEC.model_copy(
        update={"model": UNetSpec(channels=(4, 8), norm="batch", block="residual"), "ema_decay": 0.9}
    ),
    "bf16": SPEC.model_copy(update={"precision": "bf16", "optimizer": OptimizerSpec()}),
    "dropout": SPEC.model_copy(update={"model": UNetSpec(channels=(4, 8), dropout=0.5)}),
    "3-D": SPEC.model_copy(
        update={"patch_size": (4, 6, 4), "model": UNetSpec(channels=(4, 8)), "optimizer": OptimizerSpec()}
    ),
    "contiguous": SPEC.model_copy(update={"channels_last": False, "optimizer": OptimizerSpec(schedule="cosine")}),
}


@pytest.mark.parametrize("name", RESUMED)
def test_stopped_after_any_step_training_ends_at_the_same_bits(tmp_path: Path, name: str) -> None:
    spec = RESUMED[name].model_copy(update={"checkpoint_every_steps": 1})
    whole = fresh(spec)
    fit(whole, Segmentation(spec), batches(spec), spec, Recorder(tmp_path))
    for stopped_after in range(1, 5):
        resumed = fresh(spec, seed=99)  # other random weights: all must come from the checkpoint
        load_checkpoint(tmp_path / str(stopped_after), resumed)
        assert resumed.step == stopped_after
        fit(resumed, Segmentation(spec), batches(spec, stopped_after), spec, Recorder())
        assert_identical(resumed, whole)


def test_a_stop_saves_the_step_it_was_asked_in_and_changes_no_bit(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"num_steps": 4, "validate_every_steps": 2})
    _, undisturbed = trained(spec)
    stopped, hooks = fresh(spec), Recorder(tmp_path, stop_at=2, stop_as=3)
    assert fit(stopped, Segmentation(spec), batches(spec), spec, hooks) == 3
    assert stopped.step == 3
    assert hooks.calls[-2:] == [("log", 3), ("checkpoint", 3)], "no validation but where one is due"
    resumed = fresh(spec, seed=99)
    load_checkpoint(tmp_path / "3", resumed)
    assert fit(resumed, Segmentation(spec), batches(spec, 3), spec, Recorder()) == 0
    assert_identical(resumed, undisturbed)


def test_a_stop_asked_in_the_last_step_is_the_end(tmp_path: Path) -> None:
    state = fresh(SPEC)
    assert fit(state, Segmentation(SPEC), batches(SPEC), SPEC, Recorder(stop_at=SPEC.num_steps - 1)) == 0


def test_looking_at_the_state_does_not_change_training(tmp_path: Path) -> None:
    spec = RESUMED["adamw with average"]
    often = spec.model_copy(update={"validate_every_steps": 1, "checkpoint_every_steps": 2, "log_every_steps": 3})
    _, undisturbed = trained(spec)
    state = fresh(often)
    fit(state, Segmentation(often), batches(often), often, Recorder(tmp_path))
    assert_identical(state, undisturbed)


def test_average_follows_the_weights_of_every_step() -> None:
    spec = SPEC.model_copy(update={"ema_decay": 0.99, "validate_every_steps": 1})

    class Watch(Recorder):
        def validate(self, state: TrainState) -> dict[str, float]:
            decay = (1 + state.step) / (10 + state.step)  # still warming up
            for name, tensor in state.model.state_dict().items():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
            return {}

    state = fresh(spec)
    expected = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    fit(state, Segmentation(spec), batches(spec), spec, Watch())
    assert state.ema is not None
    for name, tensor in state.ema.tensors.items():
        torch.testing.assert_close(tensor, expected[name])


# --- The loop itself -------------------------------------------------------------------------------------------------


@dataclass
class Scripted:
    """An objective that returns given losses, whatever the model says."""

    losses: list[float]

    def __call__(self, model: nn.Module, batch: VolumeBatch) -> Tensor:
        value = self.losses[batch.step]
        return torch.full((len(batch),), value) + 0 * sum(p.sum() for p in model.parameters())


def test_hooks_are_called_at_their_steps_and_at_the_last() -> None:
    spec = SPEC.model_copy(update={"log_every_steps": 2, "validate_every_steps": 3, "checkpoint_every_steps": 4})
    hooks = Recorder()
    fit(fresh(spec), Scripted([1.0, 3.0, 5.0, 9.0, 4.0]), batches(spec), spec, hooks)
    assert hooks.calls == [
        ("log", 2),
        ("validate", 3),
        ("log", 4),  # due twice, said once
        ("checkpoint", 4),
        ("log", 5),
        ("validate", 5),
        ("checkpoint", 5),
    ]
    logged = [hooks.metrics[i] for i in (0, 1, 3)]
    assert [m["train/loss"] for m in logged] == pytest.approx([2.0, 7.0, 4.0])  # means since the last line
    assert "val/dice" not in hooks.metrics[2]  # of step 3, not of the weights that are kept
    assert hooks.metrics[-1]["val/dice"] == 0.5
    poly = [0.05 * (1 - step / 5) ** 0.9 for step in (1, 3, 4)]
    assert [m["learning_rate"] for m in logged] == pytest.approx(poly)


def test_surplus_batches_are_left_alone() -> None:
    longer = batches(SPEC.model_copy(update={"num_steps": 9}))
    state = fresh(SPEC)
    fit(state, Segmentation(SPEC), longer, SPEC, Recorder())
    assert state.step == 5
    assert next(longer).step == 5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_with_step_and_samples(bad: float) -> None:
    with pytest.raises(TrainingDiverged) as caught:
        fit(fresh(SPEC), Scripted([1.0, 1.0, bad]), batches(SPEC), SPEC, Recorder())
    message = str(caught.value)
    assert "step 3" in message
    assert "case-2-0, case-2-1" in message
    assert message.endswith(": lower optimizer.learning_rate"), "fp32 already"


def test_no_checkpoint_is_kept_of_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"log_every_steps": 3, "checkpoint_every_steps": 1})
    with pytest.raises(TrainingDiverged):
        fit(fresh(spec), Scripted([1.0, float("nan")]), batches(spec), spec, Recorder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


@dataclass
class BreaksWeights:
    """An objective of finite loss whose gradient is NaN at one step."""

    at_step: int

    def __call__(self, model: nn.Module, batch: VolumeBatch) -> Tensor:
        total = 0 * sum(p.sum() for p in model.parameters())
        return (torch.sqrt(total) if batch.step == self.at_step else total).expand(len(batch))


def test_a_last_update_that_breaks_the_weights_leaves_no_checkpoint(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"checkpoint_every_steps": 2, "optimizer": OptimizerSpec(clip_norm=None)})
    with pytest.raises(TrainingDiverged, match=r"weight .* is not finite after step 5: lower optimizer"):
        fit(fresh(spec), BreaksWeights(at_step=4), batches(spec), spec, Recorder(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4"]


def test_a_validation_figure_that_is_not_finite_stops() -> None:
    class Broken(Recorder):
        def validate(self, state: TrainState) -> dict[str, float]:
            return {"val/loss": float("nan")}

    spec = SPEC.model_copy(update={"validate_every_steps": 2})
    with pytest.raises(TrainingDiverged, match="val/loss is nan at step 2"):
        fit(fresh(spec), Scripted([1.0] * 5), batches(spec), spec, Broken())
