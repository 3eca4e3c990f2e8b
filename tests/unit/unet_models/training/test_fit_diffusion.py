"""The denoiser resumed is as never stopped, caption dropout and average included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipelines.batches import LatentBatch
from tests.support.training import CPU, Recorder, assert_identical
from unet_models.networks.denoisers.unet import DenoisingUNet
from unet_models.specs.denoisers import DenoisingUNetSpec
from unet_models.specs.diffusion import DiffusionSpec
from unet_models.specs.loop import OptimizerSpec
from unet_models.training.checkpoint import load_checkpoint
from unet_models.training.fit import fit
from unet_models.training.objectives import NoisePrediction
from unet_models.training.state import TrainState, build_state

SPEC = DiffusionSpec(
    global_batch_size=4,
    num_steps=5,
    precision="fp32",
    ema_decay=0.9,
    caption_dropout=0.5,
    min_snr_gamma=5.0,
    checkpoint_every_steps=1,
    validate_every_steps=100,
    log_every_steps=1,
    optimizer=OptimizerSpec(warmup_steps=2, schedule="cosine"),
    model=DenoisingUNetSpec(
        channels=(8, 16),
        attention_levels=(False, True),
        num_res_blocks=1,
        num_heads=2,
        context_dim=6,
        num_groups=4,
        dropout=0.2,
    ),
)


def _batches(start: int = 0) -> Iterator[LatentBatch]:
    for step in range(start, SPEC.num_steps):
        generator = torch.Generator().manual_seed(step)
        moments = torch.randn(4, 8, 4, 4, generator=generator)
        states = torch.randn(4, 3, 6, generator=generator)
        yield LatentBatch(moments, states, torch.arange(4), (0, 1, 2, 3), ("a", "b", "c", "d"), step)


def _objective(spec: DiffusionSpec) -> NoisePrediction:
    return NoisePrediction(spec, 0.5, torch.ones(3, 6))


def _fresh(spec: DiffusionSpec, seed: int) -> TrainState:
    torch.manual_seed(seed)
    return build_state(DenoisingUNet(spec.model), spec, CPU)


def _train(state: TrainState, folder: Path, spec: DiffusionSpec = SPEC) -> TrainState:
    fit(state, _objective(spec), _batches(state.step), spec, Recorder(folder))
    return state


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}], ids=["fp32", "bf16"])
def test_stopped_after_any_step_training_ends_at_the_same_bits(tmp_path: Path, changes: dict[str, Any]) -> None:
    spec = SPEC.model_copy(update=changes)
    whole = _train(_fresh(spec, seed=0), tmp_path / "whole", spec)
    for stopped_after in range(1, 5):
        resumed = _fresh(spec, seed=99)
        load_checkpoint(tmp_path / "whole" / str(stopped_after), resumed)
        assert_identical(_train(resumed, tmp_path / "resumed", spec), whole)


def test_caption_dropout_and_average_took_part(tmp_path: Path) -> None:
    """Else the test above would prove nothing of them."""
    whole = _train(_fresh(SPEC, seed=0), tmp_path)
    without = SPEC.model_copy(update={"caption_dropout": 0.0})
    other = _train(_fresh(without, seed=0), tmp_path / "other", without)
    name = "conv_out.weight"
    assert whole.ema is not None
    assert not torch.equal(whole.model.state_dict()[name], other.model.state_dict()[name])
    assert not torch.equal(whole.model.state_dict()[name], whole.ema.tensors[name])
