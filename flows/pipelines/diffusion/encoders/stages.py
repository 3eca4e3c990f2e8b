"""Stages ``train_clip`` and ``train_autoencoder``: shards -> the networks that encode captions and images.

Each leaves a folder as transformers and diffusers know it. A folder that the config names is checked and adopted where
it lies, by the digests of its files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from data_pipelines import storage
from data_pipelines.digests import file_digests
from data_pipelines.errors import UserError
from data_pipelines.shards.index import read_table
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.stages.shards import shards_uri
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.stage import Stage
from flows.training.stage import training_stage

if TYPE_CHECKING:
    from torch import nn

    from flows.training.task import TrainingTask

T = TypeVar("T")
CONFIG = "config.json"
MODEL_FILES = (".json", ".safetensors", ".txt")
"""Suffixes of what belongs to a network's folder; pickles do not."""


def clip_stage(config: DiffusionConfig, shards: Record) -> Stage:
    """Plan training a CLIP on the captions, or adopting the one that ``encode.clip`` names."""
    if config.encode.clip:
        from unet_models.formats.clip_folder import tokenizer_folder

        folder = Path(config.encode.clip)
        tokenizer = _look_at("encode.clip", folder, tokenizer_folder)
        return _adopt("train_clip", "encode.clip", dict.fromkeys([folder, tokenizer]))

    def open_task(attempt: Attempt) -> TrainingTask:
        from flows.pipelines.diffusion.encoders.clip_task import AlignmentTask
        from unet_models.networks.tokenizer import train_tokenizer

        index = read_table(shards.output("index"), columns=["caption", "split"]).to_pylist()
        captions = [row["caption"] for row in index if row["split"] == "train"]
        spec = config.train_clip
        tokenizer = train_tokenizer(captions, spec.vocab_size, spec.num_tokens)
        with tempfile.TemporaryDirectory(prefix="unetflow-tokenizer-") as folder:
            tokenizer.save_pretrained(folder)
            storage.copy_folder(folder, attempt.uri("folder"))
        return AlignmentTask(
            spec=spec,
            index_uri=shards.output("index"),
            shards_uri=shards_uri(shards),
            resolution=config.data.resolution,
            tokenizer_uri=attempt.uri("folder"),
        )

    def finish(attempt: Attempt) -> None:
        from unet_models.networks.clip import TrainableClip, build_clip
        from unet_models.networks.tokenizer import load_tokenizer
        from unet_models.formats.clip_folder import save_clip

        resolution = config.data.resolution
        with storage.local_folder(attempt.uri("folder")) as folder:
            tokenizer = load_tokenizer(folder)
        model = TrainableClip(build_clip(config.train_clip, tokenizer, resolution))
        _load_trained(attempt, model)
        _leave_folder(attempt, lambda folder: save_clip(folder, model.clip, tokenizer, resolution))

    return training_stage("train_clip", config, config.train_clip, (shards,), open_task, finish)


def autoencoder_stage(config: DiffusionConfig, shards: Record) -> Stage:
    """Plan training an autoencoder on the images, or adopting the one that ``encode.autoencoder`` names."""
    if config.encode.autoencoder:
        return _adopt("train_autoencoder", "encode.autoencoder", [Path(config.encode.autoencoder)])

    def open_task(attempt: Attempt) -> TrainingTask:
        from flows.pipelines.diffusion.encoders.autoencoder_task import AutoencoderTask

        return AutoencoderTask(
            spec=config.train_autoencoder,
            index_uri=shards.output("index"),
            shards_uri=shards_uri(shards),
            resolution=config.data.resolution,
        )

    def finish(attempt: Attempt) -> None:
        from unet_models.networks.autoencoder import TrainableAutoencoder

        model = TrainableAutoencoder.from_spec(config.train_autoencoder, config.data.resolution)
        _load_trained(attempt, model)
        _leave_folder(attempt, lambda folder: model.autoencoder.save_pretrained(str(folder)))

    return training_stage("train_autoencoder", config, config.train_autoencoder, (shards,), open_task, finish)


