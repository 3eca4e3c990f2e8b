"""Inception features of images, which the FID and the KID are measured with.

Resizing and normalisation decide the figure as much as the weights: ``PROTOCOL`` names them and belongs beside every
figure.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import torch
from jaxtyping import Float, Real, UInt8
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from data_pipelines.errors import WeightsError
from unet_models.networks.inception import FIDInception

PROTOCOL = "Inception 2015-12-05 pool3 (2048), TF1 bilinear to 299x299 of 0..255, (x - 128) / 128"
"""Description of ``inception_features``; features of another protocol must not be compared with these."""

WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
WEIGHTS_SOURCE = "the release fid_weights of github.com/mseitzer/pytorch-fid"
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

IMAGE_SIZE = 299


def load_inception(path: Path | str, sha256: str = WEIGHTS_SHA256) -> FIDInception:
    """Load the published weights from the file ``path``: on the CPU, in evaluation mode, without gradients.

    ``sha256`` is the file's expected SHA-256 in hexadecimal, or its first 8 digits or more. A copy of the weights as
    ``.safetensors`` has a digest of its own, which must be given. Pickled code is never run.

    Raises WeightsError where the file is missing, has another digest, is unreadable or holds other tensors, and
    ValueError for a ``sha256`` that is too short.
    """
    path = Path(path)
    tensors = _read_tensors(path, _read_verified(path, sha256))
    with torch.random.fork_rng(devices=[]):  # initial weights are thrown away: the caller's generator stays as it was
        network = FIDInception()
    try:
        left = network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{path}: tensors of other shapes than the FID Inception's: {error}") from error
    if left.missing_keys or left.unexpected_keys:
        raise WeightsError(
            f"{path}: not the tensors of the FID Inception: {len(left.missing_keys)} missing {left.missing_keys[:3]}, "
            f"{len(left.unexpected_keys)} unknown {left.unexpected_keys[:3]}; {_remedy(path)}"
        )
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def inception_features(
    network: FIDInception, images: UInt8[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch 2048"]:
    """Compute pool3 features of RGB images of 0 .. 255, float32, on the network's device (see ``PROTOCOL``).

    Images are resized by ``resize_tf1_bilinear``, then normalised by ``(x - 128) / 128``, as in the TensorFlow graph,
    all in float32 whatever autocast is on. On a GPU torch's setting ``backends.cudnn.allow_tf32`` still applies.

    Raises ValueError for images that are not uint8 with 3 channels, and for a network in training mode.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"images must be uint8 (batch, 3, height, width), got {images.dtype} of shape {tuple(images.shape)}; "
            "repeat a grey channel three times"
        )
    if network.training:
        raise ValueError("network must be in evaluation mode, got training mode: call network.eval()")
    device = network.fc.weight.device
    with torch.autocast(device.type, enabled=False):
        pixels = resize_tf1_bilinear(images.to(device), (IMAGE_SIZE, IMAGE_SIZE))
        return network((pixels - 128) / 128)


def resize_tf1_bilinear(
    images: Real[Tensor, "batch channels H W"], size: tuple[int, int]
) -> Float[Tensor, "batch channels height width"]:
    """Resize ``images`` to ``size``, height and width, as TensorFlow 1 did: float32, values neither scaled nor rounded.

    Pixel ``i`` of the result lies at ``i * H / height`` of the source: corners are not aligned, pixel centres neither
    (torch's own bilinear puts it at ``(i + 1/2) * H / height - 1/2``), and nothing is smoothed when shrinking.
    """
    x = images.float()
    left, right, weight = _tf1_neighbours(x.shape[3], size[1], x.device)
    x = x[..., left] + (x[..., right] - x[..., left]) * weight
    upper, lower, weight = _tf1_neighbours(x.shape[2], size[0], x.device)
    return x[:, :, upper] + (x[:, :, lower] - x[:, :, upper]) * weight[:, None]


def _tf1_neighbours(before: int, after: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Find the two source pixels of every pixel of an axis, and the weight of the second; each ``(after,)``."""
    position = torch.arange(after, dtype=torch.float32, device=device) * (before / after)
    first = position.long()
    return first, (first + 1).clamp(max=before - 1), position - first


def _read_verified(path: Path, sha256: str) -> bytes:
    """Read the file once, so that the bytes that are verified are those that are loaded."""
    if len(sha256) < 8:
        raise ValueError(f"sha256 must be a SHA-256 or at least its first 8 digits, got {sha256!r}")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; {_remedy(path)}")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(sha256.lower()):
        raise WeightsError(f"{path}: its SHA-256 must begin with {sha256[:16]}, got {digest[:16]}; {_remedy(path)}")
    return data


def _read_tensors(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(data)
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
        raise WeightsError(f"{path}: not a readable file of tensors ({error}); {_remedy(path)}") from error
    if not isinstance(tensors, dict):
        raise WeightsError(f"{path}: must hold a dict of tensors, got {type(tensors).__name__}; {_remedy(path)}")
    return tensors


def _remedy(path: Path) -> str:
    return f"download {WEIGHTS_FILE} from {WEIGHTS_SOURCE} and put it into {path.parent}"
