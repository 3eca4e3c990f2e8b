"""Exported files compute what the networks do, at sizes other than those they were traced with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from tests.support.denoisers import BACKBONES
from tests.support.exports import READERS, Run, assert_equal, by_onnx, perturbed, written
from unet_models.formats import export
from unet_models.formats.export import DESCRIPTION, export_networks, export_onnx
from unet_models.formats.trace import Traced, trace_decoder, trace_denoiser, trace_restorer, trace_unet
from unet_models.networks.autoencoder import build_autoencoder
from unet_models.networks.build import build_denoiser, build_network
from unet_models.networks.denoisers.unet import DenoisingUNet
from unet_models.networks.unet import UNet
from unet_models.restoration.build import build_task
from unet_models.restoration.restorer import Restorer
from unet_models.specs.denoisers import DenoisingUNetSpec
from unet_models.specs.encoders import AutoencoderSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.restoration import (
    ColourisationSpec,
    DenoisingSpec,
    InpaintingSpec,
    SuperResolutionSpec,
    TaskSpec,
)


def small_autoencoder() -> Any:
    autoencoder = perturbed(build_autoencoder(AutoencoderSpec(channels=(8, 8, 16)), resolution=16))
    autoencoder.register_to_config(scaling_factor=0.7)
    return autoencoder


SMALL = {"channels": (8, 16), "attention_levels": (True, False), "num_res_blocks": 1, "num_heads": 2, "num_groups": 4}


@dataclass(frozen=True)
class Exported:
    """One network of each kind, and the folder they were exported to."""

    folder: Path
    unet: UNet
    denoiser: DenoisingUNet
    autoencoder: Any

    @property
    def description(self) -> Any:
        return json.loads((self.folder / DESCRIPTION).read_text())

    def runs(self, name: str) -> dict[str, Run]:
        files = self.description["networks"][name]["files"]
        return {format_: READERS[format_](self.folder / file) for format_, file in files.items()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    spec = UNetSpec(channels=(4, 8, 16), strides=((1, 2, 2), 2), deep_supervision=1)
    denoiser = perturbed(DenoisingUNet(DenoisingUNetSpec(**SMALL, context_dim=12)))
    found = Exported(
        tmp_path_factory.mktemp("bundle"), perturbed(build_network(spec, 2, 3)), denoiser, small_autoencoder()
    )
    networks = {
        "unet": lambda: trace_unet(found.unet, 2, 3),
        "denoiser": lambda: trace_denoiser(found.denoiser),
        "vae_decoder": lambda: trace_decoder(found.autoencoder),
    }
    export_networks(found.folder, networks, ["onnx", "torch_export"])
    return found


@pytest.fixture(scope="module")
def unet_2d() -> tuple[UNet, Traced]:
    network = perturbed(build_network(UNetSpec(channels=(4, 8, 16)), 2, 3, ndim=2))
    return network, trace_unet(network, 2, 3)


# --- Segmentation ----------------------------------------------------------------------------------------------------


def test_unet_3d(exported: Exported) -> None:
    runs = exported.runs("unet")
    for batch, *size in [(1, 8, 12, 16), (3, 16, 8, 20), (5, 4, 24, 8)]:
        assert_equal(runs, exported.unet, {"images": torch.randn(batch, 2, *size)})


def test_unet_2d_and_sizes_that_are_no_multiple(unet_2d: tuple[UNet, Traced], tmp_path: Path) -> None:
    network, traced = unet_2d
    runs = written(traced, tmp_path)
    for size in [(1, 2, 24, 8), (3, 2, 16, 20)]:
        assert_equal(runs, network, {"images": torch.randn(size)})
    for size in [(2, 2, 18, 16), (2, 2, 16, 17), (2, 2, 13, 9)]:
        with pytest.raises(AssertionError, match="% 4 == 0"):
            runs["torch_export"](images=torch.randn(size))
        with pytest.raises(Exception, match=r"dimension|Shape mismatch"):
            runs["onnx"](images=torch.randn(size))
    with pytest.raises(AssertionError, match=">= 8"):  # the network would pad this one
        runs["torch_export"](images=torch.randn(2, 2, 4, 4))


def test_the_graph_has_no_activation_in_place_and_the_network_keeps_its_own(unet_2d: tuple[UNet, Traced]) -> None:
    network, traced = unet_2d
    targets = {str(node.target) for node in traced.program.graph.nodes}
    assert "aten.leaky_relu.default" in targets
    assert "aten.leaky_relu_.default" not in targets
    assert {module.inplace for module in network.modules() if isinstance(module, nn.LeakyReLU)} == {True}


def test_weights_of_low_precision_are_refused() -> None:
    network = build_network(UNetSpec(channels=(4, 8)), 1, 2, ndim=2).to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"float32 on the CPU, got torch.bfloat16 on cpu"):
        trace_unet(network, 1, 2)


# --- Latent diffusion ------------------------------------------------------------------------------------------------


def test_denoiser_with_text(exported: Exported) -> None:
    """Odd sizes too: the network pads nothing, its up-sampling goes to the size of the skip."""
    runs = exported.runs("denoiser")
    for batch, height, width, tokens in [(1, 8, 16, 5), (3, 17, 23, 77), (2, 3, 6, 1)]:
        inputs = {
            "noisy_latents": torch.randn(batch, 4, height, width),
            "timesteps": torch.rand(batch) * 999,
            "encoder_hidden_states": torch.randn(batch, tokens, 12),
        }
        assert_equal(runs, exported.denoiser, inputs)


def test_denoiser_with_classes(tmp_path: Path) -> None:
    one_level = SMALL | {"channels": (8,), "attention_levels": (True,)}
    spec = DenoisingUNetSpec(**one_level, context_dim=None, num_class_embeds=3, time_conditioning="film")
    network = perturbed(DenoisingUNet(spec))
    runs = written(trace_denoiser(network), tmp_path)
    for batch, height, width in [(1, 8, 16), (3, 17, 23)]:
        latents, labels = torch.randn(batch, 4, height, width), torch.arange(batch)
        inputs = {"noisy_latents": latents, "timesteps": torch.rand(batch) * 999, "class_labels": labels}
        assert_equal(runs, network, inputs)


@pytest.mark.parametrize("backbone", ["uvit", "dit"])
def test_transformer_denoisers(backbone: str, tmp_path: Path) -> None:
    network = perturbed(build_denoiser(BACKBONES[backbone].model_copy(update={"num_class_embeds": 5})))
    runs = written(trace_denoiser(network), tmp_path)
    for batch, height, width, tokens in [(1, 8, 6, 5), (3, 4, 10, 7)]:
        inputs = {
            "noisy_latents": torch.randn(batch, 4, height, width),
            "timesteps": torch.rand(batch) * 999,
            "encoder_hidden_states": torch.randn(batch, tokens, 12),
            "class_labels": torch.arange(batch),
        }
        assert_equal(runs, network, inputs)
    with pytest.raises(AssertionError, match="% 2 == 0"):  # the network would pad this one
        runs["torch_export"](**inputs | {"noisy_latents": torch.randn(3, 4, 5, 6)})


BATCHES = [(1, 4, 8, 6), (3, 4, 5, 7), (70, 4, 2, 2)]
"""Sizes of latents; diffusers treats a batch of 64 and more in another way."""


def test_decoder_takes_scaled_latents(exported: Exported) -> None:
    runs = exported.runs("vae_decoder")
    for size in BATCHES:
        latents = torch.randn(size)
        assert_equal(runs, lambda latents: exported.autoencoder.decode(latents / 0.7).sample, {"latents": latents})


def test_decoder_with_attention_in_the_middle(tmp_path: Path) -> None:
    """As Stable Diffusion's has; and tracing leaves the autoencoder as it was."""
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    autoencoder = perturbed(AutoencoderKL(block_out_channels=(32, 32), scaling_factor=1.0, **kinds))
    latents = torch.randn(2, 4, 8, 8)
    before = autoencoder.decode(latents).sample
    runs = written(trace_decoder(autoencoder), tmp_path)
    torch.testing.assert_close(autoencoder.decode(latents).sample, before, rtol=0, atol=0)
    for size in BATCHES:
        assert_equal(runs, lambda latents: autoencoder.decode(latents).sample, {"latents": torch.randn(size)})


