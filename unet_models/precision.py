"""Numeric precision of forward passes."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["bf16", "fp32"]


def full_precision(device: torch.device) -> torch.autocast:
    """Build the context in which everything runs in the precision of its inputs, whatever autocast is on outside."""
    return torch.autocast(device.type, enabled=False)


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Build the context in which ``bf16`` runs the operations that support it; ``fp32`` changes nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
