"""The command that looks for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.base import OTHER_PANEL, Json, Set, app, print_json, print_result
from flows.cli.tables import findings_text
from flows.pipelines.catalog import load_config


@app.command(rich_help_panel=OTHER_PANEL)
def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="Also check whether the cluster can run this.", metavar="[CONFIG.yaml]")
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Check versions, servers, credentials, storage, GPUs, and say how to fix what is wrong; exit code 1 if so."""
    from flows.doctor.examine import examine

    findings = list(examine(load_config(config, overrides or ()) if config else None))
    if as_json:
        print_json(findings)
    else:
        print_result(findings_text(findings))
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)
