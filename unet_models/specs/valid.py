"""Sizes of networks with valid (unpadded) convolutions: what they consume at the border, and which sizes fit.

With ``e[i]`` and ``d[i]`` convolutions of encoder and decoder in stage i, kernels of k voxels and the product P[i] of
the strides before stage i, an output of m voxels along an axis needs an input of

    n = m + (k - 1) (sum of e[i] P[i] + sum of d[i] P[i])

and each pooling divides where n - (k - 1) sum of e[i] P[i] divides by the product of all strides. Ronneberger 2015,
figure 1: 388 of 572, n - 124 divides by 16. Padded convolutions count as k = 1: they lose nothing.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence

from unet_models.specs.networks import UNetSpec

Sizes = tuple[int, ...]


def border_of(spec: UNetSpec, ndim: int) -> Sizes:
    """Compute the voxels that a network consumes on each side of its output, per axis; 0 for padded convolutions."""
    both = _add(spec.encoder_blocks, spec.decoder_blocks)
    return tuple(_lost(spec, both, products) // 2 for products in _products(spec, ndim))


def remainder_of(spec: UNetSpec, ndim: int) -> Sizes:
    """Compute what input sizes that fit leave when divided by the product of all strides, per axis."""
    return tuple(_lost(spec, spec.encoder_blocks, products) % products[-1] for products in _products(spec, ndim))


def skip_crop(spec: UNetSpec, ndim: int, stage: int) -> Sizes:
    """Compute the voxels to crop from each side of the encoder's features of a stage before the decoder joins them."""
    below = _add(spec.encoder_blocks, spec.decoder_blocks)
    below[: stage + 1] = [0] * (stage + 1)
    return tuple(_lost(spec, below, products) // products[stage] // 2 for products in _products(spec, ndim))


def find_misfits(spec: UNetSpec, size: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Find the axes along which no input gives an output of ``size``: axis to the next smaller and larger that fit."""
    ndim = len(size)
    if spec.padding == "same":
        return {}
    found = {}
    parts = zip(size, border_of(spec, ndim), remainder_of(spec, ndim), _products(spec, ndim), strict=True)
    for axis, (n, border, remainder, products) in enumerate(parts):
        if excess := (n + 2 * border - remainder) % products[-1]:
            found[axis] = (n - excess, n - excess + products[-1])
    return found


def _products(spec: UNetSpec, ndim: int) -> list[list[int]]:
    """Compute the product of the strides before each stage, along each axis."""
    strides = spec.strides_per_axis(ndim)
    return [
        list(itertools.accumulate((stride[axis] for stride in strides), operator.mul, initial=1))
        for axis in range(ndim)
    ]


def _lost(spec: UNetSpec, num_convs: Sequence[int], products: Sequence[int]) -> int:
    """Compute the voxels of full resolution that so many convolutions per stage lose along an axis."""
    kernel = spec.kernel_size if spec.padding == "valid" and isinstance(spec.kernel_size, int) else 1
    return (kernel - 1) * sum(map(operator.mul, num_convs, products))


def _add(encoder: Sequence[int], decoder: Sequence[int]) -> list[int]:
    return [down + up for down, up in zip(encoder, [*decoder, 0], strict=True)]
