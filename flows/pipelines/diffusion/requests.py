"""Rows of a registered text-to-image model's columns to requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from data_pipelines.errors import InputError
from flows.pipelines.diffusion.text_to_image import TextToImage
from unet_models.specs.diffusion import ImageRequest

T = TypeVar("T")


def read_request(row: Mapping[str, Any], model: TextToImage) -> ImageRequest:
    """Build the request of a row without empty cells. Raises InputError where it does not fit the model."""
    if ("prompt" in row) != model.takes_text:
        rule = "each row needs `prompt`" if model.takes_text else "the model takes no `prompt`, it has no text"
        raise InputError(f"{rule}; got columns {sorted(row)}")
    if row.get("negative_prompt") and not model.takes_text:
        raise InputError("the model takes no `negative_prompt`, it has no text")
    return ImageRequest(
        prompt=str(row.get("prompt", "")),
        class_name=str(row.get("class", "")),
        seed=whole_number(row, "seed", 0),
        guidance_scale=float(row.get("guidance_scale", model.bundle.sample.guidance_scale)),
        negative_prompt=str(row.get("negative_prompt", "")),
        width=whole_number(row, "width", None),
        height=whole_number(row, "height", None),
    )


def whole_number(row: Mapping[str, Any], name: str, default: T) -> int | T:
    """Return the whole number in a column, which may be a double where another row has none; ``default`` where the
    row has none. Raises InputError for a fraction."""
    if name not in row:
        return default
    value = row[name]
    if not isinstance(value, str) and int(value) != value:  # compared as it is: a double has 53 bits of a seed
        raise InputError(f"{name} must be a whole number, got {value}")
    return int(value)
