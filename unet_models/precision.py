"""Numeric precision of forward passes."""

from __future__ import annotations

import torch


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Build the context in which ``bf16`` runs the operations that support it; ``fp32`` changes nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
