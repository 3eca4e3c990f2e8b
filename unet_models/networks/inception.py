"""Inception-v3 of the FID and the KID.

It is the TensorFlow graph of 2015-12-05 (Szegedy et al. 2016, arXiv:1512.00567, without the auxiliary head), ported to
torch in the file ``pt_inception-2015-12-05-6726825d.pth``, whose tensor names the modules below carry. It departs from
torchvision's network: 1008 classes, average pools that leave the padding out of the mean, and a max pool in place of
the last block's average pool.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NUM_FEATURES = 2048
NUM_CLASSES = 1008

Kernel = int | tuple[int, int]


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch normalisation, ReLU; padded to keep the size unless ``padded`` is False."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Kernel, *, stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(in_channels, out_channels, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Mixed35(nn.Module):
    """Inception block at 35x35 (paper, fig. 5): branches of 1x1, 5x5 and two 3x3 convolutions, and a pool."""

    def __init__(self, in_channels: int, pool_channels: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormReLU(in_channels, 64, 1)
        self.branch5x5_1 = ConvNormReLU(in_channels, 48, 1)
        self.branch5x5_2 = ConvNormReLU(48, 64, 5)
        self.branch3x3dbl_1 = ConvNormReLU(in_channels, 64, 1)
        self.branch3x3dbl_2 = ConvNormReLU(64, 96, 3)
        self.branch3x3dbl_3 = ConvNormReLU(96, 96, 3)
        self.branch_pool = ConvNormReLU(in_channels, pool_channels, 1)

    def forward(self, x: Float[Tensor, "batch channels 35 35"]) -> Float[Tensor, "batch out_channels 35 35"]:
        """Concatenate the branches: 224 + ``pool_channels`` channels."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_average_pool(x))], dim=1)


class Reduce35To17(nn.Module):
    """Reduction from 35x35 to 17x17, 288 to 768 channels: strided convolutions beside a max pool (paper, fig. 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = ConvNormReLU(288, 384, 3, stride=2, padded=False)
        self.branch3x3dbl_1 = ConvNormReLU(288, 64, 1)
        self.branch3x3dbl_2 = ConvNormReLU(64, 96, 3)
        self.branch3x3dbl_3 = ConvNormReLU(96, 96, 3, stride=2, padded=False)

    def forward(self, x: Float[Tensor, "batch 288 35 35"]) -> Float[Tensor, "batch 768 17 17"]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], dim=1)


class Mixed17(nn.Module):
    """Inception block at 17x17 (paper, fig. 6): 7x7 convolutions factorised into 1x7 and 7x1."""

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

    def forward(self, x: Float[Tensor, "batch 768 17 17"]) -> Float[Tensor, "batch 768 17 17"]:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average_pool(x))], dim=1)


class Reduce17To8(nn.Module):
    """Reduction from 17x17 to 8x8, 768 to 1280 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNormReLU(768, 192, 1)
        self.branch3x3_2 = ConvNormReLU(192, 320, 3, stride=2, padded=False)
        self.branch7x7x3_1 = ConvNormReLU(768, 192, 1)
        self.branch7x7x3_2 = ConvNormReLU(192, 192, (1, 7))
        self.branch7x7x3_3 = ConvNormReLU(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvNormReLU(192, 192, 3, stride=2, padded=False)

    def forward(self, x: Float[Tensor, "batch 768 17 17"]) -> Float[Tensor, "batch 1280 8 8"]:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat(
            [self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), F.max_pool2d(x, 3, stride=2)], dim=1
        )


class Mixed8(nn.Module):
    """Inception block at 8x8 (paper, fig. 7): 1x3 and 3x1 side by side; the network's last one uses a max pool."""

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

    def forward(self, x: Float[Tensor, "batch channels 8 8"]) -> Float[Tensor, "batch 2048 8 8"]:
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
    """Inception-v3 up to its last pool; ``fc`` is not used, it only gives a place to the file's tensors."""

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
        """Compute pool3 features of images normalised to about -1 .. 1 (see ``inception_features``)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (B, 64, 147, 147)
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # (B, 192, 71, 71)
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (B, 288, 35, 35)
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))  # (B, 768, 17, 17)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)
        return x.mean(dim=(2, 3))


def _average_pool(x: Tensor) -> Tensor:
    """Average over 3x3 pixels, at the border over those that exist; same shape."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
