"""Forward and backward pass of every network of the family beside its counterpart elsewhere.

Published widths (the denoising U-Net narrowed), float32, one output; parameters, time (median over rounds in turns) and
peak memory above that of the imports, measured in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, cast

import torch
from torch import Tensor, nn

from tests.benchmarks.timing import alternate
from unet_models.networks.build import build_denoiser, build_network
from unet_models.specs.denoisers import DenoisingUNetSpec, DiTSpec, UViTSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.presets import PRESETS

FLAT, SOLID, LATENT = (128, 128), (32, 64, 32), (4, 32, 32)
"""Pixels of a 2-D image, voxels of a volume, channels and pixels of a latent: multiples of 32, which peers need."""
WIDE = (64, 128, 256, 512, 1024)
INSTANCE = ("INSTANCE", {"affine": True})
VOLUMES = ("nnunet", "residual_encoder", "mednext_s", "mednext_b", "mednext_m", "mednext_l")
"""Members that are timed on volumes; the others on images."""

Build = Callable[[], nn.Module]
Inputs = tuple[tuple[Tensor, ...], dict[str, Tensor]]
"""Positional and named arguments of a network."""


@dataclass(frozen=True)
class Contender:
    """A network, what it is given, and its counterpart of the same task."""

    ours: Build
    inputs: Callable[[], Inputs]
    peer: Build | None
    peer_name: str = ""

    @property
    def builds(self) -> dict[str, Build]:
        """Our network and the counterpart, where there is one."""
        return {"ours": self.ours} | ({"peer": self.peer} if self.peer else {})


def run() -> None:
    """Print one line per member: parameters, milliseconds and megabytes, ours and the counterpart's."""
    torch.set_num_threads(2)
    sizes = f"image 1x{FLAT}, volume 1x{SOLID}, latent {LATENT}"
    print(f"\nforward and backward, one sample: {sizes}; float32, {device().type}")
    print(f"  {'':<18}{'parameters':>24}{'ms':>20}{'MB':>20}   counterpart")
    found = contenders()
    # First of all: forked processes begin with what this one holds, and could use again what it has freed.
    peaks = {
        name: {key: _peak_megabytes(build, contender.inputs) for key, build in contender.builds.items()}
        for name, contender in found.items()
    }
    for name, contender in found.items():
        models = {key: build().to(device()).train() for key, build in contender.builds.items()}
        steps = {key: partial(_step, model, contender.inputs) for key, model in models.items()}
        for step in steps.values():
            step()
        rates = alternate(steps, rounds=7)
        counts = {key: sum(p.numel() for p in model.parameters()) / 1e6 for key, model in models.items()}
        shown = [
            _pair({key: f"{value:.2f} M" for key, value in counts.items()}, 24),
            _pair({key: f"{1000 / value:.0f}" for key, value in rates.items()}, 20),
            _pair({key: f"{value:.0f}" for key, value in peaks[name].items()}, 20),
        ]
        print(f"  {name:<18}{''.join(shown)}   {contender.peer_name or '-'}", flush=True)