# --- Files -----------------------------------------------------------------------------------------------------------


def test_description_says_what_the_files_take(exported: Exported) -> None:
    described = exported.description
    assert described["opset"] == 18
    for name, network in described["networks"].items():
        assert network["files"] == {"onnx": f"onnx/{name}.onnx", "torch_export": f"torch_export/{name}.pt2"}
        session = onnxruntime.InferenceSession(exported.folder / network["files"]["onnx"])
        for ports, found in ((network["inputs"], session.get_inputs()), (network["outputs"], session.get_outputs())):
            assert {key: port["shape"] for key, port in ports.items()} == {port.name: port.shape for port in found}
    axes = described["networks"]["unet"]["axes"]
    assert {name: axis["multiple_of"] for name, axis in axes.items()} == {"batch": 1, "x": 2, "y": 4, "z": 4}
    assert {name: axis["at_least"] for name, axis in axes.items()} == {"batch": 1, "x": 4, "y": 8, "z": 8}
    assert described["networks"]["vae_decoder"]["outputs"]["images"]["shape"] == ["batch", 3, "4*height", "4*width"]
    assert {path.suffix for path in exported.folder.rglob("*.*")} == {".json", ".onnx", ".pt2"}, "one file each"


def test_large_weights_lie_beside_the_onnx_file(
    unet_2d: tuple[UNet, Traced], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, traced = unet_2d
    monkeypatch.setattr(export, "MAX_BYTES", 1 << 10)
    export_onnx(traced, tmp_path / "n.onnx")
    num_bytes = sum(parameter.nbytes for parameter in network.parameters())
    assert (tmp_path / "n.onnx.data").stat().st_size > num_bytes / 2
    assert_equal({"onnx": by_onnx(tmp_path / "n.onnx")}, network, {"images": torch.randn(2, 2, 16, 8)})


# --- Restoration -----------------------------------------------------------------------------------------------------

RESTORED: dict[str, tuple[TaskSpec, int]] = {
    "denoising": (DenoisingSpec(), 1),
    "pixel_shuffle": (SuperResolutionSpec(factor=3), 3),
    "resize": (SuperResolutionSpec(factor=2, upsample="resize"), 1),
    "inpainting": (InpaintingSpec(), 1),
    "regression": (ColourisationSpec(), 1),
    "classes": (ColourisationSpec(output="classes"), 1),
}
"""Each mode of each task, and pixels of a restored image along one of its input."""
ALIKE = ("resize", "regression")
"""Modes whose graphs have the operators of another one's: traced, and not written, which takes seconds."""


class Convolution(nn.Conv2d):
    """Stands for the U-Net, which has tests of its own and takes longer: one layer, of a total stride of 2."""

    divisor = (2, 2)


@pytest.mark.parametrize("name", RESTORED)
def test_restorer_is_traced_with_its_task(name: str, tmp_path: Path) -> None:
    """What surrounds the network, bicubic enlargement and colours among it, is part of the graph, for any size."""
    spec, factor = RESTORED[name]
    task = build_task(spec)
    restorer = perturbed(Restorer(Convolution(task.in_channels, task.out_channels, 3, padding=1), task))
    traced = trace_restorer(restorer)
    runs = {"program": traced.program.module()} if name in ALIKE else written(traced, tmp_path)
    for batch, height, width in [(1, 16, 12), (3, 10, 14)]:
        images = torch.rand(batch, 3, factor * height, factor * width)
        inputs = task.degrade(images, [torch.Generator().manual_seed(n) for n in range(batch)])
        assert_equal(runs, restorer, {"inputs": inputs})
        outputs = [run(inputs=inputs) for run in runs.values()]
        assert {tuple(output.shape) for output in outputs} == {tuple(images.shape)}
    sizes = (f"{factor}*height", f"{factor}*width") if factor > 1 else ("height", "width")
    assert traced.interface.outputs["images"].shape == ("batch", 3, *sizes)
