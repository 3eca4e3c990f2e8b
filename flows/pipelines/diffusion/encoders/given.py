"""Encoders given as folders: checked before anything is computed, and adopted where they lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from data_pipelines.digests import file_digests
from data_pipelines.errors import ConfigError, WeightsError
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.stages.attempt import Attempt
from flows.stages.record import Figures, Record
from flows.stages.stage import Stage

T = TypeVar("T")
NETWORK_CONFIG = "config.json"
MODEL_SUFFIXES = (".json", ".safetensors", ".txt")
"""Suffixes of the files that belong to a network's folder; pickles do not."""
WEIGHT_FILES = {"model.safetensors", "diffusion_pytorch_model.safetensors"}


class AdoptedFigures(Figures):
    """Figures of a given network."""

    folder: str
    """Folder of the network."""


def check_given_networks(config: DiffusionConfig) -> None:
    """Raise UserError where a network or file that the configuration names does not fit."""
    weights = config.evaluate.inception_weights
    if weights and not Path(weights).is_file():
        raise ConfigError(
            f"evaluate.inception_weights: {weights} is not a file; leave it out, or name the FID's weights"
        )
    if config.encode.clip:
        _check_clip(config)
    if config.encode.autoencoder:
        _check_autoencoder(config)


def adopt(stage: str, field: str, folders: Sequence[Path]) -> Stage[AdoptedFigures]:
    """Plan a stage whose outputs are the files in ``folders``, the network's own folder first.

    Raises WeightsError where configuration or weights are missing.
    """
    files = {
        path.name: path
        for folder in reversed(folders)
        for path in sorted(folder.glob("*"))
        if path.is_file() and path.suffix in MODEL_SUFFIXES
    }
    if NETWORK_CONFIG not in files or not WEIGHT_FILES & files.keys():
        raise WeightsError(
            f"{field}: {folders[0]} must hold {NETWORK_CONFIG} and the weights in one .safetensors file, as "
            f"save_pretrained writes them; found {sorted(files) or 'nothing'}"
        )
    digests = file_digests(files.values())

    def compute(attempt: Attempt) -> AdoptedFigures:
        for name, path in files.items():
            attempt.add(name, str(path.absolute()))
        return AdoptedFigures(folder=str(folders[0].absolute()))

    identity = {"adopted": {name: digests[path] for name, path in files.items()}}
    return Stage(stage, identity, (), compute, AdoptedFigures)


def clip_folders(config: DiffusionConfig) -> list[Path]:
    """Return the folder of the given CLIP and, where it is another, that of its tokenizer."""
    from unet_models.formats.clip_folder import tokenizer_folder

    folder = Path(config.encode.clip)
    return list(dict.fromkeys([folder, _named("encode.clip", folder, tokenizer_folder)]))


def network_folder(record: Record[Figures]) -> str:
    """Return the URI of a trained or adopted network's folder."""
    return record.output(NETWORK_CONFIG).rsplit("/", 1)[0]


def _check_clip(config: DiffusionConfig) -> None:
    from unet_models.formats.clip_folder import read_config

    folder, wanted = config.encode.clip, config.train.model.context_dim
    found = _named("encode.clip", Path(folder), read_config)
    width = found.get("text_config", found).get("hidden_size")
    if width != wanted:
        raise ConfigError(f"train.model.context_dim is {wanted}, the states of encode.clip are {width} wide")
    if found.get("model_type") != "clip" and not config.evaluate.inception_weights:
        raise ConfigError(
            f"encode.clip: {folder} has no image tower, so there is nothing to compare images by; name a "
            "folder of the whole CLIP, or the FID's weights as evaluate.inception_weights"
        )


def _check_autoencoder(config: DiffusionConfig) -> None:
    from unet_models.formats.clip_folder import read_config

    model = config.train.model
    found = _named("encode.autoencoder", Path(config.encode.autoencoder), read_config)
    channels, factor = found.get("latent_channels", 4), 2 ** (len(found.get("block_out_channels", [0])) - 1)
    if {model.in_channels, model.out_channels} != {channels}:
        raise ConfigError(
            f"train.model.in_channels and out_channels are {model.in_channels} and {model.out_channels}, "
            f"the latents of encode.autoencoder have {channels} channels"
        )
    try:
        config.check_sides(factor, "encode.autoencoder")
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _named(field: str, folder: Path, read: Callable[[Path], T]) -> T:
    """Read the folder that ``field`` of the configuration names; a WeightsError is told with the field."""
    try:
        return read(folder)
    except WeightsError as error:
        raise WeightsError(f"{field}: {error}") from None
