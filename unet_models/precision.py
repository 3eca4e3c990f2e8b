"""Numeric precision of forward passes."""

from __future__ import annotations

import logging
from functools import cache
from typing import Literal

import torch

logger = logging.getLogger(__name__)

Computed = Literal["bf16", "fp32"]
Precision = Literal["auto", "bf16", "fp32"]
"""Precision, or ``auto``: bf16 where the hardware has instructions for it, else fp32."""

_BF16_OF_CPU = ("amx_bf16", "avx512_bf16")


@cache
def computes_bf16(device: torch.device) -> bool:
    """Tell whether the device has instructions for bf16. One that has none emulates them, which is slower than fp32:
    13 times on an AVX2 CPU, for the training of the demo's segmentation network.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _BF16_OF_CPU)


def resolve_precision(precision: Precision, *, has_bf16: bool) -> Computed:
    """Return the precision that is computed in."""
    if precision == "auto":
        return "bf16" if has_bf16 else "fp32"
    return precision


def full_precision(device: torch.device) -> torch.autocast:
    """Build the context in which everything runs in the precision of its inputs, whatever autocast is on outside."""
    return torch.autocast(device.type, enabled=False)


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Build the context in which ``bf16`` runs the operations that support it; ``fp32`` changes nothing."""
    has_bf16 = computes_bf16(device)
    computed = resolve_precision(precision, has_bf16=has_bf16)
    if computed == "bf16" and not has_bf16:
        _warn_of_emulation()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=computed == "bf16")


@cache
def _warn_of_emulation() -> None:
    logger.warning("bf16 has no instructions on this hardware, which emulates it: fp32 is many times faster")
