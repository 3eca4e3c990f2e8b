"""Checkpoints: safetensors beside one JSON file that is written last and vouches for the rest.

    checkpoint.json        step, configuration, and name, size and SHA-256 of each other file: the completion marker
    model.safetensors      the weights to evaluate (the average, where there is one)
    training.safetensors   what resuming needs besides: optimizer moments, and the raw weights under an average

A copy that broke off has no marker, or one whose files do not match: ``verify`` tells.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unet_models.training.state import TrainState

MARKER = "checkpoint.json"
MODEL = "model.safetensors"
TRAINING = "training.safetensors"


def save_checkpoint(folder: Path, state: TrainState, metadata: dict[str, Any]) -> None:
    """Write ``state`` after its last finished step; ``metadata`` (JSON) goes into the marker."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = state.model.state_dict()
    training = _optimizer_tensors(state)
    if state.ema is not None:
        training |= {f"raw/{name}": tensor for name, tensor in weights.items()}
        weights = state.ema.tensors
    # Contiguous copies: channels-last weights are stored in the order everybody expects.
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / MODEL, metadata={"format": "pt"})
    save_file({k: v.contiguous() for k, v in training.items()}, folder / TRAINING, metadata={"format": "pt"})
    files = {name: _describe(folder / name) for name in (MODEL, TRAINING)}
    marker = {"format": 1, "step": state.step, "files": files, **metadata}
    temporary = folder / (MARKER + ".partial")
    temporary.write_text(json.dumps(marker, indent=1))
    temporary.rename(folder / MARKER)


def verify(folder: Path) -> dict[str, Any] | None:
    """The marker of a complete checkpoint; None where it is absent, unreadable or a file does not match."""
    try:
        marker = json.loads((folder / MARKER).read_text())
        intact = all(_describe(folder / name) == marker["files"][name] for name in (MODEL, TRAINING))
    except (OSError, ValueError, KeyError, TypeError):  # TypeError: JSON of another shape
        return None
    return marker if intact else None


def load_checkpoint(folder: Path, state: TrainState) -> None:
    """Put a verified checkpoint's tensors and step into ``state``."""
    marker = verify(folder)
    if marker is None:
        raise ValueError(f"{folder}: not a complete checkpoint; remove it, an earlier one will be used")
    weights = load_file(folder / MODEL)
    training = load_file(folder / TRAINING)
    if state.ema is not None:
        state.ema.load(weights)
        weights = {k.removeprefix("raw/"): v for k, v in training.items() if k.startswith("raw/")}
    state.model.load_state_dict(weights)
    device = next(state.model.parameters()).device
    for name, parameter in state.model.named_parameters():
        prefix = f"optimizer/{name}/"
        slots = {k.removeprefix(prefix): v for k, v in training.items() if k.startswith(prefix)}
        if slots:  # moments follow their parameter's memory format, so that fused steps stay bit-identical
            state.optimizer.state[parameter] = {
                slot: value if slot == "step" and device.type == "cpu" else _like(value, parameter)
                for slot, value in slots.items()
            }
    state.step = marker["step"]


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights to evaluate, on the CPU."""
    return load_file(folder / MODEL)


def _optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    return {
        f"optimizer/{name}/{slot}": value
        for name, parameter in state.model.named_parameters()
        for slot, value in state.optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value.to(parameter.device)


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
