"""Maps of what a segmentation network looks at, as large as its image, predicted window by window like its logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unet_models.networks.layers import INTERPOLATION, crop_border
from unet_models.networks.skips import AttentionGate
from unet_models.networks.unet import UNet


class GateMaps(nn.Module):
    """Weights in (0, 1) that the attention gates of a network give to its skip connections (Oktay 2018, fig. 4)."""

    def __init__(self, network: UNet) -> None:
        """Find the gates; ``levels`` are the stages that have one, 0 at full resolution."""
        super().__init__()
        self.network = network
        skips = list(getattr(network.decoder, "skips", []))[::-1]  # a decoder runs from coarse to fine
        gates = [(level, skip.gate) for level, skip in enumerate(skips) if isinstance(skip.gate, AttentionGate)]
        self.levels = tuple(level for level, _ in gates)
        self.gates = nn.ModuleList(gate for _, gate in gates)

    def forward(self, images: Float[Tensor, "batch channels *spatial"]) -> Float[Tensor, "batch levels *spatial"]:
        """Compute one map per gated level, finest first, upsampled linearly to the image."""
        found: dict[int, Tensor] = {}

        def keep(gate: nn.Module, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
            assert isinstance(gate, AttentionGate)
            found[id(gate)] = gate.weights(*inputs)

        hooks = [gate.register_forward_hook(keep) for gate in self.gates]
        try:
            self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        maps = [
            _at_full_resolution(self.network, found[id(gate)], images, level)
            for level, gate in zip(self.levels, self.gates, strict=True)
        ]
        return torch.cat(maps, dim=1)


class ClassSaliency(nn.Module):
    """Grad-CAM of a class at every stage of the encoder (Selvaraju 2017, eq. 1-2; for segmentation Vinogradova 2020).

    The score whose gradient weights the channels is the mean logit of the class over the voxels that are predicted as
    it; where there are none, the map is 0.
    """

    def __init__(self, network: UNet, output: int, *, is_exclusive: bool = True) -> None:
        """Explain one output: a class, or a region, which is predicted where its logit is positive."""
        super().__init__()
        self.network, self.output, self.is_exclusive = network, output, is_exclusive

    def forward(self, images: Float[Tensor, "batch channels *spatial"]) -> Float[Tensor, "batch stages *spatial"]:
        """Compute one map per stage, finest first, of values 0 or above, upsampled linearly to the image."""
        with torch.inference_mode(False), torch.enable_grad():
            images = images.clone().requires_grad_()  # a tensor of inference mode has no gradient
            features = self.network.encode(images)
            logits = self.network.crop(self.network.decoder(features)[0], images)
            of_output = logits[:, self.output]
            predicted = logits.argmax(dim=1) == self.output if self.is_exclusive else of_output > 0
            scores = (of_output * predicted).flatten(1).sum(1) / predicted.flatten(1).sum(1).clamp(min=1)
            gradients = torch.autograd.grad(scores.sum(), features, allow_unused=True)
        maps = [
            _at_full_resolution(self.network, _grad_cam(*pair), images, stage)
            for stage, pair in enumerate(zip(features, gradients, strict=True))
        ]
        return torch.cat(maps, dim=1).detach()


def _grad_cam(features: Tensor, gradient: Tensor | None) -> Tensor:
    """Weight each channel (B, C, *spatial) by its mean gradient; sum to (B, 1, *spatial), negative sums are 0."""
    if gradient is None:
        return torch.zeros_like(features[:, :1])
    weights = gradient.flatten(2).mean(dim=2).reshape(*gradient.shape[:2], *[1] * (gradient.ndim - 2))
    return F.relu((weights * features).sum(dim=1, keepdim=True))


def _at_full_resolution(network: UNet, map_: Tensor, images: Tensor, stage: int) -> Tensor:
    mode = INTERPOLATION[network.ndim]
    if any(network.border):  # every map is centred on the image
        scales = [float(factor) for factor in network.encoder.scales[stage]]  # type: ignore[index]
        map_ = F.interpolate(map_, scale_factor=scales, mode=mode, align_corners=False)
        size = [n - 2 * border for n, border in zip(images.shape[2:], network.border, strict=True)]
        return crop_border(map_, tuple((n - m) // 2 for n, m in zip(map_.shape[2:], size, strict=True)))
    padded = network.pad(images).shape[2:]
    if map_.shape[2:] != padded:
        map_ = F.interpolate(map_, size=padded, mode=mode, align_corners=False)
    return network.crop(map_, images)
