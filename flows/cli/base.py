"""The application, options that commands share, and where output goes."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import to_json

from data_pipelines.errors import ConfigError
from data_pipelines.specs import parse_duration

app = typer.Typer(
    help="Train U-Nets for segmentation, latent diffusion and restoration, from raw data to a registered model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PANELS = (
    "Pipelines",
    "One stage (and the stages before it)",
    "Cluster and schedule",
    "Models",
    "Help",
)
"""Groups of commands, as ``--help`` lists them."""
PIPELINE_PANEL, STAGE_PANEL, CLUSTER_PANEL, MODEL_PANEL, OTHER_PANEL = PANELS

Config = Annotated[Path, typer.Argument(help="YAML file of the pipeline.", metavar="CONFIG.yaml")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a field: a.b=value. May be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print the final record as one JSON object on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print each stage with its key and whether it is a cache hit.")]
Verify = Annotated[
    bool, typer.Option("--verify", help="Hash every output again instead of trusting size and modification time.")
]

MIN_GIGABYTES = 0.1
"""Least memory that can be asked for, in GB."""


def parse_gigabytes(text: str) -> float:
    """Read a size of memory in GB: ``8``, ``8GB`` or ``512MB``. Raises typer.BadParameter for any other text."""
    match = re.fullmatch(r"([\d.]+) *(GB|MB)?", str(text).strip(), re.IGNORECASE)
    try:
        size = float(match[1]) / (1000 if (match[2] or "").upper() == "MB" else 1) if match else 0.0
    except ValueError:
        size = 0.0
    if size < MIN_GIGABYTES:
        raise typer.BadParameter(f"write a size as 8, 8GB or 512MB, {MIN_GIGABYTES:g} GB or more, got {text!r}")
    return size


def parse_within(text: str) -> float:
    """Read the time of ``--within`` in seconds, such as ``30m``. Raises ConfigError for any other text, and for 0."""
    try:
        seconds = float(str(parse_duration(text)))
    except ValueError as error:
        raise ConfigError(f"--within: {error}") from None
    if not 0 < seconds < math.inf:
        raise ConfigError(f"--within: write a time above 0, such as 30m, got {text!r}")
    return seconds


_result_fd = 1


def keep_stdout_for_results() -> None:
    """Send to stderr whatever libraries and Ray's workers print; results keep stdout."""
    global _result_fd
    _result_fd = os.dup(1)
    os.dup2(2, 1)


def print_result(text: str) -> None:
    """Print a result on stdout."""
    os.write(_result_fd, text.encode() + b"\n")


def print_json(value: Any) -> None:
    """Print a model, a dataclass, or a container of them as one line of JSON on stdout."""
    print_result(to_json(value).decode())
