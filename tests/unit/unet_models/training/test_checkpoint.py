"""Checkpoints: what is loaded is what was saved, bit for bit, and whatever is not whole is detected."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from data_pipelines.errors import WeightsError
from tests.support.training import CPU, tensors_of
from unet_models.networks.build import build_network
from unet_models.specs.loop import OptimizerSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import TrainSpec
from unet_models.training.checkpoint import (
    MARKER,
    MODEL,
    TRAINING,
    CheckpointMarker,
    check_checkpoint,
    estimate_bytes,
    load_checkpoint,
    save_checkpoint,
)
from unet_models.training.state import TrainState, build_state, evaluation_weights

NOTHING: dict[str, Any] = {"spec": {}, "curves": [], "metrics": {}}
"""Further content of a marker, for tests that do not read it."""


def spec_of(optimizer: str = "adamw", ema: float | None = 0.5, channels_last: bool = True, ndim: int = 2) -> TrainSpec:
    return TrainSpec(
        patch_size=(8,) * ndim,
        model=UNetSpec(channels=(3, 5), norm="batch"),  # batch norm has buffers, floating point and not
        optimizer=OptimizerSpec(name=optimizer, learning_rate=0.1),
        ema_decay=ema,
        channels_last=channels_last,
    )


def stepped(spec: TrainSpec, num_steps: int = 2, seed: int = 0) -> TrainState:
    """A state after some steps on noise, so that every tensor differs from its start and from its average."""
    torch.manual_seed(seed)
    state = build_state(build_network(spec.model, 2, 3, ndim=len(spec.patch_size)), spec, CPU)
    for _ in range(num_steps):
        state.model(torch.randn(2, 2, *spec.patch_size)).square().mean().backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.step += 1
        if state.ema is not None:
            state.ema.update(state.model, state.step)
    return state


def memory_order(tensor: Tensor) -> list[int]:
    """Strides of the axes that have more than one element."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(
        tmp_path,
        stepped(spec_of()),
        spec={"seed": 7, "augment": None},
        curves=[{"step": 2, "train/loss": 0.5}],
        metrics={"train/loss": 0.5, "val/dice": math.nan},
    )
    return tmp_path


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("ema", [None, 0.5])
@pytest.mark.parametrize(("channels_last", "ndim"), [(True, 2), (True, 3), (False, 3)])
def test_round_trip_is_bit_exact(
    tmp_path: Path, optimizer: str, ema: float | None, channels_last: bool, ndim: int
) -> None:
    spec = spec_of(optimizer, ema, channels_last, ndim)
    state = stepped(spec)
    save_checkpoint(tmp_path, state, **NOTHING)
    loaded = stepped(spec, num_steps=0, seed=9)
    load_checkpoint(tmp_path, loaded)
    assert loaded.step == 2
    want, got = tensors_of(state), tensors_of(loaded)
    assert want.keys() == got.keys()
    moments = {"adamw": ["exp_avg", "exp_avg_sq", "step"], "sgd": ["momentum_buffer"]}[optimizer]
    assert {name.rsplit("/", 1)[1] for name in want if "/" in name and "ema/" not in name} == set(moments)
    for name, tensor in want.items():
        assert torch.equal(got[name], tensor), name
        assert got[name].dtype == tensor.dtype, name
        assert memory_order(got[name]) == memory_order(tensor), name  # fused steps round by it


def test_loading_replaces_moments_that_are_there(tmp_path: Path, saved: Path) -> None:
    busy = stepped(spec_of(), num_steps=5, seed=3)
    load_checkpoint(saved, busy)
    want = tensors_of(stepped(spec_of()))
    assert all(torch.equal(tensor, want[name]) for name, tensor in tensors_of(busy).items())


def test_weights_to_evaluate_are_the_average_in_usual_memory_order(saved: Path) -> None:
    state = stepped(spec_of())
    assert state.ema is not None
    weights = load_file(saved / MODEL)
    assert weights.keys() == state.ema.tensors.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in state.ema.tensors.items())
    assert not torch.equal(weights["decoder.heads.0.weight"], state.model.state_dict()["decoder.heads.0.weight"])
    assert all(tensor.is_contiguous() for tensor in weights.values())
    with safe_open(saved / MODEL, "pt") as stream:
        assert stream.metadata() == {"format": "pt"}


def test_weights_to_evaluate_are_the_models_where_there_is_no_average(tmp_path: Path) -> None:
    state = stepped(spec_of(ema=None))
    save_checkpoint(tmp_path, state, **NOTHING)
    weights = load_file(tmp_path / MODEL)
    assert all(torch.equal(weights[name], tensor) for name, tensor in state.model.state_dict().items())


