"""Muon: its matrices against a singular value decomposition, the rest against torch's AdamW; checkpoints."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from unet_models.networks.build import build_network
from unet_models.precision import Precision
from unet_models.specs.loop import OptimizerSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import TrainSpec
from unet_models.training import state as state_module
from unet_models.training.checkpoint import MODEL, TRAINING, estimate_bytes, load_checkpoint, save_checkpoint
from unet_models.training.muon import Muon, is_matrix, orthogonalise
from unet_models.training.optimisation import build_optimizer
from unet_models.training.state import TrainState, build_state

SPEC = TrainSpec(
    patch_size=(8, 8),
    model=UNetSpec(channels=(8, 16)),
    optimizer=OptimizerSpec(name="muon", learning_rate=0.01),
    ema_decay=0.5,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_singular_values_come_near_1_and_their_vectors_stay(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix = noise(*shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = left.T @ orthogonalise(matrix, dtype) @ right.T
    values = found.diagonal()
    assert 0.6 < values.min() <= values.max() < 1.3
    assert (found - torch.diag(values)).abs().max() < 0.05


def test_a_step_by_hand() -> None:
    """The first step is that of the gradient's directions alone, whatever its size; the decay is apart from it."""
    weight, gradient = noise(8, 10, 3, 3), noise(8, 10, 3, 3, seed=1)
    for scale in (1.0, 1000.0):
        parameter = nn.Parameter(weight.clone())
        optimizer = build_optimizer([parameter], OptimizerSpec(name="muon", learning_rate=0.1, weight_decay=0.5))
        parameter.grad = gradient * scale
        optimizer.step()
        wanted = weight * 0.95 - 0.1 * 0.2 * 90**0.5 * orthogonalise(gradient.flatten(1)).view(weight.shape)
        torch.testing.assert_close(parameter.detach(), wanted, rtol=0, atol=2e-3)
        size = (parameter.detach() - weight * 0.95).square().mean().sqrt() / 0.1
        assert 0.1 < size < 0.3, "as large as steps of AdamW"


def test_momentum_is_nesterovs() -> None:
    weight, gradients = noise(8, 9), [noise(8, 9, seed=seed) for seed in (1, 2)]
    parameter = nn.Parameter(weight.clone())
    optimizer = Muon([parameter], 0.1, momentum=0.8)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    average = [0.2 * gradients[0], 0.8 * 0.2 * gradients[0] + 0.2 * gradients[1]]
    ahead = [0.2 * gradient + 0.8 * mean for gradient, mean in zip(gradients, average, strict=True)]
    wanted = weight - sum(0.1 * 0.2 * 3 * orthogonalise(each) for each in ahead)
    torch.testing.assert_close(parameter.detach(), wanted, rtol=0, atol=2e-3)


def test_other_parameters_are_updated_as_by_adamw() -> None:
    shapes = [(7, 20), (20, 7, 3), (12,), (16, 1, 3, 3)]
    ours, theirs = ([nn.Parameter(noise(*shape)) for shape in shapes] for _ in range(2))
    settings = {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.3}
    optimizers = Muon(ours, **settings), torch.optim.AdamW(theirs, **settings)
    for seed in range(3):
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter in parameters:
                parameter.grad = noise(*parameter.shape, seed=seed + 1)
            optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_weights_between_many_channels_are_matrices() -> None:
    model = build_network(SPEC.model, 1, 3, 2)
    found = {name for name, parameter in model.named_parameters() if is_matrix(parameter)}
    assert found
    assert all(name.endswith("weight") and dict(model.named_parameters())[name].ndim == 4 for name in found)
    others = {name: parameter for name, parameter in model.named_parameters() if name not in found}
    assert {tuple(each.shape[:2]) for each in others.values() if each.ndim > 1} == {(8, 1), (3, 8)}, "first and last"


def train(state: TrainState, seeds: range) -> None:
    for seed in seeds:
        state.model(noise(2, 1, 8, 8, seed=seed)).square().mean().backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.step += 1
        assert state.ema is not None
        state.ema.update(state.model, state.step)


@pytest.mark.parametrize(
    ("precision", "has_bf16", "dtype"),
    [("auto", True, torch.bfloat16), ("auto", False, torch.float32), ("fp32", True, torch.float32)],
)
def test_products_have_the_precision_of_the_training(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, has_bf16: bool, dtype: torch.dtype
) -> None:
    """Emulated, bf16 made a step of hippocampus_gpu.yaml's network take four times as long on an AVX2 CPU."""
    monkeypatch.setattr(state_module, "computes_bf16", lambda device: has_bf16)
    spec = SPEC.model_copy(update={"precision": precision})
    optimizer = build_state(build_network(spec.model, 1, 3, 2), spec, torch.device("cpu")).optimizer
    assert isinstance(optimizer, Muon)
    assert optimizer.dtype == dtype


def built() -> TrainState:
    torch.manual_seed(0)
    return build_state(build_network(SPEC.model, 1, 3, 2), SPEC, torch.device("cpu"))


def test_a_checkpoint_goes_on_bit_by_bit_and_has_the_size_that_was_estimated(tmp_path: Path) -> None:
    whole, first, resumed = built(), built(), built()
    train(whole, range(4))
    train(first, range(2))
    save_checkpoint(tmp_path, first, spec={}, curves=[], metrics={})
    load_checkpoint(tmp_path, resumed)
    train(resumed, range(2, 4))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    files = [load_file(tmp_path / name) for name in (MODEL, TRAINING)]
    written = sum(tensor.nbytes for file in files for key, tensor in file.items() if not key.endswith("/step"))
    assert estimate_bytes(built(), SPEC.optimizer) == written


@pytest.mark.parametrize("shape", [(8, 9, 3, 3), (8, 9, 3, 3, 3)])
def test_the_order_in_memory_changes_nothing(shape: tuple[int, ...]) -> None:
    """Weights that are channels last, and gradients that are not, or the other way round."""
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    weight, gradients = noise(*shape), [noise(*shape, seed=seed) for seed in (1, 2)]
    found = []
    for formats in itertools.product((torch.contiguous_format, layout), repeat=2):
        parameter = nn.Parameter(weight.clone(memory_format=formats[0]))
        optimizer = Muon([parameter], 0.1, weight_decay=0.1)
        for gradient in gradients:
            parameter.grad = gradient.clone(memory_format=formats[1])
            optimizer.step()
        assert parameter.is_contiguous(memory_format=formats[0])
        found.append(parameter.detach())
    for each in found[1:]:
        torch.testing.assert_close(each, found[0], rtol=0, atol=5e-3)
