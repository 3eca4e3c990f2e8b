"""Checkpoints: safetensors files and one JSON file, the marker, which is written last and makes them valid.

    checkpoint.json        step, configuration, curves, and size and SHA-256 of each other file: the marker
    model.safetensors      weights to evaluate (the moving average, where there is one)
    training.safetensors   tensors needed to resume: optimizer moments, and the raw weights beside an average

An incomplete copy has no marker, or one that its files do not match; ``check_checkpoint`` detects both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import ConfigDict, JsonValue
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_pipelines.atomic import atomic_file
from data_pipelines.errors import WeightsError
from data_pipelines.specs import Spec
from unet_models.specs.loop import OptimizerSpec
from unet_models.training.muon import num_moments
from unet_models.training.state import TrainState

MARKER = "checkpoint.json"
MODEL = "model.safetensors"
TRAINING = "training.safetensors"
_NUM_MOMENTS: dict[str, Callable[[Tensor], int]] = {"adamw": lambda _: 2, "sgd": lambda _: 1, "muon": num_moments}
"""Counts the tensors of a parameter's size that each optimizer keeps."""


class FileDigest(Spec):
    """Size and digest of a file."""

    size: int
    """Size in bytes."""
    sha256: str
    """SHA-256 in hexadecimal."""

    @classmethod
    def of(cls, path: Path) -> FileDigest:
        """Compute size and digest of the file ``path``."""
        with path.open("rb") as stream:
            return cls(size=path.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


class CheckpointMarker(Spec):
    """Content of ``checkpoint.json``."""

    model_config = ConfigDict(ser_json_inf_nan="constants")  # a metric may be NaN, and must be read back as NaN

    format: Literal[1] = 1
    """Version of the checkpoint's format."""
    step: int
    """Finished optimizer steps."""
    files: dict[str, FileDigest]
    """Digests of the checkpoint's other files, by name."""
    spec: dict[str, JsonValue]
    """Configuration of the training, as JSON."""
    curves: list[dict[str, int | float]]
    """Logged metrics up to this step, oldest first; each entry holds its ``step``."""
    metrics: dict[str, int | float]
    """Metrics at this step, those of its validation included."""
    own_sha256: str = ""
    """SHA-256 of the other fields, see ``digest``; empty in checkpoints of earlier versions."""

    def digest(self) -> str:
        """Compute the SHA-256 of all fields but ``own_sha256``, as JSON."""
        return hashlib.sha256(self.model_dump_json(exclude={"own_sha256"}).encode()).hexdigest()


def save_checkpoint(
    folder: Path,
    state: TrainState,
    *,
    spec: Mapping[str, JsonValue],
    curves: Sequence[Mapping[str, float]],
    metrics: Mapping[str, float],
) -> None:
    """Write ``state`` after its last finished step to ``folder``; the other arguments go into the marker."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = state.model.state_dict()
    training = _optimizer_tensors(state)
    if state.ema is not None:
        training |= {f"raw/{name}": tensor for name, tensor in weights.items()}
        weights = state.ema.tensors
    # Contiguous copies: channels-last weights are stored in the order everybody expects. On the CPU: a GPU may be full.
    save_file({k: v.cpu().contiguous() for k, v in weights.items()}, folder / MODEL, metadata={"format": "pt"})
    save_file({k: v.cpu().contiguous() for k, v in training.items()}, folder / TRAINING, metadata={"format": "pt"})
    marker = CheckpointMarker(
        step=state.step,
        files={name: FileDigest.of(folder / name) for name in (MODEL, TRAINING)},
        spec=dict(spec),
        curves=[dict(entry) for entry in curves],
        metrics=dict(metrics),
    )
    marker = marker.model_copy(update={"own_sha256": marker.digest()})
    with atomic_file(folder / MARKER) as partial:
        partial.write_text(marker.model_dump_json(indent=1))


def estimate_bytes(state: TrainState, spec: OptimizerSpec) -> int:
    """Compute the size of a checkpoint's tensors, in bytes: weights, their average, and the optimizer's moments."""
    count = _NUM_MOMENTS[spec.name]
    moments = sum(each.nbytes * count(each) for each in state.model.parameters() if each.requires_grad)
    weights = sum(tensor.nbytes for tensor in state.model.state_dict().values())
    return weights * (2 if state.ema is not None else 1) + moments


def check_checkpoint(folder: Path) -> CheckpointMarker:
    """Read the marker of a complete checkpoint. Raises WeightsError, which says what is missing or damaged."""
    marker = _read_marker(folder)
    for name in (MODEL, TRAINING):
        if damage := _find_damage(folder / name, marker.files.get(name)):
            raise WeightsError(f"{name} {damage}")
    return marker


def load_checkpoint(folder: Path, state: TrainState) -> None:
    """Load the tensors and the step of a checkpoint into ``state``.

    Raises WeightsError where the checkpoint is incomplete.
    """
    try:
        marker = check_checkpoint(folder)
    except WeightsError as error:
        raise WeightsError(
            f"{folder}: not a complete checkpoint ({error}); remove it, an earlier one will be used"
        ) from None
    weights = load_file(folder / MODEL)
    training = load_file(folder / TRAINING)
    if state.ema is not None:
        state.ema.load(weights)
        weights = {k.removeprefix("raw/"): v for k, v in training.items() if k.startswith("raw/")}
    state.model.load_state_dict(weights)
    _load_optimizer(state, training)
    state.step = marker.step


def _read_marker(folder: Path) -> CheckpointMarker:
    try:
        marker = CheckpointMarker.model_validate_json((folder / MARKER).read_bytes())
    except FileNotFoundError:
        raise WeightsError(f"{MARKER} is missing: it was not completed") from None
    except OSError as error:
        raise WeightsError(f"{MARKER} cannot be read: {error.strerror}") from None
    except ValueError:  # pydantic's ValidationError
        raise WeightsError(f"{MARKER} is damaged, or of another format") from None
    if marker.own_sha256 not in ("", marker.digest()):
        raise WeightsError(f"{MARKER} is damaged: SHA-256 mismatch")
    return marker


def _find_damage(path: Path, expected: FileDigest | None) -> str:
    """Return what is wrong with a file of a checkpoint; empty where it is as its marker says."""
    if expected is None:
        return f"is not listed in {MARKER}"
    try:
        found = FileDigest.of(path)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if found.size != expected.size:
        return (
            f"{'is truncated' if found.size < expected.size else 'is too long'}: {found.size} of {expected.size} bytes"
        )
    return "" if found == expected else "is damaged: SHA-256 mismatch"


def _optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    return {
        f"optimizer/{name}/{moment}": value
        for name, parameter in state.model.named_parameters()
        for moment, value in state.optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def _load_optimizer(state: TrainState, training: Mapping[str, Tensor]) -> None:
    for name, parameter in state.model.named_parameters():
        prefix = f"optimizer/{name}/"
        moments = {k.removeprefix(prefix): v for k, v in training.items() if k.startswith(prefix)}
        if moments:  # moments follow their parameter's memory format, so that fused steps stay bit-identical
            state.optimizer.state[parameter] = {
                moment: value if moment == "step" and parameter.device.type == "cpu" else _like(value, parameter)
                for moment, value in moments.items()
            }


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value.to(parameter.device)
