"""The noise predictor: Stable Diffusion's size and names, and the outputs and gradients of diffusers' network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from beartype import beartype
from diffusers import UNet2DConditionModel
from jaxtyping import TypeCheckError, jaxtyped
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unet_models.networks import presets
from unet_models.networks.attention import Attention
from unet_models.networks.denoiser import Denoiser, sinusoids
from unet_models.formats.diffusers_folder import CONFIG, WEIGHTS, denoiser_config, denoiser_spec, load_from_diffusers, save_as_diffusers
from unet_models.specs.networks import DenoiserSpec

SMALL = DenoiserSpec(
    channels=(8, 16), attention_levels=(True, False), num_res_blocks=1, num_heads=2, context_dim=12, num_groups=4
)


def small(**changes: Any) -> DenoiserSpec:
    return DenoiserSpec(**(SMALL.model_dump() | changes))


def perturbed(model: nn.Module) -> Any:
    """Every weight away from 0 and 1, so that forgetting one shows."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def inputs(spec: DenoiserSpec, size: tuple[int, int] = (8, 8), batch: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    given = {
        "noisy_latents": torch.randn(batch, spec.in_channels, *size, generator=generator),
        "timesteps": torch.randint(0, 1000, (batch,), generator=generator),
    }
    if spec.context_dim is not None:
        given["encoder_hidden_states"] = torch.randn(batch, 5, spec.context_dim, generator=generator)
    if spec.num_class_embeds is not None:
        given["class_labels"] = torch.randint(0, spec.num_class_embeds, (batch,), generator=generator)
    return given


def outputs_of_diffusers(model: UNet2DConditionModel, given: dict[str, Tensor]) -> Tensor:
    names = {"noisy_latents": "sample", "timesteps": "timestep"}
    return model(**{names.get(name, name): value for name, value in given.items()}).sample


def gradients(model: nn.Module, outputs: Tensor) -> dict[str, Tensor]:
    """Of a weighted sum of the outputs, in every parameter."""
    mixing = torch.linspace(-1, 1, outputs.numel()).reshape(outputs.shape)
    parameters = dict(model.named_parameters())
    return dict(zip(parameters, torch.autograd.grad((outputs * mixing).sum(), parameters.values()), strict=True))


# --- Stable Diffusion ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "count"), [({}, 859_520_964), ({"context_dim": 1024}, 865_910_724), ({"in_channels": 9}, 859_535_364)]
)
def test_published_number_of_parameters(changes: dict[str, int], count: int) -> None:
    with torch.device("meta"):
        model = Denoiser(presets.stable_diffusion_1x().model_copy(update=changes))
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert len(model.state_dict()) == 686


def test_names_and_shapes_are_those_of_diffusers() -> None:
    spec = presets.stable_diffusion_1x()
    with torch.device("meta"):
        ours, theirs = Denoiser(spec), UNet2DConditionModel.from_config(denoiser_config(spec))
    assert shapes(ours) == shapes(theirs)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_published_config_is_understood() -> None:
    """The config.json of Stable Diffusion 1.5, written by diffusers 0.6."""
    config = {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": "0.6.0",
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False,
        "cross_attention_dim": 768,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    }
    assert denoiser_spec(config) == presets.stable_diffusion_1x()


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
    ours = perturbed(Denoiser(spec)).eval()
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
    ours = perturbed(Denoiser(spec))
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
    model = perturbed(Denoiser(SMALL)).eval()
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
    plain = perturbed(Denoiser(spec))
    saving = Denoiser(spec.model_copy(update={"gradient_checkpointing": True}))
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
    model = perturbed(Denoiser(spec)).eval()
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
    model = perturbed(Denoiser(SMALL)).to(torch.bfloat16)
    given = {name: t.bfloat16() if t.is_floating_point() else t for name, t in inputs(SMALL).items()}
    assert model(**given).dtype == torch.bfloat16


@pytest.mark.parametrize("recompute", [False, True])
def test_compiles_without_a_break(recompute: bool) -> None:
    spec = small(num_class_embeds=3, gradient_checkpointing=recompute)
    model = perturbed(Denoiser(spec))
    given = inputs(spec, (7, 6))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(**given), model(**given))
    compiled(**given).sum().backward()


def test_starts_silent() -> None:
    """Zero output, and residual branches that add nothing, as Dhariwal 2021 has it."""
    model = Denoiser(SMALL)
    given = inputs(SMALL)
    assert (model(**given) == 0).all()
    level = model.mid_block
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(level(x, torch.randn(2, 32), given["encoder_hidden_states"]), x)


def test_dropout_only_while_training() -> None:
    spec = small(dropout=0.5)
    model = perturbed(Denoiser(spec))
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
    model = perturbed(Denoiser(spec)).eval()
    assert not [name for name in model.state_dict() if "attn2" in name or "transformer_blocks.0.norm2" in name]
    given = inputs(spec, (5, 8))
    other = given | {"class_labels": (given["class_labels"] + 1) % 4}
    assert model(**given).shape == (2, 4, 5, 8)
    assert not torch.allclose(model(**given), model(**other))


def test_signature_names_the_shapes() -> None:
    checked = jaxtyped(typechecker=beartype)(Denoiser.forward)
    model, given = Denoiser(SMALL), inputs(SMALL)
    assert checked(model, **given).shape == (2, 4, 8, 8)
    with pytest.raises(TypeCheckError):
        checked(model, **given | {"timesteps": torch.tensor([1, 2, 3])})


# --- Folders ---------------------------------------------------------------------------------------------------------


