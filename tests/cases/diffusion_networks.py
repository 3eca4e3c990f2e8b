"""Judges of cases of encoders, U-Nets, samplers and registered models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import torch
from pydantic import ValidationError

from data_pipelines.digests import file_digests
from data_pipelines.errors import ConfigError, DataError, UserError
from flows.pipelines.diffusion.encoding import LATENTS, to_half
from flows.training.initial import Meaning, Origin
from flows.training.origins import check_bound
from tests.cases.files import Files
from tests.cases.verdict import Verdict
from unet_models.formats.clip_config import read_clip_config, text_config
from unet_models.formats.clip_folder import TEXT_PREFIX, WEIGHTS, Clip, save_text_encoder
from unet_models.networks.autoencoder import load_autoencoder
from unet_models.sampling.conditions import Conditions
from unet_models.sampling.noise import alphas_cumprod, loss_weights
from unet_models.sampling.samplers import sample_latents
from unet_models.specs.diffusion import DiffusionSpec, NoiseSpec, SampleSpec

SIDE = 32
"""Side of the image that autoencoders are compared on, in pixels."""
REFUSED = {
    "clip_text_weights_only": "vision_model",
    "vae_half_missing": "encoder.",
    "vae_prefixed": "first_stage_model.",
    "vae_nan": "quant_conv.bias",
    "vae_bin": "pickles",
    "vae_fp16_variant": "rename",
}
"""Folder of case 08 to a word of the message that it is refused with; all others load."""
TOO_LARGE = "vae_huge"


def judge_encoders(files: Files) -> Iterator[Verdict]:
    """Every folder gives the same network, or is refused with the name of what is wrong."""
    reference = {kind: _output(files.out / kind) for kind in ("clip", "vae")}
    for folder in sorted(path for path in files.out.iterdir() if path.is_dir()):
        network = folder / "text_encoder" if (folder / "text_encoder").is_dir() else folder
        expected = _expected(folder.name)
        try:
            found = _output(network)
        except UserError as error:
            word = REFUSED.get(folder.name, "")
            yield Verdict(f"08 {folder.name}", expected, str(error)[-160:], bool(word) and word in str(error))
            continue
        if folder.name == TOO_LARGE:
            yield _overflow(found, expected)
        else:
            wanted_output = reference["vae" if folder.name.startswith("vae") else "clip"]
            difference = float((found - wanted_output).norm() / wanted_output.norm())
            ok = folder.name not in REFUSED and (difference < 0.02 or folder.name == "clip_pad_bang")
            yield Verdict(f"08 {folder.name}", expected, f"loaded, off by {difference:.1e}", ok)


def _expected(name: str) -> str:
    if name in REFUSED:
        return f"refused, naming {REFUSED[name]}"
    return "stops the encode stage" if name == TOO_LARGE else "the same network in float32"


def _output(network: Path) -> torch.Tensor:
    """Return the moments of a fixed image, or the states of a fixed caption."""
    if not network.name.startswith("vae"):
        return Clip(network).text_states(["a red fox"])
    image = torch.linspace(-1, 1, 3 * SIDE * SIDE).view(1, 3, SIDE, SIDE)
    with torch.no_grad():
        moments: torch.Tensor = load_autoencoder(network).encode(image).latent_dist.parameters
    return moments


def _overflow(moments: torch.Tensor, expected: str) -> Verdict:
    try:
        to_half(moments[0], {"case_id": "0", "caption": ""}, LATENTS)
    except DataError as error:
        return Verdict(f"08 {TOO_LARGE}", expected, error.problems[0].rule, is_right=True)
    return Verdict(f"08 {TOO_LARGE}", expected, "stored", is_right=False)


def judge_min_snr(files: Files) -> Iterator[Verdict]:
    """The timestep that sampling starts from has a weight, or the pair of settings is refused."""
    for kind in ("v_prediction", "sample"):
        noise = {"schedule": "scaled_linear", "zero_terminal_snr": True, "prediction_type": kind}
        try:
            DiffusionSpec.model_validate({"noise": noise, "min_snr_gamma": 5.0})
        except ValidationError:
            yield Verdict(f"10 {kind}", "refused, or a weight above 0", "refused", is_right=True)
            continue
        spec = NoiseSpec.model_validate(noise)
        last = float(loss_weights(spec.prediction_type, alphas_cumprod(spec), 5.0)[-1])
        yield Verdict(f"10 {kind}", "refused, or a weight above 0", f"last weight {last:g}", last > 0)


def judge_bundle(files: Files) -> Iterator[Verdict]:
    """Text encoders are written under the names that transformers 4 looks for."""
    from safetensors import safe_open

    text = files.out.with_name("16_text_encoder")
    save_text_encoder(text, Clip(files.encoders / "clip").text)
    with safe_open(text / WEIGHTS, "pt") as weights:
        named = all(name.startswith(TEXT_PREFIX) for name in weights.keys())  # noqa: SIM118  # not a mapping
    yield Verdict("16", f"names that transformers 4 reads: {TEXT_PREFIX}*", "so" if named else "others", named)


def judge_tokenizer_map(files: Files) -> Iterator[Verdict]:
    """The padding token is that of special_tokens_map.json."""
    seen = Clip(files.out).tokenizer.pad_token
    yield Verdict("21", "pads with what special_tokens_map.json says: !", seen, seen == "!")


def judge_defaults(files: Files) -> Iterator[Verdict]:
    """A width that the config leaves out is the default of the class."""
    width = text_config(read_clip_config(files.out)).hidden_size
    loaded = Clip(files.out).context_dim
    yield Verdict("23", "width 512", f"{width}, loaded {loaded}", width == loaded == 512)


def judge_other_networks(files: Files) -> Iterator[Verdict]:
    """Weights of other encoders are refused by field."""
    for name in ("clip", "vae"):
        ours, theirs = (
            file_digests(sorted((root / name).glob("*.safetensors"))) for root in (files.out, files.encoders)
        )
        field = {"clip": "encode.clip", "vae": "encode.autoencoder"}[name]
        try:
            meanings = [Meaning(bound_to={field: sorted(each.values())}) for each in (theirs, ours)]
            origin = Origin(source="the champion", uri="", sha256="", meaning=meanings[0])
            check_bound(origin, meanings[1])
            yield Verdict(f"25 {name}", f"refused, naming {field}", "accepted", is_right=False)
        except ConfigError as error:
            yield Verdict(f"25 {name}", f"refused, naming {field}", "refused", field in str(error))


def judge_unets(files: Files) -> Iterator[Verdict]:
    """U-Nets of diffusers give the same output here, or are refused by the key that is not implemented."""
    from diffusers import UNet2DConditionModel

    from unet_models.formats.diffusers_folder import load_from_diffusers

    for name, change in UNETS.items():
        torch.manual_seed(0)
        theirs = UNet2DConditionModel(**(UNET | change)).eval()
        theirs.save_pretrained(files.out / name)
        try:
            ours = load_from_diffusers(files.out / name)
        except UserError as error:
            named = [key for key in change if key in str(error)]
            yield Verdict(f"11 {name}", "equal to diffusers, or refused", f"refused: {named}", bool(named))
            continue
        inputs = torch.randn(2, theirs.config["in_channels"], 16, 16), torch.tensor([3, 700]), torch.randn(2, 5, 32)
        with torch.no_grad():
            difference = float((ours(*inputs) - theirs(*inputs).sample).abs().max())
        yield Verdict(f"11 {name}", "equal to diffusers, or refused", f"off by {difference:.1e}", difference < 1e-4)


def judge_samplers(files: Files) -> Iterator[Verdict]:
    """A perfect predictor of one latent gives it back, whatever the sampler and the schedule."""
    for schedule, zero, kind in product(("linear", "scaled_linear", "cosine"), (False, True), KINDS):
        if zero and kind == "epsilon":
            continue
        noise = NoiseSpec.model_validate({"schedule": schedule, "zero_terminal_snr": zero, "prediction_type": kind})
        runs = product(("ddpm", "ddim", "dpm_solver"), (1, 2, 4, 20, 50, 1000))
        worst = max(_sampling_error(noise, sampler, steps) for sampler, steps in runs)
        name = f"17 {schedule}{' zero-terminal' if zero else ''} {kind}"
        yield Verdict(name, "the latent itself, within 0.15", f"off by {worst:.3f}", worst < 0.15)


def _sampling_error(noise: NoiseSpec, sampler: str, steps: int) -> float:
    torch.manual_seed(0)
    latent = torch.randn(1, 4, 8, 8)
    alphas = alphas_cumprod(noise)

    def predict(noisy: torch.Tensor, timesteps: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        alpha = alphas[timesteps.long()].view(-1, 1, 1, 1)
        clean = latent.expand_as(noisy)
        drawn = (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * drawn - (1 - alpha).sqrt() * clean
        return {"epsilon": drawn, "sample": clean, "v_prediction": velocity}[noise.prediction_type]

    states = Conditions(torch.zeros(1, 3, 8))
    spec = SampleSpec.model_validate({"sampler": sampler, "num_inference_steps": steps})
    generators = [torch.Generator().manual_seed(0)]
    drawn = sample_latents(Predictor(predict), noise, spec, (4, 8, 8), generators, states, states, [1.0])
    return float((drawn - latent).abs().max())


class Predictor(torch.nn.Module):
    """A function as a network."""

    def __init__(self, predict: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.predict = predict

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Predict."""
        return self.predict(*inputs)


