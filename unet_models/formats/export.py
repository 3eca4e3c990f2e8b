"""Networks as files for programs that do without this code: ONNX, and the ``.pt2`` of ``torch.export``.

trace_unet, trace_denoiser, trace_decoder   network -> its graph in float32, batch and spatial sizes left open
export_onnx, export_program                 graph -> file
export_networks                             several networks, and one JSON file that says what each takes and gives
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from unet_models.networks.denoiser import Denoiser
from unet_models.networks.unet import UNet

DESCRIPTION = "export.json"
SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}
"""Formats, which are also the names of their folders."""
OPSET = 18
"""The oldest that torch exports without converting: the more runtimes read it."""
MAX_BYTES = 1 << 30
"""Weights above this lie beside the ``.onnx``: protobuf, which it is, ends at 2 GiB."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The sizes that an axis may have."""

    at_least: int = 1
    multiple_of: int = 1


@dataclass(frozen=True, slots=True)
class Port:
    """An input or an output: the size of each axis is a number or a name, in outputs also a multiple (``4*height``)."""

    shape: tuple[int | str, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Interface:
    """What a network takes and gives, by name and in order."""

    inputs: dict[str, Port]
    outputs: dict[str, Port]
    axes: dict[str, Axis]


@dataclass(frozen=True, slots=True)
class Traced:
    """A network's graph, weights included."""

    program: ExportedProgram
    interface: Interface


# --- Networks --------------------------------------------------------------------------------------------------------


def trace_unet(network: UNet, in_channels: int, num_classes: int) -> Traced:
    """images (B, C, *spatial) -> logits (B, K, *spatial); each spatial size a multiple of that axis' total stride.

    The graph does not pad. Of a size that is no multiple, the ``.pt2`` says which rule it breaks; a runtime of ONNX
    stops where a skip does not fit its decoder stage.
    """
    names = "xyz"[: network.ndim]
    # From two strides on, the coarsest stage has more than one voxel, and the network does not pad either.
    axes = {name: Axis(2 * d, d) for name, d in zip(names, network.divisor, strict=True)}
    images = Port(("batch", in_channels, *names))
    logits = Port(("batch", num_classes, *names))
    return _trace(network, Interface({"images": images}, {"logits": logits}, {"batch": Axis(), **axes}))


def trace_denoiser(network: Denoiser) -> Traced:
    """noisy_latents (B, C, h, w), timesteps (B,) and what the spec conditions on -> prediction (B, C_out, h, w).

    Latents may have any size above the network's total stride. Timesteps are float32, as samplers that stop between
    two of them need.
    """
    spec = network.spec
    inputs = {"noisy_latents": Port(("batch", spec.in_channels, "height", "width")), "timesteps": Port(("batch",))}
    # Smaller latents leave the coarsest level one pixel, which torch specialises on.
    smallest = 2 ** (len(spec.channels) - 1) + 1
    axes = {"batch": Axis(), "height": Axis(smallest), "width": Axis(smallest)}
    if spec.context_dim is not None:
        inputs["encoder_hidden_states"] = Port(("batch", "tokens", spec.context_dim))
        axes["tokens"] = Axis()
    if spec.num_class_embeds is not None:
        inputs["class_labels"] = Port(("batch",), "int64")
    prediction = Port(("batch", spec.out_channels, "height", "width"))
    return _trace(network, Interface(inputs, {"prediction": prediction}, axes))


def trace_decoder(autoencoder: Any) -> Traced:
    """latents (B, C, h, w), scaled as the denoiser has them -> images (B, 3, f h, f w) in -1..1.

    ``autoencoder`` is a ``diffusers.AutoencoderKL``; the division by its ``scaling_factor`` is part of the graph.
    """
    config = autoencoder.config
    factor = 2 ** (len(config.block_out_channels) - 1)
    latents = Port(("batch", config.latent_channels, "height", "width"))
    images = Port(("batch", config.out_channels, *(f"{factor}*{n}" if factor > 1 else n for n in ("height", "width"))))
    # One latent pixel has no statistics to normalise by.
    axes = {"batch": Axis(), "height": Axis(2), "width": Axis(2)}
    return _trace(Decoder(autoencoder), Interface({"latents": latents}, {"images": images}, axes))


class Decoder(nn.Module):
    """The decoding half of an ``AutoencoderKL``, from scaled latents.

    diffusers' up-sampling copies its input where a batch has 64 images or more. Tracing would take that for a limit
    to the batch, hence ``Double`` in its place.
    """

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.scaling_factor = float(autoencoder.config.scaling_factor)
        self.post_quant_conv = autoencoder.post_quant_conv or nn.Identity()
        self.decoder = copy.deepcopy(autoencoder.decoder)
        for block in self.decoder.up_blocks:
            if block.upsamplers is not None:
                block.upsamplers = nn.ModuleList(Double(upsample.conv) for upsample in block.upsamplers)

    def forward(self, latents: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch 3 height width"]:
        return self.decoder(self.post_quant_conv(latents / self.scaling_factor))


class Double(nn.Module):
    """Twice the size, by the nearest pixel, then a convolution."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels two_h two_w"]:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _trace(network: nn.Module, interface: Interface) -> Traced:
    """Raises ValueError for weights other than float32 on the CPU."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and (tensor.dtype, tensor.device.type) != (torch.float32, "cpu"):
            raise ValueError(f"{name}: export needs float32 on the CPU, got {tensor.dtype} on {tensor.device}")
    dims = {name: _dim(name, axis) for name, axis in interface.axes.items()}
    examples = _examples(interface)
    shapes = {
        name: {i: dims[size] for i, size in enumerate(port.shape) if isinstance(size, str)}
        for name, port in interface.inputs.items()
    }
    with torch.no_grad():
        program = torch.export.export(network.eval(), (), examples, dynamic_shapes=shapes)
    return Traced(program, interface)


def _dim(name: str, axis: Axis) -> Any:
    least = -(-axis.at_least // axis.multiple_of)
    return Dim(name, min=least) if axis.multiple_of == 1 else axis.multiple_of * Dim(f"coarse_{name}", min=least)


def _examples(interface: Interface) -> dict[str, Tensor]:
    """Zeros to trace with; no open axis has size 1, which would become a constant of the graph."""
    sizes = {
        name: axis.multiple_of * (-(-max(axis.at_least, 2) // axis.multiple_of) + i)
        for i, (name, axis) in enumerate(interface.axes.items())
    }
    return {
        name: torch.zeros(
            [sizes[size] if isinstance(size, str) else size for size in port.shape], dtype=getattr(torch, port.dtype)
        )
        for name, port in interface.inputs.items()
    }


# --- Files -----------------------------------------------------------------------------------------------------------


def export_onnx(traced: Traced, path: Path) -> None:
    """Write ``path``, and beside it ``path`` + ``.data`` where the weights are large. Needs onnx and onnxscript."""
    import torch.onnx

    interface = traced.interface
    with _without_noise():
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
    """Write ``path``, which ``torch.export.load`` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(traced.program, path)


WRITERS = {"onnx": export_onnx, "torch_export": export_program}


def export_networks(folder: Path, networks: Mapping[str, Callable[[], Traced]], formats: Sequence[str]) -> None:
    """Write ``onnx/NAME.onnx`` and ``torch_export/NAME.pt2`` for each network, as ``formats`` ask, and ``export.json``.

    Networks are traced one after the other, so that no two graphs are held at once.
    """
    described = {}
    for name, trace in networks.items():
        traced = trace()
        files = {format_: f"{format_}/{name}{SUFFIXES[format_]}" for format_ in formats}
        for format_, file in files.items():
            WRITERS[format_](traced, folder / file)
        described[name] = {"files": files, **asdict(traced.interface)}
    description = {"format": 1, "opset": OPSET, "precision": "float32", "networks": described}
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1))


@contextmanager
def _without_noise() -> Iterator[None]:
    """Silences what nobody can act on: that torchvision is absent, and deprecations inside torch itself."""
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
