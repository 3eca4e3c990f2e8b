"""What every verb shares: the application, its options, and where output goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="From medical volumes or captioned images to a registered, deployable U-Net.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Argument(help="YAML file of the pipeline.", metavar="CONFIG.yaml")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a field: a.b=value. May be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print the final record as one JSON object on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print each stage with its key and whether it is done.")]

_result_fd = 1


def keep_stdout_for_results() -> None:
    """Libraries and Ray's workers print where they like; whatever they say goes to stderr."""
    global _result_fd
    _result_fd = os.dup(1)
    os.dup2(2, 1)


def print_result(text: str) -> None:
    """A line, or several, on stdout."""
    os.write(_result_fd, text.encode() + b"\n")
