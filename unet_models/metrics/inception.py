"""The Inception-v3 that FID and KID are measured with, and its features.

It is the TensorFlow graph of 2015-12-05 (Szegedy et al. 2016, arXiv:1512.00567, without the auxiliary head), ported to
torch in the file ``pt_inception-2015-12-05-6726825d.pth``, whose tensor names the modules below carry. It departs from
torchvision's network: 1008 classes, average pools that leave the padding out of the mean, and a max pool in place of
the last block's average pool. Resizing and normalisation decide the figure as much as the weights: ``PROTOCOL`` names
them and belongs beside every figure.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

PROTOCOL = "Inception 2015-12-05 pool3 (2048), TF1 bilinear to 299x299 of 0..255, (x - 128) / 128"
"""What ``inception_features`` does, in words: features of another protocol must not be compared with these."""

WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
WEIGHTS_SOURCE = "the release fid_weights of github.com/mseitzer/pytorch-fid"
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

IMAGE_SIZE = 299
NUM_FEATURES = 2048
NUM_CLASSES = 1008

Kernel = int | tuple[int, int]


class ConvNormReLU(nn.Module):
    """Convolution without bias - batch normalisation - ReLU; padded to keep the size unless ``padded`` is False."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Kernel, *, stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(in_channels, out_channels, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W')."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Mixed35(nn.Module):
    """The block at 35x35 (paper, fig. 5): 1x1, 5x5, two 3x3, and a pool."""

    def __init__(self, in_channels: int, pool_channels: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormReLU(in_channels, 64, 1)
        self.branch5x5_1 = ConvNormReLU(in_channels, 48, 1)
        self.branch5x5_2 = ConvNormReLU(48, 64, 5)
        self.branch3x3dbl_1 = ConvNormReLU(in_channels, 64, 1)
        self.branch3x3dbl_2 = ConvNormReLU(64, 96, 3)
        self.branch3x3dbl_3 = ConvNormReLU(96, 96, 3)
        self.branch_pool = ConvNormReLU(in_channels, pool_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 35, 35) -> (B, 224 + pool_channels, 35, 35)."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_average_pool(x))], dim=1)


class Reduce35To17(nn.Module):
    """Half the size, 288 to 768 channels: convolutions of stride 2 beside a max pool (paper, fig. 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = ConvNormReLU(288, 384, 3, stride=2, padded=False)
        self.branch3x3dbl_1 = ConvNormReLU(288, 64, 1)
        self.branch3x3dbl_2 = ConvNormReLU(64, 96, 3)
        self.branch3x3dbl_3 = ConvNormReLU(96, 96, 3, stride=2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 288, 35, 35) -> (B, 768, 17, 17)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], dim=1)


class Mixed17(nn.Module):
    """The block at 17x17 (paper, fig. 6): 7x7 convolutions split into 1x7 and 7x1."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormReLU(768, 192, 1)
        self.branch7x7_1 = ConvNormReLU(768, hidden, 1)
        self.branch7x7_2 = ConvNormReLU(hidden, hidden, (1, 7))
        self.branch7x7_3 = ConvNormReLU(hidden, 192, (7, 1))
        self.branch7x7dbl_1 = ConvNormReLU(768, hidden, 1)
        self.branch7x7dbl_2 = ConvNormReLU(hidden, hidden, (7, 1))
        self.branch7x7dbl_3 = ConvNormReLU(hidden, hidden, (1, 7))
        self.branch7x7dbl_4 = ConvNormReLU(hidden, hidden, (7, 1))
        self.branch7x7dbl_5 = ConvNormReLU(hidden, 192, (1, 7))
        self.branch_pool = ConvNormReLU(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 768, 17, 17) -> same shape."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average_pool(x))], dim=1)


class Reduce17To8(nn.Module):
    """Half the size, 768 to 1280 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNormReLU(768, 192, 1)
        self.branch3x3_2 = ConvNormReLU(192, 320, 3, stride=2, padded=False)
        self.branch7x7x3_1 = ConvNormReLU(768, 192, 1)
        self.branch7x7x3_2 = ConvNormReLU(192, 192, (1, 7))
        self.branch7x7x3_3 = ConvNormReLU(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvNormReLU(192, 192, 3, stride=2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 768, 17, 17) -> (B, 1280, 8, 8)."""
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat(
            [self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), F.max_pool2d(x, 3, stride=2)], dim=1
        )


