"""Base class of every configuration and of every record that travels as JSON. Light to import: no numpy, no Ray."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Spec(BaseModel):
    """Frozen model with typed fields; an unknown field is an error, and docstrings below fields describe them."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        model_title_generator=lambda model: model.__name__.removesuffix("Spec"),  # shown by Prefect's forms
    )


def absolute_place(place: str) -> str:
    """Return a path as an absolute one; URIs and the empty text stay."""
    return str(Path(place).expanduser().absolute()) if place and "://" not in place else place


LocalPath = Annotated[str, AfterValidator(absolute_place)]
"""Path or URI of a file or folder; paths become absolute when they are read: jobs and retries run in other folders."""

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def parse_duration(value: object) -> object:
    """Turn ``1h30m``, ``30m`` or ``90s`` into seconds; numbers pass. Raises ValueError for any other text."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if not value.strip() or match is None:
        raise ValueError(f"write a duration as 1h30m, 30m or 90s, got {value!r}")
    return sum(float(number) * unit for number, unit in zip(match.groups(), (3600, 60, 1), strict=True) if number)


def duration_text(seconds: float) -> str:
    """Write seconds as ``parse_duration`` reads them: ``1h30m``, ``2m5s``, ``0.5s``."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(hours, "h"), (minutes, "m"), (rest, "s")]
    return "".join(f"{number:g}{unit}" for number, unit in parts if number) or "0s"


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
"""A time in seconds; written in a configuration as a number or as ``1h30m``."""
