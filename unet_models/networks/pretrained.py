"""Loading a folder of transformers or diffusers completely, or not at all.

``from_pretrained`` fills a weight that the folder lacks with random numbers and only warns. Here every weight comes
from the folder, in float32 and finite; anything else is an error that names the weights.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from data_pipelines.errors import WeightsError
from unet_models.networks.weights_file import check_finite, some_names

logger = logging.getLogger(__name__)

INDEX_SUFFIX = ".index.json"
"""Ends the name of the index of weights that are spread over several files."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
"""Suffixes of weights that are not read."""


class LoadingInfo(NamedTuple):
    """Differences between a folder's weights and those of the network, by name."""

    missing: list[str]
    mismatched: list[str]
    unexpected: list[str]


def load_pretrained(network: Any, folder: Path, weights: str) -> Any:
    """Load a network of a class of transformers or diffusers, in evaluation mode and without gradients.

    Every weight is in float32; ``weights`` is the name of their file.

    Raises WeightsError where the file is absent, cannot be read, lacks a weight of the network, has one of another
    shape, or one that is not finite. Weights that the network does not have are ignored, with a warning.
    """
    find_weights(folder, weights)
    try:
        with quiet_libraries():
            loaded, info = network.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,  # else weights of half precision stay so
                ignore_mismatched_sizes=True,  # they are listed, and refused below
                output_loading_info=True,
            )
    except Exception as error:  # the libraries raise anything on a damaged folder, down to KeyError
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"{folder}: the weights cannot be loaded ({type(error).__name__}: {reason:.300}); copy the folder again, "
            "or name the folder of such a network"
        ) from error
    check_loaded(folder, _read_info(info))
    loaded = loaded.float().eval().requires_grad_(False)
    check_finite(folder, loaded.state_dict())
    return loaded


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep transformers and diffusers from writing what is reported here by name, and progress bars of milliseconds."""
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    levels = [each.level for each in loggers]
    had_bars = transformers_logging.is_progress_bar_enabled()
    try:
        transformers_logging.disable_progress_bar()
        for each in loggers:
            each.setLevel(logging.CRITICAL)
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        if had_bars:
            transformers_logging.enable_progress_bar()


def find_weights(folder: Path, weights: str) -> list[Path]:
    """Return the files of the weights: one, or an index and its parts. Raises WeightsError where there are none."""
    if (folder / weights).is_file():
        return [folder / weights]
    index = folder / f"{weights}{INDEX_SUFFIX}"
    if index.is_file():
        return [index, *sorted(folder.glob(f"{Path(weights).stem}-*-of-*.safetensors"))]
    found = sorted(path.name for path in folder.glob("*") if path.suffix in (*PICKLES, ".safetensors"))
    raise WeightsError(f"{folder}: has no {weights}, found {found or 'no weights'}; {_remedy(found, weights)}")


def check_loaded(folder: Path, info: LoadingInfo) -> None:
    """Raise WeightsError where weights are missing or of another shape; warn of those that are not used."""
    for problem, names in (("missing", info.missing), ("of another shape", info.mismatched)):
        if names:
            unused = f"; not used: {some_names(info.unexpected)}" if info.unexpected else ""
            raise WeightsError(
                f"{folder}: {len(names)} weights of the network are {problem}: {some_names(names)}{unused}; give the "
                "complete folder of one network, its weights under the names that save_pretrained writes"
            )
    if info.unexpected:
        logger.warning(
            "%s: %d weights are not part of the network and not used: %s",
            folder,
            len(info.unexpected),
            some_names(info.unexpected),
        )


def _read_info(info: dict[str, Any]) -> LoadingInfo:
    """Read what the libraries report; a mismatch is a tuple of the name and both shapes."""
    mismatched = [_describe_mismatch(entry) for entry in info["mismatched_keys"]]
    return LoadingInfo(sorted(info["missing_keys"]), sorted(mismatched), sorted(info["unexpected_keys"]))


def _describe_mismatch(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    name, got, expected = entry
    return f"{name} ({list(got)} instead of {list(expected)})"


def _remedy(found: Collection[str], weights: str) -> str:
    variants = [name for name in found if name.endswith(".safetensors")]
    if len(variants) == 1:
        return f"rename {variants[0]} to {weights}, if it holds this network's weights"
    if variants:
        return f"give the weights the name {weights}"
    return "pickles are not read: load the network and write it by save_pretrained, which makes .safetensors"