class Mixed8(nn.Module):
    """The block at 8x8 (paper, fig. 7): 1x3 and 3x1 side by side. The graph's last one pools by maximum."""

    def __init__(self, in_channels: int, *, max_pool: bool) -> None:
        super().__init__()
        self.max_pool = max_pool
        self.branch1x1 = ConvNormReLU(in_channels, 320, 1)
        self.branch3x3_1 = ConvNormReLU(in_channels, 384, 1)
        self.branch3x3_2a = ConvNormReLU(384, 384, (1, 3))
        self.branch3x3_2b = ConvNormReLU(384, 384, (3, 1))
        self.branch3x3dbl_1 = ConvNormReLU(in_channels, 448, 1)
        self.branch3x3dbl_2 = ConvNormReLU(448, 384, 3)
        self.branch3x3dbl_3a = ConvNormReLU(384, 384, (1, 3))
        self.branch3x3dbl_3b = ConvNormReLU(384, 384, (3, 1))
        self.branch_pool = ConvNormReLU(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 8, 8) -> (B, 2048, 8, 8)."""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.max_pool else _average_pool(x)
        branches = [
            self.branch1x1(x),
            *(self.branch3x3_2a(single), self.branch3x3_2b(single)),
            *(self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)),
            self.branch_pool(pooled),
        ]
        return torch.cat(branches, dim=1)


class FIDInception(nn.Module):
    """Inception-v3 up to its last pool. ``fc`` is not used: it is there so that the file's tensors all have a place."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNormReLU(3, 32, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = ConvNormReLU(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = ConvNormReLU(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvNormReLU(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNormReLU(80, 192, 3, padded=False)
        self.Mixed_5b = Mixed35(192, pool_channels=32)
        self.Mixed_5c = Mixed35(256, pool_channels=64)
        self.Mixed_5d = Mixed35(288, pool_channels=64)
        self.Mixed_6a = Reduce35To17()
        self.Mixed_6b = Mixed17(hidden=128)
        self.Mixed_6c = Mixed17(hidden=160)
        self.Mixed_6d = Mixed17(hidden=160)
        self.Mixed_6e = Mixed17(hidden=192)
        self.Mixed_7a = Reduce17To8()
        self.Mixed_7b = Mixed8(1280, max_pool=False)
        self.Mixed_7c = Mixed8(2048, max_pool=True)
        self.fc = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, x: Float[Tensor, "batch 3 299 299"]) -> Float[Tensor, "batch 2048"]:
        """Images normalised to about -1 .. 1 (see ``inception_features``) to pool3 features."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (B, 64, 147, 147)
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # (B, 192, 71, 71)
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (B, 288, 35, 35)
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))  # (B, 768, 17, 17)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)
        return x.mean(dim=(2, 3))


def load_inception(path: Path | str, sha256: str = WEIGHTS_SHA256) -> FIDInception:
    """The network with the published weights in the file ``path``, on the CPU, in evaluation mode.

    ``sha256`` is the file's expected SHA-256 in hexadecimal, or its first 8 digits or more. A copy of the weights as
    ``.safetensors`` has a digest of its own: give it. Pickled code is never run.

    Raises ValueError where the file is missing, has another digest, is unreadable or holds other tensors.
    """
    path = Path(path)
    if len(sha256) < 8:
        raise ValueError(f"sha256 must be a SHA-256 or at least its first 8 digits, got {sha256!r}")
    if not path.is_file():
        raise ValueError(f"{path}: no such file; {_remedy(path)}")
    data = path.read_bytes()  # read once: what was checked is what is loaded
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(sha256.lower()):
        raise ValueError(f"{path}: its SHA-256 must begin with {sha256[:16]}, got {digest[:16]}; {_remedy(path)}")
    tensors = _read_tensors(path, data)
    with torch.random.fork_rng(devices=[]):  # initial weights are thrown away: the caller's generator stays as it was
        network = FIDInception()
    try:
        left = network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path}: tensors of other shapes than the FID Inception's: {error}") from error
    if left.missing_keys or left.unexpected_keys:
        raise ValueError(
            f"{path}: not the tensors of the FID Inception: {len(left.missing_keys)} missing {left.missing_keys[:3]}, "
            f"{len(left.unexpected_keys)} unknown {left.unexpected_keys[:3]}; {_remedy(path)}"
        )
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def inception_features(
    network: FIDInception, images: UInt8[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch 2048"]:
    """Pool3 features of RGB images of 0 .. 255, float32, on the network's device (``PROTOCOL``).

    Resized by ``resize_tf1_bilinear``, then ``(x - 128) / 128``, as in the TensorFlow graph; computed in float32
    whatever autocast is on. On a GPU torch's setting ``backends.cudnn.allow_tf32`` still applies.

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


def resize_tf1_bilinear(images: Tensor, size: tuple[int, int]) -> Float[Tensor, "batch channels height width"]:
    """``images (B, C, H, W)`` resized to ``size`` as TensorFlow 1 did: float32, values neither scaled nor rounded.

    Pixel ``i`` of the result lies at ``i * H / height`` of the source: corners are not aligned, pixel centres neither
    (torch's own bilinear puts it at ``(i + 1/2) * H / height - 1/2``), and nothing is smoothed when shrinking.
    """
    x = images.float()
    left, right, weight = _tf1_neighbours(x.shape[3], size[1], x.device)
    x = x[..., left] + (x[..., right] - x[..., left]) * weight
    upper, lower, weight = _tf1_neighbours(x.shape[2], size[0], x.device)
    return x[:, :, upper] + (x[:, :, lower] - x[:, :, upper]) * weight[:, None]


def _tf1_neighbours(before: int, after: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The two source pixels of every pixel of an axis, and the weight of the second; each ``(after,)``."""
    position = torch.arange(after, dtype=torch.float32, device=device) * (before / after)
    first = position.long()
    return first, (first + 1).clamp(max=before - 1), position - first


def _average_pool(x: Tensor) -> Tensor:
    """Mean over 3x3, at the border over the pixels that exist; same shape."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _read_tensors(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(data)
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
        raise ValueError(f"{path}: not a readable file of tensors ({error}); {_remedy(path)}") from error
    if not isinstance(tensors, dict):
        raise ValueError(f"{path}: must hold a dict of tensors, got {type(tensors).__name__}; {_remedy(path)}")
    return tensors


def _remedy(path: Path) -> str:
    return f"download {WEIGHTS_FILE} from {WEIGHTS_SOURCE} and put it into {path.parent}"
