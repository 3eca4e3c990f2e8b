"""Stages ``train_clip`` and ``train_autoencoder``: shards -> the networks that encode captions and images.

Each leaves a folder as transformers and diffusers know it. A folder that the config names is checked and adopted where
it lies, by the digests of its files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines import storage
from data_pipelines.digests import file_digests
from data_pipelines.errors import UserError
from data_pipelines.shards import read_table
from flows.config import DiffusionConfig
from flows.sharded import shards_uri
from flows.stages import Attempt, Record, Stage
from flows.training.stage import training_stage

if TYPE_CHECKING:
    from flows.training.task import TrainingTask

CONFIG = "config.json"
MODEL_FILES = (".json", ".safetensors", ".txt")
"""Suffixes of what belongs to a network's folder; pickles do not."""


def clip_stage(config: DiffusionConfig, shards: Record) -> Stage:
    """Plan training a CLIP on the captions, or adopting the one that ``encode.clip`` names."""
    if config.encode.clip:
        from unet_models.clip_folder import read_config, tokenizer_folder

        folder = Path(config.encode.clip).expanduser()
        tokenizer = _or_user_error("encode.clip", lambda: tokenizer_folder(folder))
        if read_config(folder).get("model_type") != "clip" and not config.evaluate.inception_weights:
            raise UserError(
                f"encode.clip: {folder} has no image tower, so there is nothing to compare images by; name a folder "
                "of the whole CLIP, or the FID's weights as evaluate.inception_weights"
            )
        return _adopt("train_clip", "encode.clip", dict.fromkeys([folder, tokenizer]))

    def open_task(attempt: Attempt) -> TrainingTask:
        from flows.training.alignment import AlignmentTask
        from unet_models.alignment import train_tokenizer

        index = read_table(shards.output("index"))
        captions = index.filter(_is_train(index))["caption"].to_pylist()
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
        from unet_models.alignment import TrainableClip, build_clip, load_tokenizer
        from unet_models.clip_folder import save_clip

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
        return _adopt("train_autoencoder", "encode.autoencoder", [Path(config.encode.autoencoder).expanduser()])

    def open_task(attempt: Attempt) -> TrainingTask:
        from flows.training.autoencoder import AutoencoderTask

        return AutoencoderTask(
            spec=config.train_autoencoder,
            index_uri=shards.output("index"),
            shards_uri=shards_uri(shards),
            resolution=config.data.resolution,
        )

    def finish(attempt: Attempt) -> None:
        from unet_models.autoencoder import TrainableAutoencoder, build_autoencoder

        model = TrainableAutoencoder(build_autoencoder(config.train_autoencoder, config.data.resolution))
        _load_trained(attempt, model)
        _leave_folder(attempt, lambda folder: model.autoencoder.save_pretrained(str(folder)))

    return training_stage("train_autoencoder", config, config.train_autoencoder, (shards,), open_task, finish)


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
    if CONFIG not in files or not any(path.suffix == ".safetensors" for path in files.values()):
        raise UserError(
            f"{field}: {next(iter(folders))} must hold {CONFIG} and the weights as .safetensors, as save_pretrained "
            f"writes them; found {sorted(files) or 'nothing'}"
        )
    digests = file_digests(files.values())

    def compute(attempt: Attempt) -> None:
        for name, path in files.items():
            attempt.add(name, str(path.absolute()))

    return Stage(stage, {"adopted": {name: digests[path] for name, path in files.items()}}, (), compute)


def _or_user_error(field: str, call: Callable[[], Path]) -> Path:
    try:
        return call()
    except ValueError as error:
        raise UserError(f"{field}: {error}") from None


def _load_trained(attempt: Attempt, model: object) -> None:
    from safetensors.torch import load_file

    with storage.local_folder(storage.join(attempt.stage_uri, attempt.outputs["weights"].uri).rsplit("/", 1)[0]) as at:
        model.load_state_dict(load_file(at / "model.safetensors"))  # type: ignore[attr-defined]


def _leave_folder(attempt: Attempt, save: Callable[[Path], None]) -> None:
    """Write a network's folder beside the checkpoint and declare its files."""
    with tempfile.TemporaryDirectory(prefix="unetflow-network-") as name:
        save(Path(name))
        storage.copy_folder(name, attempt.uri("folder"))
        for path in sorted(Path(name).iterdir()):
            attempt.add(path.name, attempt.uri("folder", path.name))


def _is_train(index: object) -> object:
    import pyarrow.compute as pc

    return pc.equal(index["split"], "train")  # type: ignore[index]
