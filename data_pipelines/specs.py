"""Base class of every configuration and of every record that travels as JSON. Light to import: no numpy, no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Spec(BaseModel):
    """Frozen model with typed fields; an unknown field is an error, and docstrings below fields describe them."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        model_title_generator=lambda model: model.__name__.removesuffix("Spec"),  # shown by Prefect's forms
    )


def _absolute(place: str) -> str:
    return str(Path(place).expanduser().absolute()) if place and "://" not in place else place


LocalPath = Annotated[str, AfterValidator(_absolute)]
"""Path or URI of a file or folder; paths become absolute when they are read: jobs and retries run in other folders."""
