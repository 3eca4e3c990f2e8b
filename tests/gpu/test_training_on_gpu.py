"""Training and prediction on a GPU: losses and labels of the CPU, resumed as never stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.training import SPEC, Recorder, batches, fresh, trained
from unet_models.networks.build import build_network
from unet_models.precision import computes_bf16
from unet_models.sampling.sliding_window import predict_logits
from unet_models.specs.loop import OptimizerSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import AugmentSpec, PredictSpec
from unet_models.training.checkpoint import load_checkpoint
from unet_models.training.fit import fit
from unet_models.training.objectives import Segmentation

MUON = OptimizerSpec(name="muon", learning_rate=0.003, warmup_steps=2)
QUIET = SPEC.model_copy(update={"augment": AugmentSpec(p_noise=0)})
SPECS = {
    "sgd": QUIET,
    "adamw with average": QUIET.model_copy(update={"optimizer": OptimizerSpec(warmup_steps=2), "ema_decay": 0.9}),
    "muon, 3-D": QUIET.model_copy(
        update={"patch_size": (8, 8, 8), "model": UNetSpec(channels=(4, 8)), "optimizer": MUON}
    ),
    "micro-batches": QUIET.model_copy(update={"micro_batch_size": 1}),
}


@pytest.mark.parametrize("name", SPECS)
def test_losses_are_those_of_the_cpu(gpu: torch.device, name: str) -> None:
    """Weights and augmentation are drawn on the CPU, whatever the device, but for noise: a GPU draws its own."""
    expected, _ = trained(SPECS[name])
    np.testing.assert_allclose(trained(SPECS[name], device=gpu)[0], expected, rtol=2e-3)


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"compile": True}], ids=["bf16", "compiled"])
def test_losses_fall(gpu: torch.device, changes: dict[str, object]) -> None:
    spec = SPEC.model_copy(update={"num_steps": 40, "optimizer": OptimizerSpec(learning_rate=0.01), **changes})
    found, _ = trained(spec, device=gpu)
    assert np.mean(found[-5:]) < 0.8 * np.mean(found[:5])


def test_bf16_is_what_auto_means(gpu: torch.device) -> None:
    assert computes_bf16(gpu) is (torch.cuda.get_device_capability(gpu) >= (8, 0))


def test_stopped_it_goes_on_as_if_it_had_not(gpu: torch.device, tmp_path: Path) -> None:
    """Up to rounding: sums of a GPU's kernels have no fixed order."""
    spec = SPECS["adamw with average"].model_copy(update={"checkpoint_every_steps": 1})
    whole, hooks = fresh(spec, device=gpu), Recorder(tmp_path)
    fit(whole, Segmentation(spec), batches(spec), spec, hooks)
    resumed = fresh(spec, seed=99, device=gpu)
    load_checkpoint(tmp_path / "3", resumed)
    fit(resumed, Segmentation(spec), batches(spec, 3), spec, Recorder())
    for got, want in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5)


def test_labels_are_those_of_the_cpu(gpu: torch.device) -> None:
    torch.manual_seed(0)
    network = build_network(UNetSpec(channels=(8, 16, 16), deep_supervision=0), 1, 4, 3).eval()
    image = torch.randn(1, 40, 36, 28)
    spec = PredictSpec(tta=True)
    here = predict_logits(network, image, (16, 16, 16), spec, (0, 1, 2))
    there = predict_logits(network.to(gpu), image.to(gpu), (16, 16, 16), spec, (0, 1, 2)).cpu()
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4)
    assert (there.argmax(0) == here.argmax(0)).float().mean() > 0.9999