def device() -> torch.device:
    """Return the device that networks are timed on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def contenders() -> dict[str, Contender]:
    """Return every member with its counterpart, where there is one."""
    peers = _monai() | _nnunet()
    found = {}
    for name in PRESETS:
        size = SOLID if name in VOLUMES else FLAT
        peer_name, peer = peers.get(name, ("", None))
        size = (124 + 64, 124 + 64) if name == "unet_2015" else size  # the smallest that fits valid convolutions
        found[name] = Contender(partial(_ours, name, len(size)), partial(_image, size), peer, peer_name)
    return found | _denoisers()


def _ours(name: str, ndim: int) -> nn.Module:
    return build_network(UNetSpec(preset=name, deep_supervision=0), 1, 2, ndim)


def _monai() -> dict[str, tuple[str, Build]]:
    from monai.networks import nets
    from monai.networks.nets.mednext import create_mednext

    flat: dict[str, Any] = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    solid = flat | {"spatial_dims": 3}
    basic = flat | {"norm": "batch", "act": "relu"}
    dynamic = solid | {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3}
    strides = {"channels": WIDE, "strides": (2, 2, 2, 2)}
    light = flat | {"backbone": "efficientnet-b0", "pretrained": False}
    return {
        "unet": ("MONAI BasicUNet", lambda: nets.BasicUNet(**basic, features=(*WIDE, 64))),
        "resunet": ("MONAI UNet, 2 residual units", lambda: nets.UNet(**flat, **strides, num_res_units=2)),
        "attention_unet": ("MONAI AttentionUnet", lambda: nets.AttentionUnet(**flat, **strides)),
        "unet_plus_plus": (
            "MONAI BasicUNetPlusPlus",
            lambda: _First(nets.BasicUNetPlusPlus(**basic, features=(32, 64, 128, 256, 512, 32))),
        ),
        "nnunet": ("MONAI DynUNet", lambda: nets.DynUNet(**dynamic, filters=[32, 64, 128, 256], norm_name=INSTANCE)),
        "mobile_unet": ("MONAI FlexibleUNet, EfficientNet-B0", lambda: nets.FlexibleUNet(**light)),
        **{f"mednext_{size.lower()}": (f"MONAI MedNeXt-{size}", partial(create_mednext, size)) for size in "SBML"},
    }


def _nnunet() -> dict[str, tuple[str, Build]]:
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    def build() -> nn.Module:
        network: nn.Module = ResidualEncoderUNet(
            1,
            6,
            [32, 64, 128, 256, 320, 320],
            nn.Conv3d,
            3,
            [1, 2, 2, 2, 2, 2],
            [1, 3, 4, 6, 6, 6],
            2,
            [1] * 5,
            conv_bias=True,
            norm_op=nn.InstanceNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
        )
        return network

    return {"residual_encoder": ("nnU-Net ResidualEncoderUNet", build)}


class _First(nn.Module):
    """The first of several outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return it."""
        outputs: list[Tensor] = self.network(images)
        return outputs[0]


def _denoisers() -> dict[str, Contender]:
    from diffusers import DiTTransformer2DModel, UNet2DConditionModel
    from diffusers.pipelines.deprecated.unidiffuser.modeling_uvit import UTransformer2DModel

    from unet_models.formats.diffusers_folder import denoiser_config

    unet = DenoisingUNetSpec(channels=(128, 256, 256), attention_levels=(False, True, True), context_dim=768)
    config = {name: value for name, value in denoiser_config(unet).items() if not name.startswith("_")}
    dit = DiTSpec(context_dim=None, num_class_embeds=1001)
    shape = {"num_attention_heads": dit.num_heads, "attention_head_dim": dit.width // dit.num_heads}
    uvit = UViTSpec(context_dim=768)
    depth = {"num_layers": dit.num_layers, "patch_size": dit.patch_size, "sample_size": LATENT[-1]}
    return {
        "denoising unet": Contender(
            lambda: build_denoiser(unet),
            partial(_latent, "encoder_hidden_states"),
            lambda: _Sample(cast("nn.Module", UNet2DConditionModel(**config))),
            "diffusers UNet2DConditionModel",
        ),
        "uvit": Contender(
            lambda: build_denoiser(uvit),
            partial(_latent, "encoder_hidden_states"),
            lambda: _Tokens(
                UTransformer2DModel(
                    num_attention_heads=uvit.num_heads,
                    attention_head_dim=uvit.width // uvit.num_heads,
                    num_layers=uvit.num_layers,
                    in_channels=LATENT[0],
                    patch_size=uvit.patch_size,
                    sample_size=LATENT[-1],
                    activation_fn="gelu",
                    block_type="",
                    pre_layer_norm=True,
                ),
                uvit.width,
            ),
            "diffusers UTransformer2DModel, its embeddings excepted",
        ),
        "dit": Contender(
            lambda: build_denoiser(dit),
            partial(_latent, "class_labels"),
            lambda: _Sample(cast("nn.Module", DiTTransformer2DModel(**shape, **depth, num_embeds_ada_norm=1000))),
            "diffusers DiTTransformer2DModel",
        ),
    }


class _Tokens(nn.Module):
    """A transformer of diffusers over as many tokens as ours has: of time, text and patches."""

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network, self.width = network, width

    def forward(self, latents: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Return the transformed tokens."""
        count = 1 + encoder_hidden_states.shape[1] + latents[0, 0].numel() // 4
        tokens = torch.ones(len(latents), count, self.width, device=latents.device)
        (outputs,) = self.network(tokens, hidden_states_is_embedding=True, unpatchify=False, return_dict=False)
        found: Tensor = outputs
        return found


class _Sample(nn.Module):
    """The tensor of a network of diffusers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: Tensor, timesteps: Tensor, **conditions: Tensor) -> Tensor:
        """Return it."""
        outputs: Tensor = self.network(latents, timesteps, **conditions).sample
        return outputs


def _image(size: tuple[int, ...]) -> Inputs:
    return (torch.randn(1, 1, *size, device=device()),), {}


def _latent(condition: str) -> Inputs:
    """Draw a latent with its timestep, and a caption of 77 tokens or a class."""
    states = torch.randn(1, 77, 768) if condition == "encoder_hidden_states" else torch.tensor([7])
    return (torch.randn(1, *LATENT).to(device()), torch.tensor([500]).to(device())), {condition: states.to(device())}


def _step(model: nn.Module, inputs: Callable[[], Inputs]) -> int:
    """Compute the gradients of one random sample."""
    model.zero_grad(set_to_none=True)
    given, named = inputs()
    model(*given, **named).square().mean().backward()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1


def _peak_megabytes(build: Build, inputs: Callable[[], Inputs]) -> float:
    """Measure the most memory of building and one step, in a forked process; on a GPU, what is allocated there."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        _step(build().cuda().train(), inputs)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    receive, send = multiprocessing.Pipe(duplex=False)
    # Forked, it begins with the memory of this process; its only thread may use torch, as long as it stays alone.
    process = multiprocessing.get_context("fork").Process(target=_report_peak, args=(send, build, inputs))
    process.start()
    peak: float = receive.recv()
    process.join()
    return peak


def _report_peak(send: Connection, build: Build, inputs: Callable[[], Inputs]) -> None:
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _step(build().train(), inputs)
    send.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)


def _pair(values: dict[str, str], width: int) -> str:
    return f"{' / '.join(values.values()):>{width}}"