def judge_divergence(files: Files) -> Iterator[Verdict]:
    """A training whose only update breaks the weights ends as diverged, and registers nothing."""
    config = files.out.with_suffix(".yaml")
    config.write_text(PIPELINE.format(images=files.images, encoders=files.encoders, storage=files.out))
    words = ["run", str(config), "--set", "train.num_steps=1", "--set", "train.optimizer.learning_rate=1e30"]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True, check=False, timeout=600
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    yield Verdict("22", "exit code 2, no champion", f"exit code {done.returncode}: {last:.100}", done.returncode == 2)


KINDS = ("epsilon", "sample", "v_prediction")
UNET = {
    "block_out_channels": (32, 64, 64, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "sample_size": 16,
}
UNETS: dict[str, dict[str, object]] = {
    "sd1": {},
    "inpainting": {"in_channels": 9},
    "linear": {"use_linear_projection": True},
    "heads per level": {"attention_head_dim": (2, 4, 4, 4)},
    "upcast": {"upcast_attention": True},
    "film": {"resnet_time_scale_shift": "scale_shift"},
    "two transformers": {"transformer_layers_per_block": 2},
    "no_flip": {"flip_sin_to_cos": False},
    "freq_shift": {"freq_shift": 1},
    "gelu": {"act_fn": "gelu"},
    "no middle": {"mid_block_type": None},
    "dropout": {"dropout": 0.1},
    "time_dim": {"time_embedding_dim": 64},
}
"""Name of a variant to what differs from Stable Diffusion 1.x."""
PIPELINE = """
pipeline: diffusion
storage: {storage}
registry: {{name: case, export: []}}
data: {{root: {images}, resolution: 32, val_fraction: 0.3}}
encode: {{clip: {encoders}/clip, autoencoder: {encoders}/vae}}
train:
  global_batch_size: 4
  num_steps: 2
  precision: fp32
  validate_cases: 0
  log_every_steps: 1
  model: {{channels: [8, 16], attention_levels: [false, true], num_res_blocks: 1, num_heads: 2, context_dim: 32,
          num_groups: 4}}
evaluate: {{num_images: 8, batch_size: 4, num_inference_steps: 2, num_shown: 1, guidance_sweep: []}}
compute: {{num_workers: 1}}
"""
