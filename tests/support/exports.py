"""Exported networks read back, and compared with what they were made from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from unet_models.formats.export import export_onnx, export_program
from unet_models.formats.trace import Traced

TOLERANCE = 2e-5
"""Maximum difference relative to the largest output. Measured: below 1e-6, but 7e-6 for images of 2x2 latent pixels."""

Run = Callable[..., Tensor]


def perturbed(network: Any) -> Any:
    """Every weight away from 0 and 1, so that forgetting one shows."""
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.1)
    return network.eval()


def by_onnx(path: Path) -> Run:
    """The file as a function of named inputs."""
    session = onnxruntime.InferenceSession(path)

    def run(**inputs: Tensor) -> Tensor:
        (output,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        return torch.from_numpy(output)

    return run


def by_torch(path: Path) -> Run:
    """The file as a function of named inputs."""
    return torch.export.load(path).module()


READERS = {"onnx": by_onnx, "torch_export": by_torch}


def written(traced: Traced, folder: Path) -> dict[str, Run]:
    """Both formats, read back."""
    export_onnx(traced, folder / "n.onnx")
    export_program(traced, folder / "n.pt2")
    return {"onnx": by_onnx(folder / "n.onnx"), "torch_export": by_torch(folder / "n.pt2")}


def assert_equal(runs: dict[str, Run], network: Callable[..., Tensor], inputs: dict[str, Tensor]) -> None:
    """Assert that every run computes what the network does, and that the outputs are not all alike."""
    with torch.no_grad():
        expected = network(**inputs)
        assert expected.std() > 0.1 * expected.abs().max(), "outputs that are all alike would say little"
        for format_, run in runs.items():
            difference = ((run(**inputs) - expected).abs().max() / expected.abs().max()).item()
            assert difference <= TOLERANCE, f"{format_}: {difference}"
