"""Encoders given as folders: checked before anything is computed, and adopted where they lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from data_pipelines import storage
from data_pipelines.digests import digest_of, file_digests
from data_pipelines.errors import ConfigError, WeightsError, name_some
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.stages.attempt import Attempt
from flows.stages.record import Figures, Record
from flows.stages.stage import Stage

T = TypeVar("T")
NETWORK_CONFIG = "config.json"
MODEL_SUFFIXES = (".json", ".safetensors", ".txt")
"""Suffixes of the files that belong to a network's folder; pickles do not."""
WEIGHT_NAMES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
WEIGHT_FILES = {f"{name}{suffix}" for name in WEIGHT_NAMES for suffix in ("", ".index.json")}
"""Weights in one file, or the index of those in several."""
CHECK = 1
"""Raised when checks of given networks become stricter: what passed before is checked again."""


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
        _check_clip_config(config)
    if config.encode.autoencoder:
        _check_autoencoder_config(config)
    if config.encode.clip:
        _check_once("encode.clip", clip_folders(config), _load_clip)
    if config.encode.autoencoder:
        _check_once("encode.autoencoder", [Path(config.encode.autoencoder)], _load_autoencoder)


def adopt(stage: str, field: str, folders: Sequence[Path]) -> Stage[AdoptedFigures]:
    """Plan a stage whose outputs are the files in ``folders``, the network's own folder first.

    Raises WeightsError where configuration or weights are missing.
    """
    files = _network_files(field, folders)
    digests = file_digests(files.values())

    def compute(attempt: Attempt) -> AdoptedFigures:
        for name, path in files.items():
            attempt.add(name, str(path.absolute()))
        return AdoptedFigures(folder=str(folders[0].absolute()))

    identity = {"adopted": {name: digests[path] for name, path in files.items()}}
    return Stage(stage, identity, (), compute, AdoptedFigures)


def clip_folders(config: DiffusionConfig) -> list[Path]:
    """Return the folder of the given CLIP and, where it is another, that of its tokenizer."""
    from unet_models.formats.clip_config import tokenizer_folder

    folder = Path(config.encode.clip)
    return list(dict.fromkeys([folder, _named("encode.clip", folder, tokenizer_folder)]))


def network_folder(record: Record[Figures]) -> str:
    """Return the URI of a trained or adopted network's folder."""
    return record.output(NETWORK_CONFIG).rsplit("/", 1)[0]


def network_digest(record: Record[Figures]) -> str:
    """Compute the digest of a network's weights and tokenizer: the same for one trained here and a copy of it."""
    digests = {name: output.sha256 for name, output in record.outputs.items() if _is_weights_or_tokenizer(name)}
    return digest_of(digests)


def _is_weights_or_tokenizer(name: str) -> bool:
    return name.endswith(".safetensors") or name in ("vocab.json", "merges.txt", "tokenizer.json")


def _network_files(field: str, folders: Sequence[Path]) -> dict[str, Path]:
    """List the files of a network by name. Raises WeightsError where configuration or weights are missing."""
    files = {
        path.name: path
        for folder in reversed(folders)
        for path in sorted(folder.glob("*"))
        if path.is_file() and path.suffix in MODEL_SUFFIXES
    }
    if NETWORK_CONFIG not in files or not WEIGHT_FILES & files.keys():
        raise WeightsError(
            f"{field}: {folders[0]} must hold {NETWORK_CONFIG} and the weights as .safetensors, as save_pretrained "
            f"writes them ({' or '.join(WEIGHT_NAMES)}); found {_found(folders[0])}. Pickles (.bin, .pt) are not read: "
            "load the network and write it by save_pretrained"
        )
    return files


def _found(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*"))
    return name_some(names, 12) or "nothing"


def _check_once(field: str, folders: Sequence[Path], load: Callable[[Path], object]) -> None:
    """Load a network completely, as every later stage does; what passed is remembered by the digests of its files.

    Raises WeightsError where it cannot be used.
    """
    files = _network_files(field, folders)
    digests = file_digests(files.values())
    identity = [CHECK, field, version("transformers"), version("diffusers")]
    key = digest_of([*identity, {name: digests[path] for name, path in files.items()}])
    passed = storage.cache_folder() / "checked_networks" / key
    if not passed.is_file():
        _named(field, folders[0], load)
        storage.write_bytes(str(passed), str(folders[0].absolute()).encode())


def _load_clip(folder: Path) -> object:
    from unet_models.formats.clip_folder import Clip

    return Clip(folder)


def _load_autoencoder(folder: Path) -> object:
    from unet_models.networks.autoencoder import load_autoencoder

    return load_autoencoder(folder)


def _check_clip_config(config: DiffusionConfig) -> None:
    from unet_models.formats.clip_config import has_images, read_clip_config, text_config

    folder, wanted = config.encode.clip, config.train.model.context_dim
    found = _named("encode.clip", Path(folder), read_clip_config)
    width = text_config(found).hidden_size
    if wanted not in (None, width):  # without text, the CLIP is what images are compared by
        raise ConfigError(f"train.model.context_dim is {wanted}, the states of encode.clip are {width} wide")
    if not has_images(found) and not config.evaluate.inception_weights:
        raise ConfigError(
            f"encode.clip: {folder} has no image tower, so there is nothing to compare images by; name a "
            "folder of the whole CLIP, or the FID's weights as evaluate.inception_weights"
        )


def _check_autoencoder_config(config: DiffusionConfig) -> None:
    from unet_models.networks.autoencoder import downsampling_factor, read_autoencoder_config

    model = config.train.model
    found = _named("encode.autoencoder", Path(config.encode.autoencoder), read_autoencoder_config)
    channels, factor = found.get("latent_channels", 4), downsampling_factor(found)
    if model.out_channels != channels:  # those that go in are checked beside it: an image may be among them
        raise ConfigError(
            f"train.model.out_channels is {model.out_channels}, the latents of encode.autoencoder have {channels} "
            "channels"
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
