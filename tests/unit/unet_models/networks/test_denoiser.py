"""The noise predictor: Stable Diffusion's size and names, and the outputs and gradients of diffusers' network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from beartype import beartype
from diffusers import UNet2DConditionModel
from jaxtyping import TypeCheckError, jaxtyped
from torch import Tensor, nn

from tests.support.denoisers import SMALL, inputs, perturbed, shapes, small
from unet_models.formats.diffusers_config import denoiser_config
from unet_models.formats.diffusers_folder import load_from_diffusers, save_as_diffusers
from unet_models.networks import presets
from unet_models.networks.attention import Attention
from unet_models.networks.denoiser_blocks import sinusoids
from unet_models.networks.denoisers.unet import DenoisingUNet


def outputs_of_diffusers(model: UNet2DConditionModel, given: dict[str, Tensor]) -> Tensor:
    names = {"noisy_latents": "sample", "timesteps": "timestep"}
    return model(**{names.get(name, name): value for name, value in given.items()}).sample


def gradients(model: nn.Module, outputs: Tensor) -> dict[str, Tensor]:
    """Gradients of a weighted sum of the outputs in every parameter."""
    mixing = torch.linspace(-1, 1, outputs.numel()).reshape(outputs.shape)
    parameters = dict(model.named_parameters())
    return dict(zip(parameters, torch.autograd.grad((outputs * mixing).sum(), parameters.values()), strict=True))


# --- Stable Diffusion ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "count"), [({}, 859_520_964), ({"context_dim": 1024}, 865_910_724), ({"in_channels": 9}, 859_535_364)]
)
def test_published_number_of_parameters(changes: dict[str, int], count: int) -> None:
    with torch.device("meta"):
        model = DenoisingUNet(presets.stable_diffusion_1x().model_copy(update=changes))
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert len(model.state_dict()) == 686


def test_names_and_shapes_are_those_of_diffusers() -> None:
    spec = presets.stable_diffusion_1x()
    with torch.device("meta"):
        ours, theirs = DenoisingUNet(spec), UNet2DConditionModel.from_config(denoiser_config(spec))
    assert shapes(ours) == shapes(theirs)


# --- Beside diffusers ------------------------------------------------------------------------------------------------

SPECS = {
    "plain": {},
    "two residual blocks": {"num_res_blocks": 2, "channels": (8, 16, 24), "attention_levels": (False, True, True)},
    "film": {"time_conditioning": "film"},
    "classes": {"num_class_embeds": 7},
    "film and classes, no attention but in the middle": {
        "time_conditioning": "film",
        "num_class_embeds": 3,
        "attention_levels": (False, False),
    },
    "one head, one level": {"num_heads": 1, "channels": (8,), "attention_levels": (True,)},
    "four heads, attention everywhere": {"num_heads": 4, "attention_levels": (True, True)},
    "two transformer blocks": {"num_transformer_blocks": 2, "attention_levels": (False, True)},
    "inpainting": {"in_channels": 9},
    "other prediction": {"out_channels": 8},
    "odd width": {"channels": (5, 10), "num_groups": 5, "num_heads": 1},
    "narrowing": {"channels": (16, 8, 8), "attention_levels": (True, False, True)},
}


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (12, 5), (1, 6)])
@pytest.mark.parametrize("changes", SPECS.values(), ids=SPECS.keys())
def test_outputs_are_those_of_diffusers(changes: dict[str, Any], size: tuple[int, int], tmp_path: Path) -> None:
    spec = small(**changes)
    ours = perturbed(DenoisingUNet(spec)).eval()
    save_as_diffusers(ours, tmp_path / "ours", sample_size=8)
    theirs, report = UNet2DConditionModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert theirs.config.sample_size == 8
    given = inputs(spec, size)
    with torch.no_grad():
        want = outputs_of_diffusers(theirs, given)
        torch.testing.assert_close(ours(**given), want, rtol=1e-5, atol=1e-5)
        perturbed(theirs).save_pretrained(tmp_path / "theirs")
        back = load_from_diffusers(tmp_path / "theirs")
        assert back.spec == spec
        assert not back.training
        want = outputs_of_diffusers(theirs, given)
        torch.testing.assert_close(back(**given), want, rtol=1e-5, atol=1e-5)
    assert want.std() > 0.05  # the comparison is of something


@pytest.mark.parametrize("changes", [{}, {"time_conditioning": "film", "num_class_embeds": 3}], ids=["plain", "film"])
def test_gradients_are_those_of_diffusers(changes: dict[str, Any]) -> None:
    spec = small(**changes)
    ours = perturbed(DenoisingUNet(spec))
    theirs = UNet2DConditionModel.from_config(denoiser_config(spec)).train()
    theirs.load_state_dict(ours.state_dict())
    given = inputs(spec, (7, 9))
    got = gradients(ours, ours(**given))
    want = gradients(theirs, outputs_of_diffusers(theirs, given))
    assert all(gradient.abs().max() > 0 for gradient in want.values())
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("timesteps", [torch.tensor([3, 999]), torch.tensor([0.25, 981.5])])
def test_sinusoids(timesteps: Tensor) -> None:
    want = torch.zeros(2, 7, dtype=torch.float64)
    for i in range(3):
        angle = timesteps.double() / 10_000 ** (i / 3)
        want[:, i], want[:, 3 + i] = angle.cos(), angle.sin()
    torch.testing.assert_close(sinusoids(timesteps, 7).double(), want, rtol=0, atol=2e-4)


def test_timesteps_may_be_fractions() -> None:
    model = perturbed(DenoisingUNet(SMALL)).eval()
    given = inputs(SMALL)
    whole = model(**given)
    floats = given["timesteps"].double()
    assert torch.equal(model(**given | {"timesteps": floats}), whole)
    assert torch.equal(model(**given | {"timesteps": floats.int()}), whole)
    assert not torch.equal(model(**given | {"timesteps": floats + 0.5}), whole)


# --- How it runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context_dim", [12, None])
def test_recomputing_changes_no_gradient(context_dim: int | None) -> None:
    spec = small(context_dim=context_dim, dropout=0.3)
    plain = perturbed(DenoisingUNet(spec))
    saving = DenoisingUNet(spec.model_copy(update={"gradient_checkpointing": True}))
    saving.load_state_dict(plain.state_dict())
    given, calls, results = inputs(spec), [], []
    saving.mid_block.resnets[0].register_forward_pre_hook(lambda *_: calls.append(1))
    for model in (plain, saving):
        torch.manual_seed(3)  # the same dropout
        results.append(gradients(model, model(**given)))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    assert len(calls) == 2  # forwards, and again in the backward pass
    saving.eval()(**given)
    assert len(calls) == 3


def test_bf16_autocast_is_close_and_channels_last_is_the_same() -> None:
    spec = small(channels=(32, 64), num_groups=8)
    model = perturbed(DenoisingUNet(spec)).eval()
    given = inputs(spec, (16, 15))
    with torch.no_grad():
        want = model(**given)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(**given)
        model.to(memory_format=torch.channels_last)
        latents = given["noisy_latents"].to(memory_format=torch.channels_last)
        torch.testing.assert_close(model(**given | {"noisy_latents": latents}), want, rtol=1e-4, atol=1e-4)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - want).norm() < 0.02 * want.norm()


def test_runs_in_bf16_throughout() -> None:
    model = perturbed(DenoisingUNet(SMALL)).to(torch.bfloat16)
    given = {name: t.bfloat16() if t.is_floating_point() else t for name, t in inputs(SMALL).items()}
    assert model(**given).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "changes",
    [{}, {"gradient_checkpointing": True, "channels": (8,), "attention_levels": (True,)}],
    ids=["plain", "gradient checkpointing"],
)
def test_compiles_without_a_break(changes: dict[str, Any]) -> None:
    spec = small(num_class_embeds=3, **changes)
    model = perturbed(DenoisingUNet(spec))
    given = inputs(spec, (7, 6))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(**given), model(**given))
    compiled(**given).sum().backward()


def test_starts_silent() -> None:
    """Zero output, and residual branches that add nothing, as Dhariwal 2021 has it."""
    model = DenoisingUNet(SMALL)
    given = inputs(SMALL)
    assert (model(**given) == 0).all()
    level = model.mid_block
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(level(x, torch.randn(2, 32), given["encoder_hidden_states"]), x)


def test_dropout_only_while_training() -> None:
    spec = small(dropout=0.5)
    model = perturbed(DenoisingUNet(spec))
    given = inputs(spec)
    assert not torch.equal(model(**given), model(**given))
    model.eval()
    assert torch.equal(model(**given), model(**given))


def test_attention_is_the_formula() -> None:
    attention = perturbed(Attention(6, 2, context_dim=4))
    x, context = torch.randn(1, 3, 6), torch.randn(1, 5, 4)
    heads = []
    for rows in (slice(0, 3), slice(3, 6)):
        query = x[0] @ attention.to_q.weight[rows].T
        key, value = (context[0] @ layer.weight[rows].T for layer in (attention.to_k, attention.to_v))
        heads.append(torch.softmax(query @ key.T / 3**0.5, dim=-1) @ value)
    want = attention.to_out[0](torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(x, context)[0], want, rtol=1e-5, atol=1e-6)


def test_self_attention_alone() -> None:
    """Without a context a transformer block reads its own pixels only: no other weights than those of that."""
    spec = small(context_dim=None, num_class_embeds=4)
    model = perturbed(DenoisingUNet(spec)).eval()
    assert not [name for name in model.state_dict() if "attn2" in name or "transformer_blocks.0.norm2" in name]
    given = inputs(spec, (5, 8))
    other = given | {"class_labels": (given["class_labels"] + 1) % 4}
    assert model(**given).shape == (2, 4, 5, 8)
    assert not torch.allclose(model(**given), model(**other))


def test_signature_names_the_shapes() -> None:
    checked = jaxtyped(typechecker=beartype)(DenoisingUNet.forward)
    model, given = DenoisingUNet(SMALL), inputs(SMALL)
    assert checked(model, **given).shape == (2, 4, 8, 8)
    with pytest.raises(TypeCheckError):
        checked(model, **given | {"timesteps": torch.tensor([1, 2, 3])})


# --- Mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({}, {"encoder_hidden_states": None}, r"context_dim: the spec has 12, hence \(batch, tokens, 12\).*got none"),
        ({}, {"encoder_hidden_states": torch.zeros(2, 5, 9)}, r"context_dim: the spec has 12.*got \(2, 5, 9\)"),
        (
            {"context_dim": None},
            {"encoder_hidden_states": torch.zeros(2, 5, 9)},
            r"context_dim: the spec has None, hence no encoder_hidden_states, got \(2, 5, 9\)",
        ),
        ({"num_class_embeds": 3}, {"class_labels": None}, r"num_class_embeds: the spec has 3.*got none"),
        ({}, {"class_labels": torch.zeros(2, dtype=torch.int64)}, r"num_class_embeds: the spec has None.*got \(2,\)"),
        (
            {"in_channels": 9},
            {"noisy_latents": torch.zeros(2, 4, 8, 8)},
            "in_channels: the spec has 9, got latents of 4",
        ),
    ],
)
def test_inputs_that_do_not_fit_the_spec(changes: dict[str, Any], given: dict[str, Any], message: str) -> None:
    spec = small(**changes)
    with pytest.raises(ValueError, match=message):
        DenoisingUNet(spec)(**inputs(spec) | given)


@pytest.mark.parametrize("kind", ["gated", "none", ("concat", "none")])
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_skip_connections_can_be_left_out(kind: str | tuple[str, ...], size: tuple[int, int]) -> None:
    """All parts take part, and the output keeps its size; without a skip the decoder's features are all there is."""
    spec = small(channels=(8, 16), attention_levels=(True, False), skip=kind)
    model = perturbed(DenoisingUNet(spec))
    given = inputs(spec, size)
    assert model(**given).shape == given["noisy_latents"].shape
    model(**given).square().mean().backward()
    assert [name for name, each in model.named_parameters() if each.grad is None] == []
    full = DenoisingUNet(small(channels=(8, 16), attention_levels=(True, False)))
    widths = [block.norm1.num_channels for level in model.up_blocks for block in level.resnets]
    wanted = [block.norm1.num_channels for level in full.up_blocks for block in level.resnets]
    assert (widths == wanted) == (kind == "gated")


def test_kinds_of_skips_are_one_or_one_per_level() -> None:
    with pytest.raises(ValueError, match=r"skip: need one kind, or one for each of the \d levels, got 1"):
        small(skip=("none",))
