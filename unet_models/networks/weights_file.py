"""A safetensors file of weights, checked where it enters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from data_pipelines.errors import WeightsError, name_some

NUM_NAMED = 3
"""Weights that a message names."""


def read_weights_file(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file. Raises WeightsError where it is no complete safetensors file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a complete safetensors file: {error}; copy it again") from None


def check_finite(where: str | Path, weights: Mapping[str, Tensor]) -> None:
    """Raise WeightsError where a weight is NaN or infinite."""
    names = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if names:
        raise WeightsError(
            f"{where}: {len(names)} weights hold NaN or infinity: {some_names(names)}; copy the weights again, or "
            "convert the network without overflow"
        )


def some_names(names: Iterable[str]) -> str:
    """Name the first of some weights."""
    return name_some(list(names), NUM_NAMED)
