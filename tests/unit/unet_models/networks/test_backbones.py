"""Every backbone of the denoiser: conditions, sizes, precision; the transformers beside those of diffusers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from beartype import beartype
from diffusers import DiTTransformer2DModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.pipelines.deprecated.unidiffuser.modeling_uvit import UTransformer2DModel
from jaxtyping import jaxtyped
from torch import nn

from tests.support.denoisers import BACKBONES, inputs, perturbed
from tests.support.twins import CLOSE
from unet_models.networks.attention import Attention
from unet_models.networks.build import build_denoiser
from unet_models.networks.denoiser import Denoiser
from unet_models.networks.denoisers.dit import DiT, ModulatedBlock
from unet_models.networks.denoisers.uvit import UViT
from unet_models.networks.patches import join_patches
from unet_models.specs.denoisers import DenoiserSpec, DiTSpec, UViTSpec

CONDITIONS: dict[str, dict[str, Any]] = {
    "text": {},
    "class": {"context_dim": None, "num_class_embeds": 5},
    "text and class": {"num_class_embeds": 5},
    "nothing": {"context_dim": None},
    "concatenated image": {"in_channels": 9},
}
TRANSFORMERS = ("uvit", "dit")


def built(backbone: str, **changes: Any) -> tuple[Any, DenoiserSpec]:
    spec = BACKBONES[backbone]
    spec = type(spec).model_validate(spec.model_dump() | changes)
    return perturbed(build_denoiser(spec)), spec


# --- Every backbone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", CONDITIONS.values(), ids=CONDITIONS.keys())
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_condition_changes_the_prediction_and_every_parameter_has_a_gradient(
    backbone: str, changes: dict[str, Any]
) -> None:
    model, spec = built(backbone, **changes)
    given = inputs(spec, (7, 10))
    outputs = jaxtyped(typechecker=beartype)(Denoiser.forward)(model, **given)
    assert outputs.shape == (2, 4, 7, 10)
    (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum().backward()
    silent = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 0]
    assert not silent
    for name, value in given.items():
        other = value.flip(0) if name == "class_labels" else value + 1
        assert not torch.allclose(model(**given | {name: other}), outputs), name


@pytest.mark.parametrize("backbone", BACKBONES)
def test_starts_at_zero_and_goes_through_its_state_dict(backbone: str) -> None:
    model, spec = built(backbone)
    given = inputs(spec)
    fresh = build_denoiser(spec)
    assert not fresh(**given).any()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(**given), model(**given))


@pytest.mark.parametrize("backbone", TRANSFORMERS)
def test_recomputing_changes_no_gradient(backbone: str) -> None:
    plain, spec = built(backbone)
    saving, _ = built(backbone, gradient_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    calls: list[object] = []
    next(module for module in saving.modules() if isinstance(module, Attention)).register_forward_hook(
        lambda *_: calls.append(1)
    )
    for model in (plain, saving):
        model(**inputs(spec)).square().sum().backward()
    for ours, other in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(ours.grad, other.grad)
    assert len(calls) == 2  # forwards, and again in the backward pass


@pytest.mark.parametrize("backbone", TRANSFORMERS)
def test_bf16_is_close(backbone: str) -> None:
    model, spec = built(backbone)
    given = inputs(spec, (16, 14))
    with torch.no_grad():
        want = model(**given)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(**given)
    assert (rounded.float() - want).norm() < 0.03 * want.norm()


@pytest.mark.parametrize("backbone", TRANSFORMERS)
def test_a_side_that_is_no_multiple_is_padded_with_zeros(backbone: str) -> None:
    """The prediction is that of the padded latents, cut off."""
    model, spec = built(backbone, patch_size=3)
    given = inputs(spec, (7, 8))
    padded = given | {"noisy_latents": nn.functional.pad(given["noisy_latents"], (0, 1, 0, 2))}
    want = model(**padded)[:, :, :7, :8]
    if backbone == "dit":  # the last convolution of U-ViT sees where the latents end
        torch.testing.assert_close(model(**given), want, **CLOSE)
    torch.testing.assert_close(model(**given)[:, :, :6, :7], want[:, :, :6, :7], **CLOSE)


# --- U-ViT -----------------------------------------------------------------------------------------------------------


def test_blocks_and_long_skips_of_uvit_are_those_of_diffusers() -> None:
    """Its ``UTransformer2DModel`` normalises after joining a skip, which Bao 2023 does not: there it is passed by."""
    model, spec = built("uvit", num_layers=5)
    assert isinstance(spec, UViTSpec)
    theirs = UTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, num_layers=5, sample_size=8, activation_fn="gelu",
        block_type="", pre_layer_norm=True,
    )  # fmt: skip
    for block in theirs.transformer_out_blocks:
        block["skip"].norm = nn.Identity()
    names = {"in_blocks": "transformer_in_blocks", "mid_block": "transformer_mid_block", "norm_out": "norm_out"}
    for ours, other in names.items():
        getattr(theirs, other).load_state_dict(getattr(model, ours).state_dict())
    for theirs_out, block, project in zip(
        theirs.transformer_out_blocks, model.out_blocks, model.skip_projs, strict=True
    ):
        theirs_out["block"].load_state_dict(block.state_dict())
        theirs_out["skip"].skip_linear.load_state_dict(project.state_dict())
    tokens = torch.randn(2, 11, 16)
    (want,) = theirs(tokens, hidden_states_is_embedding=True, unpatchify=False, return_dict=False)
    torch.testing.assert_close(model.transform(tokens), want, **CLOSE)


def test_size_of_uvit_small() -> None:
    """Bao 2023 reports 44 M for U-ViT-S/2, with other embeddings of time and position."""
    with torch.device("meta"):
        model = UViT(UViTSpec(context_dim=768))
    assert sum(parameter.numel() for parameter in model.parameters()) == 45_046_948


# --- DiT -------------------------------------------------------------------------------------------------------------


def dit_of_diffusers(model: DiT) -> DiTTransformer2DModel:
    """The network of diffusers with the weights of ours; there every block has its own copy of the embeddings."""
    spec = model.spec
    theirs = DiTTransformer2DModel(
        num_attention_heads=spec.num_heads, attention_head_dim=spec.width // spec.num_heads, num_layers=spec.num_layers,
        sample_size=8, patch_size=spec.patch_size, num_embeds_ada_norm=4, norm_eps=1e-6,
    ).eval()  # fmt: skip
    theirs.pos_embed.proj.load_state_dict(model.patches.proj.state_dict())
    for ours, block in zip(model.blocks, theirs.transformer_blocks, strict=True):
        copy_block(ours, block, model)
    theirs.proj_out_1.load_state_dict(model.modulation_out.state_dict())
    theirs.proj_out_2.load_state_dict(model.proj_out.state_dict())
    return theirs


def copy_block(ours: ModulatedBlock, theirs: Any, model: DiT) -> None:
    for name in ("attn1", "ff"):
        getattr(theirs, name).load_state_dict(getattr(ours, name).state_dict())
    theirs.norm1.linear.load_state_dict(ours.modulation.state_dict())
    embedding = theirs.norm1.emb
    embedding.time_proj.downscale_freq_shift = 0  # as published; diffusers' own DiT has 1
    embedding.timestep_embedder.load_state_dict(model.time_embedding.state_dict())
    embedding.class_embedder.embedding_table.load_state_dict(model.class_embedding.state_dict())


@pytest.mark.parametrize("size", [(8, 8)])
def test_outputs_of_dit_are_those_of_diffusers(size: tuple[int, int]) -> None:
    model, spec = built("dit", context_dim=None, num_class_embeds=5)
    theirs = dit_of_diffusers(model)
    given = inputs(spec, size)
    want = theirs(given["noisy_latents"], given["timesteps"], class_labels=given["class_labels"]).sample
    torch.testing.assert_close(model(**given), want, **CLOSE)
    assert want.std() > 0.05


def test_block_with_cross_attention_is_that_of_diffusers() -> None:
    model, spec = built("dit", num_class_embeds=5)
    ours = model.blocks[0]
    theirs = BasicTransformerBlock(
        16, 2, 8, cross_attention_dim=12, activation_fn="gelu-approximate", num_embeds_ada_norm=4, attention_bias=True,
        norm_type="ada_norm_zero", norm_elementwise_affine=False, norm_eps=1e-6,
    ).eval()  # fmt: skip
    copy_block(ours, theirs, model)
    theirs.attn2.load_state_dict(ours.attn2.state_dict())
    given = inputs(spec)
    x, context, labels = torch.randn(2, 9, 16), given["encoder_hidden_states"], given["class_labels"]
    condition = model.time_embedding(given["timesteps"]) + model.class_embedding(labels)
    want = theirs(x, encoder_hidden_states=context, timestep=given["timesteps"], class_labels=labels)
    torch.testing.assert_close(ours(x, nn.functional.silu(condition), context), want, **CLOSE)


def test_size_of_dit_small() -> None:
    """Peebles 2023, table 1: 33 M for DiT-S/2, here with the 1,001 classes of ImageNet's and no class."""
    with torch.device("meta"):
        model = DiT(DiTSpec(context_dim=None, num_class_embeds=1001, out_channels=8))
    assert sum(parameter.numel() for parameter in model.parameters()) == 32_865_056


# --- Patches ---------------------------------------------------------------------------------------------------------


def test_patches_are_joined_where_they_were_cut() -> None:
    latents = torch.randn(2, 3, 4, 6)
    cut = nn.functional.unfold(latents, 2, stride=2).transpose(1, 2)  # (B, N, C * 4)
    values = cut.unflatten(2, (3, 4)).transpose(2, 3).flatten(2)  # pixel by pixel, then channels
    assert torch.equal(join_patches(values, 2, 4, 6), latents)


@pytest.mark.parametrize(
    ("backbone", "changes", "message"),
    [
        ("uvit", {"num_layers": 4}, "num_layers: must be odd.*got 4"),
        ("dit", {"width": 18}, "width: must be divisible by 4"),
        ("dit", {"num_heads": 3}, r"width: must be divisible by num_heads \(3\), got 16"),
        ("dit", {"channels": [8]}, "channels"),
    ],
)
def test_specs_that_cannot_be_built(backbone: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(backbone, **changes)