def test_evaluation_weights_lend_the_average_and_give_the_model_back() -> None:
    state = stepped(spec_of())
    assert state.ema is not None
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), evaluation_weights(state) as model:
        assert not model.training
        assert all(torch.equal(tensor, state.ema.tensors[name]) for name, tensor in model.state_dict().items())
        raise KeyboardInterrupt
    assert state.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.model.state_dict().items())


def test_marker_holds_step_and_description_and_nothing_else_is_left(saved: Path) -> None:
    marker = check_checkpoint(saved)
    assert marker.step == 2
    assert marker.spec == {"seed": 7, "augment": None}
    assert json.dumps(marker.curves) == '[{"step": 2, "train/loss": 0.5}]'  # a step stays a whole number
    assert marker.metrics["train/loss"] == 0.5
    assert math.isnan(marker.metrics["val/dice"])
    assert sorted(path.name for path in saved.iterdir()) == sorted([MARKER, MODEL, TRAINING])


def test_saving_again_over_an_older_one(saved: Path) -> None:
    state = stepped(spec_of(), num_steps=3)
    save_checkpoint(saved, state, **NOTHING)
    marker = check_checkpoint(saved)
    assert marker.step == 3


@pytest.mark.parametrize("name", [MODEL, TRAINING])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("truncated", r"is truncated: (\d+) of \d+ bytes"),
        ("one bit", "is damaged: SHA-256 mismatch"),
        ("missing", "is missing"),
        ("longer", r"is too long: \d+ of \d+ bytes"),
    ],
)
def test_damaged_tensors_are_found_out(saved: Path, name: str, damage: str, reason: str) -> None:
    path = saved / name
    data = bytearray(path.read_bytes())
    if damage == "one bit":
        data[-1] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes({"truncated": data[:-1], "one bit": data, "longer": data + b"\0"}[damage])
    with pytest.raises(WeightsError, match=f"not a complete checkpoint \\({name} {reason}"):
        load_checkpoint(saved, stepped(spec_of(), num_steps=0))


@pytest.mark.parametrize(
    "marker", [None, "", "{", "null", "[]", "{}", '{"files": {}}', '{"files": []}', '{"files": {"a": 1}}', "\udcff"]
)
def test_invalid_marker(saved: Path, marker: str | None) -> None:
    (saved / MARKER).unlink()
    if marker is not None:
        (saved / MARKER).write_bytes(marker.encode(errors="surrogateescape"))
    with pytest.raises(WeightsError):
        check_checkpoint(saved)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_size_is_known_before_anything_is_trained(tmp_path: Path, optimizer: str, ema: float | None) -> None:
    spec = spec_of(optimizer, ema)
    save_checkpoint(tmp_path, stepped(spec), **NOTHING)
    written = sum(
        tensor.nbytes
        for name in (MODEL, TRAINING)
        for key, tensor in load_file(tmp_path / name).items()
        if not key.endswith("/step")  # one number per parameter
    )
    assert estimate_bytes(stepped(spec, num_steps=0), spec.optimizer) == written


@pytest.mark.parametrize(
    ("marker", "reason"),
    [
        (None, "checkpoint.json is missing: it was not completed"),
        ("{", "checkpoint.json is damaged, or of another format"),
        ('{"format": 2}', "checkpoint.json is damaged, or of another format"),
    ],
)
def test_an_invalid_marker_is_told(saved: Path, marker: str | None, reason: str) -> None:
    (saved / MARKER).unlink()
    if marker is not None:
        (saved / MARKER).write_text(marker)
    with pytest.raises(WeightsError, match=reason):
        check_checkpoint(saved)


def test_a_flipped_digit_of_the_marker_is_found_out(saved: Path) -> None:
    """A loss that was never measured would enter the curves, or another checkpoint would count as the best."""
    text = (saved / MARKER).read_text()
    assert text.count("0.5") == 2
    (saved / MARKER).write_text(text.replace("0.5", "0.4", 1))
    with pytest.raises(WeightsError, match=r"checkpoint.json is damaged: SHA-256 mismatch"):
        check_checkpoint(saved)


def test_markers_of_earlier_versions_have_no_digest_of_their_own(saved: Path) -> None:
    marker = json.loads((saved / MARKER).read_text())
    del marker["own_sha256"]
    (saved / MARKER).write_text(json.dumps(marker))
    assert check_checkpoint(saved).step == 2


def test_marker_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(CheckpointMarker, "model_dump_json", full)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tmp_path, stepped(spec_of()), **NOTHING)
    with pytest.raises(WeightsError):
        check_checkpoint(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {MODEL, TRAINING}


@pytest.mark.parametrize("change", [{"format": 2}, {"files": {}}, {"spec": None}, {"invented": 1}])
def test_marker_of_another_format_is_invalid(saved: Path, change: dict[str, Any]) -> None:
    marker = json.loads((saved / MARKER).read_text())
    check_checkpoint(saved)
    (saved / MARKER).write_text(json.dumps(marker | change))
    with pytest.raises(WeightsError):
        check_checkpoint(saved)
