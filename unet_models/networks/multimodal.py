"""Multimodal U-Net: the coarsest features attend to tokens of a text and of a sound, each of which may be missing."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from unet_models.networks.attention import TransformerBlock
from unet_models.networks.denoiser_blocks import sinusoids
from unet_models.networks.spectrogram import LogMel
from unet_models.networks.unet import UNet
from unet_models.specs.networks import SAMPLE_RATE, FusionSpec

NUM_BYTES = 256


class TextEncoder(nn.Module):
    """Bytes of UTF-8 to tokens: embedding, positions, transformer blocks. Byte 0 pads."""

    def __init__(self, spec: FusionSpec) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_BYTES, spec.width)
        self.blocks = nn.ModuleList(TransformerBlock(spec.width, spec.num_heads) for _ in range(spec.num_blocks))

    def forward(self, texts: UInt8[Tensor, "batch bytes"]) -> Float[Tensor, "batch bytes width"]:
        tokens = add_positions(self.embedding(texts.long()))
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class SoundEncoder(nn.Module):
    """Samples to tokens: log-mel spectrogram, then strided convolutions over time, a token for each 40 ms."""

    def __init__(self, spec: FusionSpec) -> None:
        super().__init__()
        self.spectrogram = LogMel(spec.num_mels, SAMPLE_RATE)
        self.conv = nn.Sequential(
            nn.Conv1d(spec.num_mels, spec.width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv1d(spec.width, spec.width, 3, stride=2, padding=1),
        )
        self.norm = nn.LayerNorm(spec.width)

    def forward(self, sounds: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch tokens width"]:
        return add_positions(self.norm(self.conv(self.spectrogram(sounds)).transpose(1, 2)))


class Fusion(nn.Module):
    """Cross-attention from features to the tokens of all other modalities, on a shortcut."""

    def __init__(self, spec: FusionSpec, channels: int) -> None:
        super().__init__()
        self.text = TextEncoder(spec) if spec.text_bytes else None
        self.sound = SoundEncoder(spec) if spec.num_samples else None
        if spec.text_bytes:
            self.no_text = nn.Parameter(torch.zeros(spec.width))
        if spec.num_samples:
            self.no_sound = nn.Parameter(torch.zeros(spec.width))
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, spec.num_heads, context_dim=spec.width) for _ in range(spec.num_blocks)
        )
        read = {"texts": (spec.text_bytes, "uint8"), "sounds": (spec.num_samples, "float32")}
        self.lengths = {name: (length, kind) for name, (length, kind) in read.items() if length}
        """Length and type of the inputs that are read, by the names of the network's arguments."""

    def forward(
        self, features: Float[Tensor, "batch channels *coarse"], texts: Tensor | None, sounds: Tensor | None
    ) -> Float[Tensor, "batch channels *coarse"]:
        """Mix the tokens of texts and sounds into the features; None stands for none in the whole batch."""
        context = torch.cat(list(self._iter_tokens(features, texts, sounds)), dim=1)
        tokens = features.flatten(2).transpose(1, 2)  # (B, voxels, C)
        for block in self.blocks:
            tokens = block(tokens, context)
        return tokens.transpose(1, 2).unflatten(2, features.shape[2:])

    def _iter_tokens(self, features: Tensor, texts: Tensor | None, sounds: Tensor | None) -> Iterator[Tensor]:
        """Yield the tokens (B, L, D) of each modality; a learned vector takes the place of missing ones."""
        batch_size = features.shape[0]
        if self.text is not None:
            if texts is None:
                texts = features.new_zeros(batch_size, self.lengths["texts"][0], dtype=torch.uint8)
            is_there = texts.ne(0).any(dim=1)[:, None, None]
            yield torch.where(is_there, self.text(texts), self.no_text)
        if self.sound is not None:
            if sounds is None:
                sounds = features.new_full((batch_size, self.lengths["sounds"][0]), torch.nan, dtype=torch.float32)
            is_there = sounds.isnan().logical_not().any(dim=1)[:, None, None]
            yield torch.where(is_there, self.sound(sounds.nan_to_num()), self.no_sound)


class MultimodalUNet(UNet):
    """A U-Net whose coarsest features are fused with a text and a sound; each input, the image too, may be missing."""

    def __init__(self, network: UNet, fusion: Fusion, in_channels: int) -> None:
        """Take the parts of a network; ``fusion`` takes the features of its encoder's last stage."""
        super().__init__(network.encoder, network.decoder, network.divisor, network.border, network.remainder)
        self.fusion = fusion
        self.no_image = nn.Parameter(torch.zeros(in_channels))

    def forward(
        self,
        images: Float[Tensor, "batch channels *spatial"],
        texts: UInt8[Tensor, "batch bytes"] | None = None,
        sounds: Float[Tensor, "batch samples"] | None = None,
    ) -> Float[Tensor, "batch classes *spatial"] | list[Tensor]:
        """Map images, texts and sounds to logits, as ``UNet`` does.

        A sample has no image where all its voxels are NaN, no text where all bytes are 0, no sound where all samples
        are NaN: a learned vector takes its place.
        """
        return self.decode(self.encode(images, texts, sounds), images)

    def encode(
        self,
        images: Float[Tensor, "batch channels *spatial"],
        texts: UInt8[Tensor, "batch bytes"] | None = None,
        sounds: Float[Tensor, "batch samples"] | None = None,
    ) -> list[Tensor]:
        """Map images to features, finest first, the coarsest fused with texts and sounds."""
        absent = self.no_image.to(images.dtype).view(1, -1, *(1,) * self.ndim)
        is_there = images.isnan().logical_not().flatten(1).any(dim=1).view(-1, 1, *(1,) * self.ndim)
        features = super().encode(torch.where(is_there, images, absent))
        features[-1] = self.fusion(features[-1], texts, sounds)
        return features


class Conditioned(nn.Module):
    """A multimodal network with the text and the sound of one case, for any number of its windows: images to logits."""

    def __init__(
        self, network: nn.Module, text: Tensor | None, sound: Tensor | None, *, has_image: bool = True
    ) -> None:
        """``text (1, bytes)`` and ``sound (1, samples)``; ``has_image=False`` hides the images."""
        super().__init__()
        self.network, self.text, self.sound, self.has_image = network, text, sound, has_image

    def forward(self, images: Float[Tensor, "batch channels *spatial"]) -> Tensor:
        count = images.shape[0]
        given = (None if each is None else each.expand(count, -1) for each in (self.text, self.sound))
        if not self.has_image:
            images = torch.full_like(images, torch.nan)
        logits: Tensor = self.network(images, *given)
        return logits


def add_positions(tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
    """Add sines and cosines of the place of each token (Vaswani 2017)."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    return tokens + sinusoids(places, tokens.shape[2]).to(tokens.dtype)
