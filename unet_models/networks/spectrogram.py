"""Log-mel spectrogram as convolutions with fixed weights, so that it is part of the exported graph."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WINDOW, HOP = 400, 160
"""Samples of a frame, and between frames: 25 ms and 10 ms at 16 kHz."""
FLOOR = 1e-6
"""Energy below which the logarithm is cut."""


class LogMel(nn.Module):
    """Log-mel spectrogram of sounds: Hann window, power spectrum, triangular mel filters, natural logarithm."""

    basis: Tensor
    filters: Tensor

    def __init__(self, num_mels: int, sample_rate: int) -> None:
        super().__init__()
        angles = torch.arange(WINDOW // 2 + 1)[:, None] * torch.arange(WINDOW) * (2 * math.pi / WINDOW)
        window = torch.hann_window(WINDOW)
        basis = torch.cat([torch.cos(angles), torch.sin(angles)]) * window
        self.register_buffer("basis", basis[:, None].float(), persistent=False)  # (2F, 1, window)
        self.register_buffer("filters", mel_filters(num_mels, sample_rate), persistent=False)  # (mels, F)

    def forward(self, sounds: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch mels frames"]:
        """Compute the spectrogram of whole frames, in float32."""
        with torch.autocast(sounds.device.type, enabled=False):
            real, imaginary = F.conv1d(sounds.float()[:, None], self.basis, stride=HOP).chunk(2, dim=1)
            return torch.log((self.filters @ (real**2 + imaginary**2)).clamp_min(FLOOR))


def mel_filters(num_mels: int, sample_rate: int) -> Float[Tensor, "mels frequencies"]:
    """Compute triangles of height 1, evenly spaced from 0 to half the sample rate on O'Shaughnessy's mel scale."""
    edges = _to_hertz(torch.linspace(0, _to_mel(sample_rate / 2), num_mels + 2, dtype=torch.float64))
    frequencies = torch.linspace(0, sample_rate / 2, WINDOW // 2 + 1, dtype=torch.float64)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    return torch.minimum(rising, falling).clamp_min(0).float()


def _to_mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _to_hertz(mel: Tensor) -> Tensor:
    return 700 * (10 ** (mel / 2595) - 1)
