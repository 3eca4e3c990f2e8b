"""Networks traced to graphs by ``torch.export``: in float32, with named inputs, batch and spatial sizes left open."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from unet_models.networks.autoencoder import downsampling_factor
from unet_models.networks.denoiser import Denoiser
from unet_models.networks.layers import SegmentationNetwork
from unet_models.networks.multimodal import MultimodalUNet
from unet_models.restoration.restorer import Restorer


@dataclass(frozen=True, slots=True)
class Axis:
    """Allowed sizes of an axis."""

    at_least: int = 1
    """Minimum size."""
    multiple_of: int = 1
    """Number that divides the size."""
    remainder: int = 0
    """What the size leaves when divided by ``multiple_of``."""


@dataclass(frozen=True, slots=True)
class Port:
    """Shape and type of an input or output."""

    shape: tuple[int | str, ...]
    """Size of each axis: a number, the name of an open axis, or in outputs a multiple of one (``4*height``) or less
    than one (``x-184``)."""
    dtype: str = "float32"
    """Name of the element type in torch and numpy."""


@dataclass(frozen=True, slots=True)
class Interface:
    """Inputs and outputs of a network by name, in order, and the sizes of the open axes."""

    inputs: dict[str, Port]
    outputs: dict[str, Port]
    axes: dict[str, Axis]


@dataclass(frozen=True, slots=True)
class Traced:
    """Graph of a network, weights included, and its interface."""

    program: ExportedProgram
    interface: Interface


def trace_unet(network: SegmentationNetwork, in_channels: int, num_classes: int) -> Traced:
    """Trace a segmentation U-Net: images ``(B, C, *spatial)`` to logits ``(B, K, *spatial)``.

    Multimodal ones also take ``texts`` (B, bytes) uint8 and ``sounds`` (B, samples), as far as they read them.

    The graph does not pad: each spatial size must be a multiple of that axis' total stride, with valid convolutions one
    that leaves their remainder. For any other size the
    ``.pt2`` names the violated rule; an ONNX runtime fails where a skip does not fit its decoder stage.

    Raises ValueError for weights other than float32 on the CPU.
    """
    names = "xyz"[: network.ndim]
    # From two strides on, the coarsest stage has more than one voxel, and the network does not pad either.
    parts = zip(names, network.divisor, network.border, network.remainder, strict=True)
    axes = {name: Axis(max(2 * d, 2 * border + 1), d, remainder) for name, d, border, remainder in parts}
    inputs = {"images": Port(("batch", in_channels, *names))}
    if isinstance(network, MultimodalUNet):
        inputs |= {name: Port(("batch", size), kind) for name, (size, kind) in network.fusion.lengths.items()}
    sizes = [f"{name}-{2 * border}" if border else name for name, border in zip(names, network.border, strict=True)]
    logits = Port(("batch", num_classes, *sizes))
    return _trace(network, Interface(inputs, {"logits": logits}, {"batch": Axis(), **axes}))


def trace_restorer(restorer: Restorer) -> Traced:
    """Trace a restorer: inputs ``(B, C, h, w)`` of its task to images ``(B, 3, f h, f w)``, both in 0..1.

    The graph does not pad: see ``trace_unet``. Raises ValueError for weights other than float32 on the CPU.
    """
    task, sizes = restorer.task, ("height", "width")
    axes = {name: Axis(2 * d, d) for name, d in zip(sizes, restorer.network.divisor, strict=True)}
    inputs = Port(("batch", task.in_channels, *sizes))
    images = Port(("batch", 3, *(f"{task.factor}*{name}" if task.factor > 1 else name for name in sizes)))
    return _trace(restorer, Interface({"inputs": inputs}, {"images": images}, {"batch": Axis(), **axes}))


def trace_denoiser(network: Denoiser) -> Traced:
    """Trace a denoiser: noisy_latents ``(B, C, h, w)``, timesteps ``(B,)`` and conditions to prediction.

    The conditions are those of the spec: encoder_hidden_states ``(B, L, D)``, class_labels ``(B,)``; the prediction is
    ``(B, C_out, h, w)``. The sides of latents are those of ``Denoiser.exported_sides``: the graph does not pad.
    Timesteps are float32, for samplers with fractional timesteps.

    Raises ValueError for weights other than float32 on the CPU.
    """
    spec = network.spec
    inputs = {"noisy_latents": Port(("batch", spec.in_channels, "height", "width")), "timesteps": Port(("batch",))}
    side = Axis(*network.exported_sides)
    axes = {"batch": Axis(), "height": side, "width": side}
    if spec.context_dim is not None:
        inputs["encoder_hidden_states"] = Port(("batch", "tokens", spec.context_dim))
        axes["tokens"] = Axis()
    if spec.num_class_embeds is not None:
        inputs["class_labels"] = Port(("batch",), "int64")
    prediction = Port(("batch", spec.out_channels, "height", "width"))
    return _trace(network, Interface(inputs, {"prediction": prediction}, axes))


def trace_decoder(autoencoder: Any) -> Traced:
    """Trace the decoder of an autoencoder: latents ``(B, C, h, w)`` to images ``(B, 3, f h, f w)`` in -1..1.

    ``autoencoder`` is a ``diffusers.AutoencoderKL``. Latents are scaled as the denoiser has them: the division by
    ``scaling_factor`` is part of the graph.

    Raises ValueError for weights other than float32 on the CPU.
    """
    config = autoencoder.config
    factor = downsampling_factor(config)
    latents = Port(("batch", config.latent_channels, "height", "width"))
    images = Port(("batch", config.out_channels, *(f"{factor}*{n}" if factor > 1 else n for n in ("height", "width"))))
    # One latent pixel has no statistics to normalise by.
    axes = {"batch": Axis(), "height": Axis(2), "width": Axis(2)}
    return _trace(Decoder(autoencoder), Interface({"latents": latents}, {"images": images}, axes))


class Decoder(nn.Module):
    """Decoder of an ``AutoencoderKL``, from scaled latents.

    diffusers' upsampling copies its input where a batch has 64 images or more. Tracing would take that for a limit of
    the batch size, hence ``DoubleSize`` in its place.
    """

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.scaling_factor = float(autoencoder.config.scaling_factor)
        self.post_quant_conv = autoencoder.post_quant_conv or nn.Identity()
        self.decoder = copy.deepcopy(autoencoder.decoder)
        for block in self.decoder.up_blocks:
            if block.upsamplers is not None:
                block.upsamplers = nn.ModuleList(DoubleSize(upsample.conv) for upsample in block.upsamplers)

    def forward(self, latents: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch 3 height width"]:
        return self.decoder(self.post_quant_conv(latents / self.scaling_factor))


class DoubleSize(nn.Module):
    """Double height and width by nearest-neighbour interpolation, then convolve."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels two_h two_w"]:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _trace(network: nn.Module, interface: Interface) -> Traced:
    """Trace ``network`` in evaluation mode. Raises ValueError for weights other than float32 on the CPU."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and (tensor.dtype, tensor.device.type) != (torch.float32, "cpu"):
            raise ValueError(f"{name}: export needs float32 on the CPU, got {tensor.dtype} on {tensor.device}")
    dims = {name: _dim(name, axis) for name, axis in interface.axes.items()}
    examples = _examples(interface)
    shapes = {
        name: {i: dims[size] for i, size in enumerate(port.shape) if isinstance(size, str)}
        for name, port in interface.inputs.items()
    }
    with torch.no_grad(), _out_of_place(network):
        program = torch.export.export(network.eval(), (), examples, dynamic_shapes=shapes)
    return Traced(program, interface)


@contextmanager
def _out_of_place(network: nn.Module) -> Iterator[None]:
    """Let activations write new tensors: undoing what is done in place takes a third of the ONNX exporter's time."""
    changed: list[Any] = [module for module in network.modules() if getattr(module, "inplace", False)]
    for module in changed:
        module.inplace = False
    try:
        yield
    finally:
        for module in changed:
            module.inplace = True


def _dim(name: str, axis: Axis) -> Any:
    """Build torch's description of an open axis."""
    least = _least(axis)
    if axis.multiple_of == 1:
        return Dim(name, min=least)
    size = axis.multiple_of * Dim(f"coarse_{name}", min=least)
    return size + axis.remainder if axis.remainder else size


def _least(axis: Axis) -> int:
    """Return the smallest size's number of multiples."""
    return -(-(axis.at_least - axis.remainder) // axis.multiple_of)


def _examples(interface: Interface) -> dict[str, Tensor]:
    """Build zeros to trace with; no open axis has size 1, which would become a constant of the graph."""
    sizes = {
        name: axis.multiple_of * (_least(replace(axis, at_least=max(axis.at_least, 2))) + i) + axis.remainder
        for i, (name, axis) in enumerate(interface.axes.items())
    }
    return {
        name: torch.zeros(
            [sizes[size] if isinstance(size, str) else size for size in port.shape], dtype=getattr(torch, port.dtype)
        )
        for name, port in interface.inputs.items()
    }
