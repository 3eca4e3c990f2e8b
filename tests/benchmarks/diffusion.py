"""Latent diffusion's parts: a training step, sharding images, training with and without cached latents.

The peers: diffusers' ``UNet2DConditionModel`` of the same configuration; ``webdataset.ShardWriter`` on raw
bytes; encoding inside the training step.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_pipelines.batches import LatentBatch
from data_pipelines.images.sharding import Work, example_digests, shard_one
from data_pipelines.images.sources import find_examples
from data_pipelines.images.specs import CaptionedSpec
from tests.benchmarks.timing import alternate, table
from unet_models.formats.diffusers_folder import denoiser_config
from unet_models.networks.autoencoder import build_autoencoder
from unet_models.networks.denoisers.unet import DenoisingUNet
from unet_models.precision import autocast
from unet_models.specs.denoisers import DenoisingUNetSpec
from unet_models.specs.diffusion import DiffusionSpec, NoiseSpec
from unet_models.specs.encoders import AutoencoderSpec
from unet_models.training.fit import train_step
from unet_models.training.objectives import NoisePrediction
from unet_models.training.optimisation import build_optimizer
from unet_models.training.state import build_state

NUM_IMAGES = 1000
TOKENS = 24


def run(folder: Path) -> None:
    """Print all three."""
    torch.set_num_threads(2)
    _step()
    _sharding(folder)
    _cache()


def _spec(device: torch.device) -> DiffusionSpec:
    """emoji.yaml's network on a CPU; on a GPU one of 64 to 128 pixels' size, compiled."""
    on_gpu = device.type == "cuda"
    width = 128 if on_gpu else 64
    return DiffusionSpec(
        global_batch_size=128 if on_gpu else 16,
        num_steps=10**6,
        compile=on_gpu,
        channels_last=on_gpu,
        model=DenoisingUNetSpec(
            channels=(width, 2 * width, 2 * width),
            attention_levels=(False, True, True),
            num_res_blocks=1,
            num_heads=4,
            context_dim=192,
            num_groups=16,
        ),
        noise=NoiseSpec(schedule="cosine", prediction_type="v_prediction"),
    )


def _batch(spec: DiffusionSpec, device: torch.device) -> LatentBatch:
    size, width = spec.global_batch_size, spec.model.context_dim or 1
    positions = tuple(range(size))
    moments = torch.randn(size, 8, 16, 16, device=device)
    states = torch.randn(size, TOKENS, width, device=device)
    labels = torch.zeros(size, dtype=torch.int64)
    return LatentBatch(moments, states, labels, positions, tuple(map(str, positions)), 0)


def _objective(spec: DiffusionSpec) -> NoisePrediction:
    return NoisePrediction(spec, 1.0, torch.zeros(TOKENS, spec.model.context_dim or 1))


def _step() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = _spec(device)
    batch = _batch(spec, device)
    ours = _trainer(DenoisingUNet(spec.model), spec, batch)
    contenders = {"unetflow DenoisingUNet": ours, "diffusers UNet2DConditionModel": _diffusers(spec, batch)}
    for step in contenders.values():
        step()
    rates = alternate(contenders, rounds=7)
    title = f"diffusion training steps, batch {len(batch)} of 4x16x16 latents, bf16, {device.type}"
    print(table(title, "steps/s", rates, "unetflow DenoisingUNet", ">= 1.11 (step time <= 0.9x)"), flush=True)


def _trainer(model: nn.Module, spec: DiffusionSpec, batch: LatentBatch) -> Callable[[], int]:
    state = build_state(model, spec, batch.device)
    state.model.train()
    if spec.compile:
        state.model.compile()
    objective = _objective(spec)

    def step() -> int:
        train_step(state.model, state, objective, batch, spec).item()
        return 1

    return step


def _diffusers(spec: DiffusionSpec, batch: LatentBatch) -> Callable[[], int]:
    """As diffusers' text-to-image example trains it: noise in one draw, scheduler's noise and velocity, clipping."""
    from diffusers import DDPMScheduler, UNet2DConditionModel

    config = {name: value for name, value in denoiser_config(spec.model).items() if not name.startswith("_")}
    network = UNet2DConditionModel(**config).to(batch.device).train()
    if spec.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if spec.compile:
        network.compile()
    optimizer = build_optimizer(network.parameters(), spec.optimizer)
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    mean, log_variance = batch.moments.chunk(2, dim=1)

    def step() -> int:
        latents = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (len(batch),), device=batch.device)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        wanted = scheduler.get_velocity(latents, noise, timesteps)
        with autocast(spec.precision, batch.device):
            predicted = network(noisy, timesteps, batch.encoder_hidden_states).sample
        loss = F.mse_loss(predicted.float(), wanted)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        return 1

    return step


def _sharding(folder: Path) -> None:
    import webdataset

    spec = CaptionedSpec(layout="shapes", num_shapes=NUM_IMAGES, resolution=64)
    examples = find_examples(spec, folder / "generated")
    digests, _ = example_digests(examples, spec)
    chosen = tuple(digests[example.example_id] for example in examples.examples)

    def ours() -> int:
        shutil.rmtree(folder / "shards", ignore_errors=True)
        uri = str(folder / "shards" / "0.tar")
        rows, problems = shard_one(Work(uri=uri, examples=tuple(examples.examples), digests=chosen, spec=spec))
        assert not problems
        return len(rows)

    def bare() -> int:
        with webdataset.ShardWriter(str(folder / "%04d.tar"), verbose=0) as writer:
            for i, example in enumerate(examples.examples):
                writer.write({"__key__": str(i), "png": Path(example.image).read_bytes(), "txt": example.caption})
        return len(examples.examples)

    rates = alternate({"unetflow (decoded, checked, digests, index)": ours, "webdataset.ShardWriter, raw bytes": bare})
    title = "sharding 64x64 images, one process"
    print(table(title, "images/s", rates, "unetflow (decoded, checked, digests, index)", "-"), flush=True)


def _cache() -> None:
    """A step from latents that the encode stage left, and one that encodes its own images and captions."""
    from unet_models.networks.clip import build_clip
    from unet_models.networks.tokenizer import train_tokenizer
    from unet_models.specs.encoders import AlignmentSpec

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = _spec(device)
    batch = _batch(spec, device)
    autoencoder = build_autoencoder(AutoencoderSpec(), 64).to(device).eval()
    aligned = AlignmentSpec(width=192, num_layers=3, num_tokens=TOKENS)
    tokenizer = train_tokenizer(["a cat", "a dog"], aligned.vocab_size, TOKENS)
    clip = build_clip(aligned, tokenizer, 64).to(device).eval()
    images = torch.rand(len(batch), 3, 64, 64, device=device) * 2 - 1
    tokens = torch.zeros(len(batch), TOKENS, dtype=torch.long, device=device)
    state = build_state(DenoisingUNet(spec.model), spec, device)
    state.model.train()
    objective = _objective(spec)

    def train(chosen: LatentBatch) -> int:
        train_step(state.model, state, objective, chosen, spec).item()
        return len(chosen)

    @torch.no_grad()
    def encode() -> tuple[Tensor, Tensor]:
        with autocast(spec.precision, device):
            states = clip.text_model(input_ids=tokens).last_hidden_state
            return autoencoder.encode(images).latent_dist.parameters.float(), states.float()

    def encoding() -> int:
        moments, states = encode()
        return train(LatentBatch(moments, states, batch.class_labels, batch.positions, batch.keys, 0))

    contenders = {"cached latents": lambda: train(batch), "encoding in the step": encoding}
    for step in contenders.values():
        step()
    rates = alternate(contenders, rounds=5)
    print(table(f"training images/s, {device.type}", "images/s", rates, "cached latents", "-"), flush=True)
