"""Encoding of one shard: images to latent means and log-variances, captions to text states, in float16."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data_pipelines import storage
from data_pipelines.errors import Problem, ProblemList, broken_rule
from data_pipelines.loading.order import group_alike
from data_pipelines.shards.index import MOMENTS, STATES, Row, index_table
from data_pipelines.shards.writer import Sample, npy_bytes, write_shard
from data_pipelines.specs import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from unet_models.formats.clip_folder import Clip


class Encoding(Spec):
    """Encoders and settings that every shard is encoded with."""

    images_uri: str
    clip_uri: str
    autoencoder_uri: str
    batch_size: int
    precision: Literal["fp32", "bf16"]
    threads: int
    use_gpu: bool


class EncodingWork(Spec):
    """One shard of latents to be written; travels as JSON."""

    encoding: Encoding
    uri: str
    rows: list[Row]
    """Index rows of the images."""
    digests: list[str]
    """Digest of each sample's latents."""


def captions_of(row: Row) -> list[str]:
    """Return all captions of an image, of which training draws one each time."""
    return list(row.get("captions") or [row["caption"]])


@dataclass(slots=True)
class ShardEncoder:
    """Encodes the images of one shard after the other with networks that it loads with the first."""

    networks: tuple[Clip, Any] | None = None
    loaded: tuple[str, str] | None = None

    def __call__(self, text: str) -> tuple[list[Row], list[Problem]]:
        """Write the shard of an ``EncodingWork`` (JSON); return its index rows."""
        work = EncodingWork.model_validate_json(text)
        self._load(work.encoding)
        problems = ProblemList()
        return write_shard(work.uri, self._samples(work, problems)), problems

    def _load(self, encoding: Encoding) -> None:
        import torch

        from unet_models.formats.clip_folder import Clip
        from unet_models.networks.autoencoder import load_autoencoder

        wanted = (encoding.clip_uri, encoding.autoencoder_uri)
        if self.loaded == wanted:
            return
        device = "cuda" if encoding.use_gpu else "cpu"
        torch.set_num_threads(encoding.threads)
        with (
            storage.local_folder(encoding.clip_uri) as clip,
            storage.local_folder(encoding.autoencoder_uri) as autoencoder,
        ):
            self.networks = Clip(clip, device), load_autoencoder(autoencoder, device)
        self.loaded = wanted

    def _samples(self, work: EncodingWork, problems: ProblemList) -> Iterator[Sample]:
        from data_pipelines.loading.loader import ImageSamples
        from data_pipelines.shards.reader import ShardReader

        images = ImageSamples(ShardReader(index_table(work.rows), work.encoding.images_uri))
        for chosen in group_alike([row["bucket"] for row in work.rows], work.encoding.batch_size):
            moments = self._moments(images.pixels(chosen), work.encoding)
            states = self._states([captions_of(work.rows[i]) for i in chosen], work.encoding)
            for i, moment, state in zip(chosen, moments, states, strict=True):
                with problems.collecting():
                    yield self._build_sample(work.rows[i], work.digests[i], moment, state)

    def _moments(self, pixels: Tensor, encoding: Encoding) -> Tensor:
        """Encode images (B, 3, H, W) uint8 to means and log-variances (B, 2C, h, w)."""
        import torch

        from unet_models.networks.autoencoder import images_at_once
        from unet_models.precision import autocast
        from unet_models.sampling.pixels import scale_images

        clip, autoencoder = self._loaded
        moments = []
        height, width = pixels.shape[-2:]
        with torch.no_grad(), autocast(encoding.precision, clip.device):
            for part in pixels.split(images_at_once(height, width, len(pixels))):
                encoded = autoencoder.encode(scale_images(part.to(clip.device)))
                moments.append(encoded.latent_dist.parameters.float().cpu())
        return torch.cat(moments)

    def _states(self, captions: Sequence[list[str]], encoding: Encoding) -> list[Tensor]:
        """Encode the captions of several images: (L, D) of an image with one, (K, L, D) of one with several."""
        import torch

        from unet_models.precision import autocast

        clip, _ = self._loaded
        flat = [caption for of_image in captions for caption in of_image]
        size = encoding.batch_size
        with autocast(encoding.precision, clip.device):
            parts = [clip.text_states(flat[i : i + size]).float().cpu() for i in range(0, len(flat), size)]
        states = torch.cat(parts).split([len(of_image) for of_image in captions])
        return [of_image if len(of_image) > 1 else of_image[0] for of_image in states]

    def _build_sample(self, image: Row, digest: str, moments: Tensor, states: Tensor) -> Sample:
        """Build index row and parts of one image. Raises DataError where a value is not finite in float16."""
        from unet_models.networks.tokenizer import count_tokens

        tokenizer = self._loaded[0].tokenizer
        counts = count_tokens(tokenizer, captions_of(image))
        mean, log_variance = (half.double() for half in moments.chunk(2))
        square = mean.square() + log_variance.clamp(-30, 20).exp()
        parts = {MOMENTS: to_half(moments, image, LATENTS), STATES: to_half(states, image, TEXT_STATES)}
        row = {
            "key": image["key"],
            "case_id": image["case_id"],
            "digest": digest,
            "latent_mean": float(mean.mean()),
            "latent_square": float(square.mean()),
            "latent_shape": list(mean.shape),
            "cut_captions": sum(count > tokenizer.model_max_length for count in counts),
        }
        return row, {name: npy_bytes(values) for name, values in parts.items()}

    @property
    def _loaded(self) -> tuple[Clip, Any]:
        assert self.networks is not None
        return self.networks


def encode_empty_prompt(encoding: Encoding) -> np.ndarray:
    """Encode the empty prompt in the precision of the captions: (tokens, width) float16."""
    import torch

    from unet_models.formats.clip_folder import Clip
    from unet_models.precision import autocast

    with storage.local_folder(encoding.clip_uri) as folder, autocast(encoding.precision, torch.device("cpu")):
        states = Clip(folder).text_states([""])[0].float()
    return to_half(states, {"case_id": "the empty prompt", "caption": ""}, TEXT_STATES)


@dataclass(frozen=True, slots=True)
class Stored:
    """A kind of values that shards hold in float16, as messages name it."""

    rule: str
    name: str
    remedy: str


LATENTS = Stored(
    "non-finite-latents",
    "latents",
    "name an autoencoder whose latents stay in the range of float16, or set encode.precision=fp32",
)
TEXT_STATES = Stored(
    "non-finite-states",
    "text states",
    "name a CLIP whose states stay in the range of float16, or set encode.precision=fp32",
)


def to_half(values: Tensor, image: Row, stored: Stored) -> np.ndarray:
    """Convert values of an image to float16. Raises DataError where they are not finite, or no longer so."""
    with np.errstate(over="ignore"):
        half: np.ndarray = values.numpy().astype(np.float16)
    bad = int(np.count_nonzero(~np.isfinite(half)))
    if bad:
        largest = float(values.abs().max())
        message = (
            f"{bad} of {half.size} values of its {stored.name} are not finite in float16, which ends at 65504 (largest "
            f"{largest:g}); caption: {image['caption']!r:.80}"
        )
        raise broken_rule(stored.rule, image["case_id"], message, stored.remedy)
    return half
