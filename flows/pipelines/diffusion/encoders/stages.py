"""Stages ``train_clip`` and ``train_autoencoder``: shards to the networks that encode captions and images.

Each leaves a folder as transformers and diffusers write it. A folder that the configuration names is adopted where it
lies, by the digests of its files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines import storage
from data_pipelines.shards.index import read_table
from data_pipelines.temporary import temporary_folder
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.encoders.given import AdoptedFigures, adopt, clip_folders
from flows.sharding.images import ImageShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.shards import shards_uri
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from flows.training.stage import training_stage

if TYPE_CHECKING:
    from torch import nn

    from flows.training.task import TrainingTask

FOLDER = "folder"
"""Folder of the network in the attempt."""


def clip_stage(
    config: DiffusionConfig, shards: Record[ImageShardFigures]
) -> Stage[TrainingFigures] | Stage[AdoptedFigures]:
    """Plan training a CLIP on the captions, or adopting the one that ``encode.clip`` names."""
    if config.encode.clip:
        return adopt("train_clip", "encode.clip", clip_folders(config))
    spec, resolution = config.train_clip, config.data.resolution

    def build_task(attempt: Attempt) -> TrainingTask:
        from flows.pipelines.diffusion.encoders.clip_task import ClipTask
        from unet_models.networks.tokenizer import train_tokenizer

        index = read_table(shards.output("index"), columns=["captions", "split"]).to_pylist()
        captions = [caption for row in index if row["split"] == "train" for caption in row["captions"]]
        tokenizer = train_tokenizer(captions, spec.vocab_size, spec.num_tokens)
        with temporary_folder("tokenizer") as folder:
            tokenizer.save_pretrained(folder)
            storage.copy_folder(str(folder), attempt.uri(FOLDER))
        return ClipTask(
            spec=spec,
            index_uri=shards.output("index"),
            shards_uri=shards_uri(shards),
            resolution=resolution,
            tokenizer_uri=attempt.uri(FOLDER),
        )

    def finish(attempt: Attempt) -> None:
        from unet_models.formats.clip_folder import save_clip
        from unet_models.networks.clip import TrainableClip, build_clip
        from unet_models.networks.tokenizer import load_tokenizer

        with storage.local_folder(attempt.uri(FOLDER)) as folder:
            tokenizer = load_tokenizer(folder)
        model = TrainableClip(build_clip(spec, tokenizer, resolution))
        _load_weights(attempt, model)
        _write_folder(attempt, lambda folder: save_clip(folder, model.clip, tokenizer, resolution))

    return training_stage("train_clip", config, spec, (shards,), build_task, finish)


def autoencoder_stage(
    config: DiffusionConfig, shards: Record[ImageShardFigures]
) -> Stage[TrainingFigures] | Stage[AdoptedFigures]:
    """Plan training an autoencoder on the images, or adopting the one that ``encode.autoencoder`` names."""
    if config.encode.autoencoder:
        return adopt("train_autoencoder", "encode.autoencoder", [Path(config.encode.autoencoder)])
    spec, resolution = config.train_autoencoder, config.data.resolution

    def build_task(attempt: Attempt) -> TrainingTask:
        from flows.pipelines.diffusion.encoders.autoencoder_task import AutoencoderTask

        return AutoencoderTask(
            spec=spec, index_uri=shards.output("index"), shards_uri=shards_uri(shards), resolution=resolution
        )

    def finish(attempt: Attempt) -> None:
        from unet_models.networks.autoencoder import TrainableAutoencoder

        model = TrainableAutoencoder.from_spec(spec, resolution)
        _load_weights(attempt, model)
        _write_folder(attempt, lambda folder: model.autoencoder.save_pretrained(str(folder)))

    return training_stage("train_autoencoder", config, spec, (shards,), build_task, finish)


def _load_weights(attempt: Attempt, model: nn.Module) -> None:
    from safetensors.torch import load_file

    with storage.local_file(attempt.output("weights")) as path:
        model.load_state_dict(load_file(path))


def _write_folder(attempt: Attempt, save: Callable[[Path], None]) -> None:
    """Write a network's folder beside the checkpoint and declare its files as outputs."""
    with temporary_folder("network") as folder:
        save(folder)
        storage.copy_folder(str(folder), attempt.uri(FOLDER))
        for path in sorted(folder.iterdir()):
            attempt.add(path.name, attempt.uri(FOLDER, path.name))