def check_given(config: DiffusionConfig) -> None:
    """Raise UserError where a network or file that the config names does not fit, before anything is computed."""
    weights = config.evaluate.inception_weights
    if weights and not Path(weights).is_file():
        raise UserError(f"evaluate.inception_weights: {weights} is not a file; leave it out, or name the FID's weights")
    if config.encode.clip:
        _check_clip(config)
    if config.encode.autoencoder:
        _check_autoencoder(config)


def _check_clip(config: DiffusionConfig) -> None:
    from unet_models.formats.clip_folder import read_config

    folder, wanted = config.encode.clip, config.train.model.context_dim
    found = _look_at("encode.clip", Path(folder), read_config)
    width = found.get("text_config", found).get("hidden_size")
    if width != wanted:
        raise UserError(f"train.model.context_dim is {wanted}, the states of encode.clip are {width} wide")
    if found.get("model_type") != "clip" and not config.evaluate.inception_weights:
        raise UserError(
            f"encode.clip: {folder} has no image tower, so there is nothing to compare images by; name a "
            "folder of the whole CLIP, or the FID's weights as evaluate.inception_weights"
        )


def _check_autoencoder(config: DiffusionConfig) -> None:
    from unet_models.formats.clip_folder import read_config

    model = config.train.model
    found = _look_at("encode.autoencoder", Path(config.encode.autoencoder), read_config)
    channels, factor = found.get("latent_channels", 4), 2 ** (len(found.get("block_out_channels", [0])) - 1)
    if {model.in_channels, model.out_channels} != {channels}:
        raise UserError(
            f"train.model.in_channels and out_channels are {model.in_channels} and {model.out_channels}, "
            f"the latents of encode.autoencoder have {channels} channels"
        )
    try:
        config.require_sides(factor, "encode.autoencoder")
    except ValueError as error:
        raise UserError(str(error)) from None


def network_folder(record: Record) -> str:
    """URI of the network's folder."""
    return record.output(CONFIG).rsplit("/", 1)[0]


def _adopt(stage: str, field: str, folders: list[Path] | dict[Path, None]) -> Stage:
    """A stage whose outputs are the files that lie in ``folders``, the network's own first."""
    files = {
        path.name: path
        for folder in reversed(list(folders))
        for path in sorted(folder.glob("*"))
        if path.is_file() and path.suffix in MODEL_FILES
    }
    if CONFIG not in files or not {"model.safetensors", "diffusion_pytorch_model.safetensors"} & files.keys():
        raise UserError(
            f"{field}: {next(iter(folders))} must hold {CONFIG} and the weights in one .safetensors file, as "
            f"save_pretrained writes them; found {sorted(files) or 'nothing'}"
        )
    digests = file_digests(files.values())

    def compute(attempt: Attempt) -> None:
        for name, path in files.items():
            attempt.add(name, str(path.absolute()))

    return Stage(stage, {"adopted": {name: digests[path] for name, path in files.items()}}, (), compute)


def _look_at(field: str, folder: Path, look: Callable[[Path], T]) -> T:
    """What ``look`` finds in the folder that ``field`` of the config names. Raises UserError where it finds fault."""
    try:
        return look(folder)
    except ValueError as error:
        raise UserError(f"{field}: {error}") from None


def _load_trained(attempt: Attempt, model: nn.Module) -> None:
    from safetensors.torch import load_file

    with storage.local_file(attempt.output("weights")) as path:
        model.load_state_dict(load_file(path))


def _leave_folder(attempt: Attempt, save: Callable[[Path], None]) -> None:
    """Write a network's folder beside the checkpoint and declare its files."""
    with tempfile.TemporaryDirectory(prefix="unetflow-network-") as name:
        save(Path(name))
        storage.copy_folder(name, attempt.uri("folder"))
        for path in sorted(Path(name).iterdir()):
            attempt.add(path.name, attempt.uri("folder", path.name))
