"""The segmentation family, small: every preset with narrow stages, fewer than published where a test says so."""

from __future__ import annotations

from typing import Any

from unet_models.specs.networks import UNetSpec
from unet_models.specs.presets import PRESETS

MEMBERS = tuple(PRESETS)


def small(name: str, channels: tuple[int, ...] = (4, 6, 8)) -> UNetSpec:
    """Build a preset with other ``channels``; settings per stage are those of its first stages, skips of its last."""
    preset, stages = PRESETS[name], len(channels)
    cut: dict[str, Any] = {"channels": channels}
    for field, value in preset.items():
        if isinstance(value, tuple) and field != "channels":
            cut[field] = (
                value[1 - stages :] if field == "skip" else value[: len(value) - len(preset["channels"]) + stages]
            )
    if "deep_supervision" in preset:
        cut["deep_supervision"] = min(preset["deep_supervision"], stages - 2)
    return UNetSpec.model_validate({"preset": name, **cut})
