"""Configurations and records of the diffusion pipeline that need no training."""

from __future__ import annotations

from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.encode import LatentFigures
from flows.sharding.images import ImageShardFigures

SHARDS = ImageShardFigures(
    num_train=20,
    num_val=5,
    num_new=25,
    shards="images/a",
    shard_sizes={},
    dataset="shapes",
    num_quarantined=0,
    left_out={},
    buckets={"32x32": 20},
    resolution=32,
)

LATENTS = LatentFigures(
    num_train=20,
    num_val=5,
    num_new=25,
    shards="latents/a",
    shard_sizes={},
    scaling_factor=0.5,
    latent_shape=(4, 8, 8),
    caption_tokens=16,
    num_cut_captions=0,
)


def diffusion_config(**changes: object) -> DiffusionConfig:
    """Build a valid configuration of small networks on generated shapes."""
    train = {"model": {"context_dim": 128, "channels": (32, 64), "attention_levels": (False, True)}}
    loops = {name: {"global_batch_size": 12} for name in ("train_clip", "train_autoencoder")}
    fixed = {"data": {"layout": "shapes"}, "train": {**train, "global_batch_size": 12}, **loops}
    return DiffusionConfig.model_validate(fixed | changes)
