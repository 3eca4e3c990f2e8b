"""Traced networks as files for programs without this code: ONNX, and the ``.pt2`` of ``torch.export``."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from data_pipelines.atomic import atomic_file
from unet_models.formats.trace import Traced

DESCRIPTION = "export.json"
SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}
"""File suffix of each format; formats are also the names of their folders."""
OPSET = 18
"""Version of the ONNX operators: the oldest that torch exports without conversion, so that most runtimes read it."""
MAX_BYTES = 1 << 30
"""Size of the weights above which they lie beside the ``.onnx`` file, since protobuf is limited to 2 GiB."""


def export_onnx(traced: Traced, path: Path) -> None:
    """Write an ONNX file to ``path``, and large weights to ``path`` + ``.data``. Needs onnx and onnxscript."""
    import torch.onnx

    interface = traced.interface
    with _silenced():
        model = torch.onnx.export(
            traced.program,
            input_names=list(interface.inputs),
            output_names=list(interface.outputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert model is not None
    names: dict[Any, str] = {}
    for value, port in zip(model.model.graph.inputs, interface.inputs.values(), strict=True):
        assert value.shape is not None
        names |= {found: name for found, name in zip(value.shape, port.shape, strict=True) if isinstance(name, str)}
    model.rename_axes(names)
    size = sum(tensor.nbytes for tensor in traced.program.state_dict.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path, external_data=size > MAX_BYTES)


def export_program(traced: Traced, path: Path) -> None:
    """Write a ``.pt2`` file to ``path``, which ``torch.export.load`` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(traced.program, path)


WRITERS = {"onnx": export_onnx, "torch_export": export_program}


def export_networks(folder: Path, networks: Mapping[str, Callable[[], Traced]], formats: Sequence[str]) -> None:
    """Write ``onnx/NAME.onnx`` or ``torch_export/NAME.pt2`` for each network and format, and ``export.json``.

    ``networks`` maps names to functions that trace a network; they are called one after the other, so that no two
    graphs are in memory at once. ``export.json`` describes inputs and outputs of each network.
    """
    described = {}
    for name, trace in networks.items():
        traced = trace()
        files = {format_: f"{format_}/{name}{SUFFIXES[format_]}" for format_ in formats}
        for format_, file in files.items():
            WRITERS[format_](traced, folder / file)
        described[name] = {"files": files, **asdict(traced.interface)}
    description = {"format": 1, "opset": OPSET, "precision": "float32", "networks": described}
    with atomic_file(folder / DESCRIPTION) as partial:
        partial.write_text(json.dumps(description, indent=1))


@contextmanager
def _silenced() -> Iterator[None]:
    """Silence warnings that a user cannot act on: that torchvision is missing, and deprecations inside torch itself."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