def test_folder_holds_two_plain_files(tmp_path: Path) -> None:
    model = perturbed(Denoiser(SMALL)).to(memory_format=torch.channels_last)
    for _ in range(2):  # over an older one, too
        save_as_diffusers(model, tmp_path / "new" / "folder")
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == [CONFIG, WEIGHTS]
    with safe_open(tmp_path / "new" / "folder" / WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    back = load_from_diffusers(tmp_path / "new" / "folder")
    torch.testing.assert_close(back.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    save_as_diffusers(Denoiser(SMALL).half(), tmp_path)
    assert load_file(tmp_path / WEIGHTS)["conv_in.weight"].dtype == torch.float16
    assert {p.dtype for p in load_from_diffusers(tmp_path).parameters()} == {torch.float32}


def test_loaded_weights_do_not_hang_on_the_file(tmp_path: Path) -> None:
    save_as_diffusers(perturbed(Denoiser(SMALL)), tmp_path)
    model = load_from_diffusers(tmp_path)
    before = model.conv_in.weight.clone()
    (tmp_path / WEIGHTS).write_bytes(bytes((tmp_path / WEIGHTS).stat().st_size))
    assert torch.equal(model.conv_in.weight, before)


def test_lists_of_equal_entries_are_one_value() -> None:
    config = denoiser_config(SMALL) | {
        "attention_head_dim": [2, 2],
        "layers_per_block": [1, 1],
        "cross_attention_dim": [12, 12],
        "only_cross_attention": [False, False],
        "act_fn": "swish",
        "mid_block_only_cross_attention": False,
    }
    assert denoiser_spec(config) == SMALL


def test_every_key_of_diffusers_is_known() -> None:
    theirs = UNet2DConditionModel.from_config(denoiser_config(SMALL))
    keys = {key for key in theirs.config if not key.startswith("_")}
    assert keys == {key for key in denoiser_config(SMALL) if not key.startswith("_")}
    assert denoiser_spec(dict(theirs.config) | {"_class_name": "UNet2DConditionModel"}) == SMALL


def test_absent_keys_mean_what_they_mean_to_diffusers() -> None:
    with torch.device("meta"):
        theirs = UNet2DConditionModel()
    assert shapes_of(denoiser_spec({"_class_name": "UNet2DConditionModel"})) == shapes(theirs)
    assert denoiser_spec({}) == denoiser_spec(dict(theirs.config))


def shapes_of(spec: DenoiserSpec) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return shapes(Denoiser(spec))


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
        Denoiser(spec)(**inputs(spec) | given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "UNet2DModel"}, "_class_name is 'UNet2DModel'.*supported: 'UNet2DConditionModel'"),
        ({"act_fn": "gelu"}, "act_fn is 'gelu', which is not implemented; supported: 'silu'"),
        ({"use_linear_projection": True}, "use_linear_projection is True.*supported: False"),
        ({"attention_head_dim": [1, 2]}, r"attention_head_dim is \[1, 2\].*one whole number, the same on every level"),
        ({"cross_attention_dim": None}, "cross_attention_dim is None.*one whole number"),
        ({"norm_num_groups": None}, "norm_num_groups is None"),
        ({"mid_block_type": None}, "mid_block_type is None.*UNetMidBlock2DCrossAttn"),
        ({"mid_block_type": "UNetMidBlock2D"}, "mid_block_type is 'UNetMidBlock2D'"),
        ({"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}, "down_block_types.*DownBlock2D and CrossAttn"),
        ({"up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}, "up_block_types.*mirror image of down_block_types"),
        ({"up_block_types": "UpBlock2D"}, "up_block_types is 'UpBlock2D'"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift is 'spatial'.*default or scale_shift"),
        ({"addition_embed_type": "text_time"}, "addition_embed_type is 'text_time'.*supported: None"),
        ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep'.*supported: None"),
        ({"norm_eps": 1e-6}, "norm_eps is 1e-06.*supported: 1e-05"),
        ({"a_later_invention": 1}, "a_later_invention is 1.*no such key"),
    ],
)
def test_configs_that_are_not_implemented(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        denoiser_spec(denoiser_config(SMALL) | changes)


def test_self_attention_alone_has_no_diffusers_counterpart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="context_dim: none, but diffusers has no"):
        save_as_diffusers(Denoiser(small(context_dim=None)), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_as_diffusers(Denoiser(SMALL), tmp_path)
    return tmp_path


def test_weights_that_do_not_fit(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {"conv_in.lora": torch.zeros(1)}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"1 unknown weights.*\['conv_in.lora'\]"):
        load_from_diffusers(folder)
    save_file({k: v for k, v in weights.items() if "time_embedding" not in k}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"4 missing weights.*time_embedding.linear_1.bias"):
        load_from_diffusers(folder)
    save_file(weights | {"conv_in.bias": torch.zeros(5)}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"conv_in.bias must be \(8,\), got \(5,\)"):
        load_from_diffusers(folder)


def test_folders_that_cannot_be_read(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-1])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        load_from_diffusers(folder)
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"one file.*no shards, no .bin.*found \['diffusion_pytorch_model.bin'\]"):
        load_from_diffusers(folder)
    (folder / CONFIG).write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        load_from_diffusers(folder)
    (folder / CONFIG).write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="must be a JSON object, got list"):
        load_from_diffusers(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(ValueError, match=r"no such file.*unet/"):
        load_from_diffusers(folder)


def test_shards_are_refused(tmp_path: Path) -> None:
    theirs = UNet2DConditionModel.from_config(denoiser_config(SMALL))
    theirs.save_pretrained(tmp_path, max_shard_size="50KB")
    with pytest.raises(ValueError, match=r"no shards.*-00001-of-.*max_shard_size"):
        load_from_diffusers(tmp_path)
