"""The verb that looks for what is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.base import Json, Set, app, print_result
from flows.cli.tables import findings_text


@app.command()
def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="Also ask whether the cluster can hold this.", metavar="[CONFIG.yaml]")
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Versions, servers, credentials, storage, GPUs: what is wrong, and what mends it; exit code 1 if so."""
    from flows.pipelines.catalog import load_config
    from flows.doctor import examine

    findings = list(examine(load_config(config, overrides or ()) if config else None))
    print_result(json.dumps([asdict(finding) for finding in findings]) if as_json else findings_text(findings))
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)
