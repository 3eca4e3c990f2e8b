"""Checkpoints of nnU-Net 2: read without running what is pickled in them, with weights under the names of ours."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipelines.errors import WeightsError

Weights = dict[str, Tensor]

_NUMPY: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]  # of NumPy 1
]
"""Types of the numbers of nnU-Net's training log, beside tensors and plain containers all that a checkpoint holds."""
_RENAMED = (
    (r"^(module|_orig_mod)\.", ""),
    (r"^encoder\.stem\.convs\.0\.", "encoder.stem."),
    (r"^encoder\.stages\.(\d+)\.0\.convs\.", r"encoder.stages.\1.convs."),
    (r"^encoder\.stages\.(\d+)\.blocks\.", r"encoder.stages.\1."),
    (r"\.conv2\.conv\.", ".conv2."),
    (r"\.conv2\.norm\.", ".norm2."),
    (r"^decoder\.transpconvs\.(\d+)\.", r"decoder.upsamples.\1.conv."),
    (r"^decoder\.seg_layers\.", "decoder.heads."),
)
_SHORTCUT = re.compile(r"\.skip\.(\d+)\.(conv|norm)\.")
_JOINS = re.compile(r"decoder\.stages\.\d+\.convs\.0\.conv\.weight")
"""Convolutions of skip and upsampled features side by side."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Contents of a checkpoint that prediction needs."""

    weights: Weights
    """Name in nnU-Net's network to tensor."""
    configuration: str
    """Configuration of the plans that was trained, such as ``3d_fullres``."""
    mirror_axes: tuple[int, ...]
    """Axes that prediction may mirror."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read ``checkpoint_final.pth``. Raises WeightsError where it is none, or holds other objects than numbers."""
    try:
        with torch.serialization.safe_globals(_NUMPY):
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        reason = _refused(str(error)) or " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path}: is refused as a checkpoint of nnU-Net: {reason}; give one that nnU-Net wrote"
        ) from None
    try:
        axes = held.get("inference_allowed_mirroring_axes") or ()
        found = Checkpoint(
            dict(held["network_weights"]), str(held["init_args"]["configuration"]), tuple(map(int, axes))
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: is no checkpoint of nnU-Net 2 ({type(error).__name__}: {error})") from None
    return found


def convert_weights(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> Weights:
    """Return the weights of a network of ours, ``ours`` being its own, from those of nnU-Net's.

    Raises WeightsError where names or shapes are of another architecture.
    """
    renamed = dict(_rename(theirs))
    if unlike := sorted(renamed.keys() ^ ours.keys()):
        raise WeightsError(
            f"these weights are of another architecture: {len(unlike)} names are on one side alone, such as {unlike[0]}"
        )
    for name, own in ours.items():
        if renamed[name].shape != own.shape:
            sizes = f"{list(renamed[name].shape)}, not {list(own.shape)}"
            raise WeightsError(f"these weights are of another architecture: {name} is {sizes}")
    return {name: renamed[name].float().contiguous() for name in ours}


def _rename(theirs: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in theirs.items():
        if ".all_modules." in name or "decoder.encoder." in name:
            continue  # the same tensor once more
        for pattern, new in _RENAMED:
            name = re.sub(pattern, new, name)
        name = _SHORTCUT.sub(lambda found: f".shortcut.{int(found[1]) + (found[2] == 'norm')}.", name)
        # The skip comes first in ours.
        yield name, torch.cat(tensor.chunk(2, dim=1)[::-1], dim=1) if _JOINS.fullmatch(name) else tensor


def _refused(message: str) -> str:
    """Say which object ``torch.load`` did not build; empty where it failed for another reason."""
    found = re.search(r"(?:GLOBAL|global) (\S+)", message)
    return f"it holds an object {found[1].rstrip('.,')}, which is not built: it may run code" if found else ""
